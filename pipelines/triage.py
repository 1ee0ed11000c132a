"""Measures a sample of the weights within a budget, and reads further where the sample looks unusual."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipelines.progress import Progress
from scanner.drift.measure import measure
from scanner.records import Alignment, DriftFacts, PairSpec, RepoFacts, Sampling, Skip, TensorDrift
from scanner.triage.plan import Plan, more_rows, pair_bytes, plan_reading
from scanner.weights.source import WeightSource

ESCALATION = 1.0
"""Bytes that may be read beyond the budget where a sample is unusual, in multiples of the budget."""
LEAST_SHARE = 0.25
"""Part of the budget that is left for the comparison, whatever the check of the base has taken."""
REVISION_SHARE = 0.125
"""Part of the budget that the search for the base's revision may take, where its weights have several versions."""
RIVALS_SHARE = 0.125
"""Part of the budget that is kept for other possible parents, where there are any."""

Unusual = Callable[[DriftFacts], Sequence[str]]
"""Names the tensors that should be read further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes of weights to read from both sides together, and who says what is unusual.

    ``spent`` bytes of them are read already, beside the two sources; ``kept`` are for what comes after.
    """

    bytes: int
    unusual: Unusual
    spent: int = 0
    kept: int = 0


def measure_within(
    alignment: Alignment,
    sources: tuple[WeightSource, WeightSource],
    facts: tuple[RepoFacts, RepoFacts],
    budget: Budget,
    *,
    seed: int,
    progress: Progress,
    threads: int | None,
) -> DriftFacts:
    """Plan, measure, and read once more what is unusual.

    Args:
        alignment: all pairs.
        sources: base and candidate, open; what they have read so far counts against the budget.
        facts: of the base and of the candidate, for the hashes of their files.
        budget: the budget.
        seed: of the choice of rows.
        progress: hears the stages.
        threads: cores for the numerics; all usable ones when None.
    """
    base, candidate = sources
    checked = base.bytes_read + candidate.bytes_read + budget.spent
    plan = plan_reading(
        alignment,
        budget_bytes=max(budget.bytes - checked - budget.kept, int(LEAST_SHARE * budget.bytes)),
        seed=seed,
        base_files=facts[0].files,
        candidate_files=facts[1].files,
    )
    drift = measure(plan.alignment, base, candidate, progress=progress.advance, threads=threads)
    if plan.complete:
        return drift
    drift = replace(drift, sampling=sampling_of(plan, budget.bytes, checked))
    names = budget.unusual(drift)
    if not names:
        return drift
    progress.stage("reading unusual tensors further")
    return read_further(drift, plan, names, sources, seed=seed, progress=progress, threads=threads)


def sampling_of(plan: Plan, budget_bytes: int, checked: int) -> Sampling:
    """Return how a plan samples: its budget in bytes, and ``checked`` bytes that the check of the base has read."""
    return Sampling(
        budget_bytes=budget_bytes,
        escalation_bytes=int(ESCALATION * budget_bytes),
        checked_bytes=checked,
        planned_bytes=plan.planned_bytes,
        identical_tensors=plan.identical,
        claimed_tensors=plan.claimed,
    )


def read_further(
    drift: DriftFacts,
    plan: Plan,
    names: Sequence[str],
    sources: tuple[WeightSource, WeightSource],
    *,
    seed: int,
    progress: Progress,
    threads: int | None,
) -> DriftFacts:
    """Read the named tensors whole, or as far as the escalation budget goes, shared evenly among them."""
    assert drift.sampling is not None  # the caller's
    before = sources[0].bytes_read + sources[1].bytes_read
    wider = _wider(plan.alignment, names, drift.sampling.escalation_bytes, seed)
    alignment = replace(plan.alignment, pairs=wider, skips=())
    second = measure(alignment, *sources, progress=progress.advance, threads=threads)
    further = {tensor.spec.name: tensor for tensor in second.tensors}
    tensors = tuple(_joined(tensor, further.get(tensor.spec.name)) for tensor in drift.tensors)
    read = sources[0].bytes_read + sources[1].bytes_read
    return replace(
        drift,
        tensors=tensors,
        coverage=replace(
            drift.coverage,
            parameters_compared=sum(tensor.count for tensor in tensors),
            bytes_read=read,
            skipped=tuple(dict.fromkeys((*drift.coverage.skipped, *second.coverage.skipped))),
        ),
        sampling=replace(
            drift.sampling,
            escalated_bytes=read - before,
            escalated=tuple(further),
            curtailed=tuple(name for name, tensor in further.items() if tensor.spec.sampled),
        ),
    )


def _wider(alignment: Alignment, names: Sequence[str], budget_bytes: int, seed: int) -> tuple[PairSpec, ...]:
    """The named pairs with more rows, in the order of the alignment."""
    pairs = {pair.name: pair for pair in alignment.pairs}
    wanted = [pairs[name] for name in names if name in pairs]
    left = budget_bytes
    chosen = {}
    for place, pair in enumerate(wanted):
        more = more_rows(pair, budget_bytes=left // (len(wanted) - place), seed=seed + place + 1)
        if more.compared_rows > pair.compared_rows:
            chosen[pair.name] = more
            left -= pair_bytes(more)
    return tuple(chosen[pair.name] for pair in alignment.pairs if pair.name in chosen)


def _joined(first: TensorDrift, further: TensorDrift | None) -> TensorDrift:
    return first if further is None else replace(further, sample=first)


def and_beside(drift: DriftFacts, *, revision: int, rivals: int) -> DriftFacts:
    """Count the bytes that went into the search for the base's revision and into other parents.

    With a budget they are part of the check of the base; those of the revision are in that sum already.
    """
    coverage = replace(drift.coverage, bytes_read=drift.coverage.bytes_read + revision + rivals)
    sampling = drift.sampling and replace(drift.sampling, checked_bytes=drift.sampling.checked_bytes + rivals)
    return replace(drift, coverage=coverage, sampling=sampling)


def unbudgeted(drift: DriftFacts) -> DriftFacts:
    """Say that an adapter was compared whole, whatever the budget: its changes are small, and all on one base."""
    note = Skip(what="--budget", why="not applied to an adapter, which is compared whole")
    return replace(drift, coverage=replace(drift.coverage, skipped=(*drift.coverage.skipped, note)))
