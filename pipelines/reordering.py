"""Compares layers whose units or heads only stand elsewhere once more, in the candidate's order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.progress import Progress
from scanner.drift.measure import measure
from scanner.errors import CouldNotConclude
from scanner.lineage.strays import UNSETTLED, follow_strays, stray_tensors
from scanner.records import Alignment, Check, DriftFacts, Skip
from scanner.weights.source import WeightSource


def in_candidates_order(
    drift: DriftFacts,
    alignment: Alignment,
    sources: tuple[WeightSource, WeightSource],
    *,
    config: Mapping[str, Any] | None,
    seed: int,
    progress: Progress,
    threads: int | None,
) -> tuple[DriftFacts, WeightSource, tuple[Check, ...]]:
    """Return the drift with such layers compared again, the base in that order, and the check that says so.

    Reads nothing unless rows of a layer resemble none at their places. Of a sample it only says so: which rows they
    are shows in whole matrices alone.

    Args:
        drift: of the whole alignment.
        alignment: the pairs.
        sources: base and candidate, open.
        config: the candidate's configuration.
        seed: of the comparison of rows.
        progress: hears the stages.
        threads: cores for the numerics; all usable ones when None.
    """
    base, candidate = sources
    strays = stray_tensors(drift)
    if not strays:
        return drift, base, ()
    if drift.sampling is not None:
        return _with_skips(drift, Skip(what=f"{len(strays)} matrices", why=UNSETTLED)), base, ()
    before = base.bytes_read + candidate.bytes_read
    progress.stage("looking for units in another order")
    try:
        found = follow_strays(drift, alignment, base, candidate, config=config, seed=seed)
    except CouldNotConclude as error:
        return _with_skips(drift, Skip(what="order of units", why=str(error))), base, ()
    if found is None:
        return drift, base, ()
    second = measure(found.again, found.base, candidate, progress=progress.advance, threads=threads)
    if len(second.tensors) < len(found.again.pairs):
        return _with_skips(drift, *second.coverage.skipped), base, ()
    moved = {tensor.spec.name: tensor for tensor in second.tensors}
    again = found.base.bytes_read + candidate.bytes_read - before
    drift = replace(
        drift,
        tensors=tuple(moved.get(tensor.spec.name, tensor) for tensor in drift.tensors),
        coverage=replace(drift.coverage, bytes_read=drift.coverage.bytes_read + again),
    )
    return _with_skips(drift, *found.again.skips), found.base, (found.check,)


def _with_skips(drift: DriftFacts, *skips: Skip) -> DriftFacts:
    skipped = tuple(dict.fromkeys((*drift.coverage.skipped, *skips)))
    return replace(drift, coverage=replace(drift.coverage, skipped=skipped))
