"""The list of purification methods. Light: a method's own module is imported only when it runs."""

from collections.abc import Mapping
from difflib import get_close_matches

from pipelines.purify.job import ModelKind, Purifier, PurifyJob, PurifyResult
from scanner.errors import BadReference

ANY_KIND: frozenset[ModelKind] = frozenset({"classifier", "causal", "image", "other"})


def _restore(job: PurifyJob) -> PurifyResult:
    from pipelines.purify.restore import restore

    return restore(job)


def _restore_options() -> type:
    from pipelines.purify.restore_plan import RestoreOptions

    return RestoreOptions


_ALL: tuple[Purifier, ...] = (
    Purifier(
        name="restore",
        summary="put the rows, dimensions or low-rank edit that the scan flagged back to the base",
        run=_restore,
        kinds=ANY_KIND,
        needs_report=True,
        options=_restore_options,
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
