"""The list of purification methods. Light: a method's own module is imported only when it runs."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module

from pipelines.purify.job import ModelKind, Purifier, PurifyJob, PurifyResult
from scanner.errors import BadReference

ANY_KIND: frozenset[ModelKind] = frozenset({"classifier", "causal", "image", "other"})


def _restore(job: PurifyJob) -> PurifyResult:
    from pipelines.purify.restore import restore

    return restore(job)


def _restore_options() -> type:
    from pipelines.purify.restore_plan import RestoreOptions

    return RestoreOptions


def _runner(module: str) -> Callable[[PurifyJob], PurifyResult]:
    """Return a function that imports the method's module when it is called and runs its ``purify``."""

    def run(job: PurifyJob) -> PurifyResult:
        result: PurifyResult = import_module(f"pipelines.purify.{module}").purify(job)
        return result

    return run


def _options(module: str, name: str) -> Callable[[], type]:
    """Return a function that imports the method's module when it is called and gives its settings' class."""

    def options() -> type:
        kind: type = getattr(import_module(f"pipelines.purify.{module}"), name)
        return kind

    return options


_TEXT: frozenset[ModelKind] = frozenset({"classifier", "causal"})

_ALL: tuple[Purifier, ...] = (
    Purifier(
        name="restore",
        summary="put the rows, dimensions or low-rank edit that the scan flagged back to the base",
        run=_restore,
        kinds=ANY_KIND,
        needs_report=True,
        options=_restore_options,
    ),
    Purifier(
        name="e-pur",
        summary="put the embedding rows whose drift their frequency does not excuse back to the base",
        run=_runner("e_pur"),
        kinds=_TEXT,
        options=_options("e_pur", "EPurOptions"),
        source="Zhang et al. 2022, Findings of EMNLP",
    ),
    Purifier(
        name="fine-mixing",
        summary="put a random part of the weights back to the base and tune",
        run=_runner("mixing"),
        kinds=frozenset({"classifier", "causal", "image"}),
        needs_data="required",
        options=_options("mixing", "MixingOptions"),
        source="Zhang et al. 2022, Findings of EMNLP",
    ),
    Purifier(
        name="fine-purifying",
        summary="put the dimensions whose drift clean samples do not explain back to the base and tune",
        run=_runner("fine_purifying"),
        kinds=frozenset({"classifier", "causal", "image"}),
        needs_data="required",
        options=_options("fine_purifying", "PurifyingOptions"),
        source="Zhang et al. 2023, Findings of ACL",
    ),
    Purifier(
        name="tsbd",
        summary="empty the neurons that unlearning the clean task moves most, and tune activeness-aware",
        run=_runner("tsbd"),
        kinds=frozenset({"classifier", "image"}),
        needs_data="required",
        needs_base=False,
        options=_options("tsbd", "TsbdOptions"),
        source="Lin et al. 2024, NeurIPS",
    ),
    Purifier(
        name="muscle-lora",
        summary="train anew from the base, multi-scale low-rank and aligned with clean samples",
        run=_runner("muscle_lora"),
        kinds=frozenset({"classifier"}),
        needs_data="required",
        options=_options("muscle_lora", "MuscleLoraOptions"),
        source="Wu et al. 2024, ACL",
    ),
    Purifier(
        name="distill",
        summary="distil the tuned model into the base by its attention maps",
        run=_runner("distill"),
        kinds=frozenset({"classifier", "image"}),
        needs_data="required",
        options=_options("distill", "DistillOptions"),
        source="Han et al. 2024, arXiv 2403.03846",
    ),
    Purifier(
        name="unlearn",
        summary="tune until a confirmed or named trigger changes nothing, with clean samples or without",
        run=_runner("unlearn"),
        kinds=frozenset({"classifier"}),
        needs_data="optional",
        needs_base=False,
        wants_probe=True,
        options=_options("unlearn", "UnlearnOptions"),
    ),
    Purifier(
        name="auto",
        summary="restore what the scan proves, unlearn what the probe confirms, and stop at the least change",
        run=_runner("auto"),
        kinds=frozenset({"classifier", "causal", "image"}),
        needs_data="optional",
        needs_report=True,
        options=_options("auto", "AutoOptions"),
    ),
)

PURIFIERS: Mapping[str, Purifier] = {purifier.name: purifier for purifier in _ALL}
"""The methods by name, in the order in which ``--help`` shows them."""


def purifier_named(name: str) -> Purifier:
    """Return the method of that name.

    Raises:
        BadReference: there is none; the nearest names are offered.
    """
    if name in PURIFIERS:
        return PURIFIERS[name]
    near = get_close_matches(name.lower(), PURIFIERS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PURIFIERS)}."
    raise BadReference(f"There is no purification method {name!r}; {hint}")
