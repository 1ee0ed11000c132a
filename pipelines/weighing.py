"""Opens both weight sets of a scan, checks the descent, and measures what moved."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pipelines.adapters import weigh_adapter
from pipelines.progress import Progress
from pipelines.reordering import in_candidates_order
from pipelines.resume import Resume
from pipelines.triage import Budget, measure_within, unbudgeted
from scanner.alignment import align
from scanner.card_context import Stored
from scanner.drift.measure import measure
from scanner.hub import Hub
from scanner.lineage.delta_rank import check_delta_rank
from scanner.lineage.parted import in_step
from scanner.lineage.relation import declared_or_measured, measure_relation, settled_relation
from scanner.lineage.trace import Traced, trace
from scanner.records import Alignment, Check, Coverage, DriftFacts, Lineage, Relation, RepoFacts, Skip
from scanner.stored import describe_table
from scanner.weights.adapters import is_adapter
from scanner.weights.opening import open_source
from scanner.weights.ranges import GAP_BYTES, SAMPLE_GAP_BYTES
from scanner.weights.source import WeightSource

REFUTED = "The sampled rows contradict the declared base, so the rest was not compared (docs/decisions/0003)."

Sources = tuple[WeightSource, WeightSource]
"""The base and the candidate, open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """A budget in bytes, and who says of a sample which tensors are unusual.

    ``spent`` went into the search for the base's revision, ``kept`` is for other parents.
    """

    bytes: int
    spent: int
    kept: int
    unusual: Callable[[Lineage, DriftFacts], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to weigh.

    ``progress`` hears the stages, ``threads`` are the cores for the numerics (all usable ones when None), ``seed`` is
    of the sampled rows, ``within`` the budget, and ``resume`` keeps what is measured.
    """

    progress: Progress
    threads: int | None
    seed: int
    within: Within | None = None
    resume: Resume | None = None


def weigh(
    candidate: RepoFacts,
    base: RepoFacts,
    claimed: Lineage,
    relation: Relation | None,
    hub: Hub,
    noted: list[Stored],
    manner: Manner,
) -> tuple[Lineage, DriftFacts]:
    """Open both weight sets, check the descent, and measure the drift unless the base is refuted.

    Args:
        candidate: facts of the model in question.
        base: facts of its base.
        claimed: the lineage so far.
        relation: the declared relation.
        hub: the reader.
        noted: takes what the candidate's headers say at once: the card checks want it even if the rest fails.
        manner: how.

    Raises:
        HubAuditError: a side has no weights, or its table cannot be read.
    """
    progress, threads = manner.progress, manner.threads
    with ExitStack() as stack:
        progress.stage("reading tensor tables")
        gap = GAP_BYTES if manner.within is None else SAMPLE_GAP_BYTES
        candidate_source = stack.enter_context(open_source(candidate, hub, gap_bytes=gap))
        base_source = stack.enter_context(open_source(base, hub, gap_bytes=gap))
        noted.append(describe_table(candidate_source.table.values(), candidate.config))
        if is_adapter(candidate_source):
            lineage, drift = weigh_adapter(candidate, base, (candidate_source, base_source), claimed, progress, threads)
            return lineage, drift if manner.within is None else unbudgeted(drift)
        candidate_source, base_source = in_step(candidate_source, base_source, candidate, base)
        alignment = align(
            candidate_source.table, base_source.table, candidate_config=candidate.config, base_config=base.config
        )
        progress.stage("checking the declared base")
        traced = trace(alignment, base_source, candidate_source, seed=manner.seed, declared=relation)
        sources = (traced.base or base_source, candidate_source)
        moved: tuple[Check, ...] = ()
        if traced.status == "contradicted":
            drift = _refuted(traced.alignment, sources)
        else:
            now = replace(claimed, status=traced.status, checks=(*claimed.checks, *traced.checks))
            drift, sources, moved = _compared(traced, now, sources, (base, candidate), manner)
        return _settled(claimed, traced, (*traced.checks, *moved), drift, sources, relation, manner), drift


def _refuted(alignment: Alignment, sources: Sources) -> DriftFacts:
    """Nothing compared, and why."""
    coverage = Coverage(
        parameters_compared=0,
        parameters_total=alignment.parameters_total,
        bytes_read=sum(source.bytes_read for source in sources),
        bytes_total=sum(source.bytes_total for source in sources),
        skipped=(*sources[1].skips, *sources[0].skips, Skip(what="all tensors", why=REFUTED)),
    )
    return DriftFacts(tensors=(), coverage=coverage)


def _compared(
    traced: Traced, now: Lineage, sources: Sources, facts: tuple[RepoFacts, RepoFacts], manner: Manner
) -> tuple[DriftFacts, Sources, tuple[Check, ...]]:
    """Measure all of it or a sample; layers that only stand in another order once more, in the candidate's."""
    base, candidate = sources
    within, progress, threads = manner.within, manner.progress, manner.threads
    progress.stage("comparing weights")
    if within is not None:
        budget = Budget(
            bytes=within.bytes,
            unusual=lambda found: within.unusual(now, found),
            spent=within.spent,
            kept=within.kept,
        )
        drift = measure_within(
            traced.alignment, sources, facts, budget, seed=manner.seed, progress=progress, threads=threads
        )
    else:
        store = manner.resume.store_for(candidate, base) if manner.resume else None
        drift = measure(traced.alignment, base, candidate, progress=progress.advance, threads=threads, store=store)
    if traced.status != "verified":
        return drift, sources, ()
    drift, base, checks = in_candidates_order(
        drift,
        traced.alignment,
        sources,
        config=facts[1].config,
        seed=manner.seed,
        progress=progress,
        threads=threads,
    )
    return drift, (base, candidate), checks


def _settled(
    claimed: Lineage,
    traced: Traced,
    made: tuple[Check, ...],
    drift: DriftFacts,
    sources: Sources,
    relation: Relation | None,
    manner: Manner,
) -> Lineage:
    """The lineage with its status, all checks, and the relation that the weights show."""
    checks = (*claimed.checks, *made)
    verified = traced.status == "verified"
    if verified and manner.within is None:  # the rank of whole matrices is beyond a budget
        checks = (*checks, check_delta_rank(drift, *sources, seed=manner.seed))
    measured = measure_relation(checks, drift)
    found = declared_or_measured(relation, measured.relation) if verified else traced.relation
    found = traced.relation if found == "unknown" else found
    return replace(
        claimed, relation=settled_relation(found, drift), status=traced.status, checks=(*checks, measured.check)
    )
