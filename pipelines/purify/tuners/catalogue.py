"""The tuners by name; a tuner's own module is imported only when it is used."""

from pipelines.purify.job import Tuner as TunerName
from pipelines.purify.training import Tuner


def make_tuner(name: TunerName, *, steps: int = 40) -> Tuner:
    """Return a fresh tuner for one run of about ``steps`` steps."""
    match name:
        case "vanilla":
            from pipelines.purify.tuners.vanilla import Vanilla

            return Vanilla()
        case "activeness-aware":
            from pipelines.purify.tuners.activeness_aware import ActivenessAware

            return ActivenessAware()
        case "gradient-aligned":
            from pipelines.purify.tuners.gradient_aligned import GradientAligned

            return GradientAligned()
        case "boosted-annealing":
            from pipelines.purify.tuners.boosted_annealing import BoostedAnnealing

            return BoostedAnnealing(steps=steps)
        case "lora":
            from pipelines.purify.tuners.lora import LowRank

            return LowRank()
        case "ladder":
            from pipelines.purify.tuners.ladder import Ladder

            return Ladder()
