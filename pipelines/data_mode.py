"""A scan with data: reads the given examples, runs the candidate on them, and turns refusals into skips."""

from dataclasses import dataclass

from pipelines.progress import Progress
from pipelines.purify.checkpoint import kind_of
from pipelines.purify.data import DataSpec, Samples, load_samples
from pipelines.settings import load_settings
from scanner.curvature.examples import Given
from scanner.curvature.measuring import DEFAULT_LIMITS, CurvatureLimits, Origin, measure_curvature
from scanner.curvature.records import CurvatureFacts
from scanner.errors import CouldNotConclude, HubAuditError
from scanner.hub import Hub
from scanner.probe.staging import staged
from scanner.records import DriftFacts, Lineage, RepoFacts, Skip
from scanner.weights.opening import open_source

MOST_EXAMPLES = 64
"""Of the samples that are drawn; the error rates of rule HA405 were measured with so many."""
MOST_DRAWN = 2048
"""Samples that are drawn and checked: the classes of a small draw would often lack one."""
_STEP = 8
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What was measured with the given data, or the problem (a clause) because of which nothing was."""

    facts: CurvatureFacts | None = None
    problem: str | None = None

    @property
    def skips(self) -> tuple[Skip, ...]:
        """What was left out: parts of the model, or all of it."""
        left_out = self.facts.skips if self.facts is not None else ()
        return (*left_out, Skip(what="--data", why=self.problem)) if self.problem else left_out


def weigh_data(
    spec: DataSpec,
    facts: RepoFacts,
    base_facts: RepoFacts | None,
    hub: Hub,
    *,
    lineage: Lineage,
    drift: DriftFacts | None,
    progress: Progress,
    limits: CurvatureLimits = DEFAULT_LIMITS,
    seed: int = 0,
) -> Weighed:
    """Measure the curvature of a scan's candidate on the given data, and how its change against the base follows it.

    Nothing is raised: whatever stands in the way becomes a skip, and the scan goes on.

    Args:
        spec: where the examples are.
        facts: of the candidate, pinned.
        base_facts: of the base.
        hub: fetches the candidate, and reads the base's weights once more.
        lineage: a base that is contradicted has nothing to say.
        drift: None when the weights could not be compared.
        progress: hears the stages.
        limits: what it may cost.
        seed: of the draw among the samples.
    """
    try:
        if base_facts is None or drift is None:
            raise CouldNotConclude("the weights were not compared with those of a base")
        if lineage.status == "contradicted":
            raise CouldNotConclude("the declared base is contradicted, and changes against another base mean nothing")
        progress.stage("reading the given data")
        samples = _samples(spec, facts, seed)
        return Weighed(facts=_measured(samples, facts, base_facts, hub, progress=progress, limits=limits))
    except HubAuditError as error:
        return Weighed(problem=str(error).removesuffix("."))
    except Exception as error:  # noqa: BLE001  # a stranger's model or file may break any library; the scan goes on
        return Weighed(problem=f"measuring with it broke ({type(error).__name__})")


def _samples(spec: DataSpec, facts: RepoFacts, seed: int) -> Samples:
    """The usable samples in the order of the draw.

    Raises:
        HubAuditError: they cannot be read, or the model is of a kind without a loss on texts.
    """
    kind = kind_of(facts.config)
    if kind not in {"classifier", "causal"}:
        raise CouldNotConclude("only text classifiers and causal language models are measured with data yet")
    return load_samples(spec, facts.config or {}, kind, seed=seed, token=load_settings().token)


def _measured(
    samples: Samples,
    facts: RepoFacts,
    base_facts: RepoFacts,
    hub: Hub,
    *,
    progress: Progress,
    limits: CurvatureLimits,
) -> CurvatureFacts:
    texts = [text for text in samples.inputs[:MOST_EXAMPLES] if isinstance(text, str)]
    progress.stage("fetching the model to run it on the given data")
    with (
        staged(facts, hub, limit_bytes=limits.weight_bytes, progress=progress.advance) as folder,
        open_source(base_facts, hub) as base,
    ):
        return measure_curvature(
            folder,
            base,
            Given(texts=texts, labels=samples.labels[: len(texts)]),
            Origin(source=samples.source, digest=samples.digest),
            base_config=base_facts.config,
            limits=limits,
            threads=1,  # single short texts gain nothing from more, and on a busy computer they lose much
            told=_Teller(progress),
        )


class _Teller:
    """Turns counts into stages: examples are written out, weights fill the bar of bytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Hear of one more example, or of one more tensor in dimensions."""
        if total <= MOST_EXAMPLES:
            if done % _STEP == 1:
                self._progress.stage(f"{what}, {done} of {total}")
            return
        if what != self._stage:
            self._stage = what
            self._progress.stage(what)
        self._progress.advance(_FLOAT_BYTES * done, _FLOAT_BYTES * total)
