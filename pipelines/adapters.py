"""Weighs a PEFT adapter: puts it on its base, checks that it fits, and measures what it changes."""

from dataclasses import replace

from pipelines.progress import Progress
from scanner.records import Coverage, DriftFacts, Lineage, RepoFacts, Skip
from scanner.weights.source import WeightSource

_NO_FIT = "The adapter does not fit the declared base, so nothing was compared."


def weigh_adapter(
    candidate: RepoFacts,
    base: RepoFacts,
    sources: tuple[WeightSource, WeightSource],
    claimed: Lineage,
    progress: Progress,
    threads: int | None,
) -> tuple[Lineage, DriftFacts]:
    """Return the lineage and what moved.

    Args:
        candidate: facts of the adapter's repository.
        base: facts of the base.
        sources: the opened adapter and the opened base, which stay the caller's to close.
        claimed: the lineage so far.
        progress: hears the stages.
        threads: cores for the numerics; all usable ones when None.

    Raises:
        CouldNotConclude: the adapter is of a kind that is not followed, or nothing of it can be used.
    """
    from scanner.drift.adapter import measure_adapter
    from scanner.lineage.adapter import check_fit, check_relation
    from scanner.lineage.relation import settled_relation
    from scanner.weights.adapted import put_on

    progress.stage("putting the adapter on the base")
    found = put_on(candidate, *sources, base)
    status, fit = check_fit(found)
    if status == "contradicted":
        coverage = Coverage(
            parameters_compared=0,
            parameters_total=found.alignment.parameters_total,
            bytes_read=sum(source.bytes_read for source in sources),
            bytes_total=sum(source.bytes_total for source in sources),
            skipped=(*found.candidate.skips, *found.base.skips, Skip(what="all tensors", why=_NO_FIT)),
        )
        refuted = replace(claimed, relation="adapter", status=status, checks=(*claimed.checks, fit))
        return refuted, DriftFacts(tensors=(), coverage=coverage)
    progress.stage("comparing weights")
    drift = measure_adapter(found, progress=progress.advance, threads=threads)
    relation = settled_relation("adapter", drift)
    checks = (*claimed.checks, fit, check_relation(drift))
    return replace(claimed, relation=relation, status=status, checks=checks), drift
