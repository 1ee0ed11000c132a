"""Ranks possible parents: tensor tables first, a few sampled rows of those that fit, nearest first.

Related models of one family all pass a test of descent, so what tells parent from sibling is *distance*: a child is
nearer to its parent than to its parent's other children, unless one of those has hardly moved. Every candidate is
sampled at the same rows, so that distances compare; among the nearest, a regression says which of them the model
started from, or that the weights do not tell (``mixture.share_of_way``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from scanner.alignment import align
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.lineage.adapter import check_fit
from scanner.lineage.descent import TABLE_SHARE
from scanner.lineage.direction import check_direction
from scanner.lineage.mixture import Share, fit_mixture, mixture_check, read_planned, share_of_way
from scanner.lineage.parted import all_in_step, in_step
from scanner.lineage.sampling import MAX_SAMPLE_BYTES, Sample, plan_samples
from scanner.lineage.trace import trace
from scanner.records import Alignment, Check, LineageStatus, Measured, PairSpec, RepoFacts, RepoRef, Skip
from scanner.weights.adapted import put_on
from scanner.weights.adapters import is_adapter
from scanner.weights.opening import open_source
from scanner.weights.ranges import GAP_BYTES, SAMPLE_GAP_BYTES
from scanner.weights.source import WeightSource

SEARCHED = 200
"""Models of the Hub that a search looks at, most downloaded first (two requests)."""
SIZE_RANGE = (0.4, 2.5)
"""Weights of a base relative to the candidate's, in bytes: another dtype halves or doubles them, a head adds some."""
ROWS = 64
_ORDER: dict[LineageStatus, int] = {"verified": 0, "unverified": 1, "contradicted": 2}
MOST_COMPARED = 6
"""Related models, the nearest ones, that are compared with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One possible parent and the evidence. Numbers are None when nothing was sampled.

    ``row_cosine`` and ``relative_drift`` are medians over the sampled matrices; ``note`` is one sentence.
    """

    ref: RepoRef
    status: LineageStatus
    table_share: float
    row_cosine: float | None = None
    relative_drift: float | None = None
    log10_p: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.row_cosine is None or self.relative_drift is None:
            return f"{self.ref} ({self.status}; {self.table_share:.0%} of the parameters have a partner)"
        return f"{self.ref} ({self.status}; row cosine {self.row_cosine:.3f}, drift {self.relative_drift:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Possible parents, the likeliest first, those left out with the reason, and checks among the first of them.

    ``checks``: ``nearest_base`` (which of the two nearest the candidate started from), ``mixture`` (only when a merge
    of several explains it), ``direction`` (whether the nearest came first).
    """

    ranked: tuple[Ranked, ...]
    left_out: tuple[Skip, ...] = ()
    checks: tuple[Check, ...] = ()
    beaten: tuple[RepoRef, ...] = ()
    """Related models that the candidate did not start from: it carries the whole way from them to another one."""
    bytes_read: int = 0
    """Bytes of weights read from all of them and from the candidate."""
    adapter: bool = False
    """Whether the candidate is an adapter: ``verified`` then says that it fits, and no weights tell bases apart."""

    @property
    def best(self) -> Ranked | None:
        """The nearest verified parent, or None."""
        return self.ranked[0] if self.ranked and self.ranked[0].status == "verified" else None

    @property
    def runner_up(self) -> Ranked | None:
        """The second of the list, whatever its status."""
        return self.ranked[1] if len(self.ranked) > 1 else None


def same_model(one: RepoRef, other: RepoRef) -> bool:
    """Whether two references name one repository or folder, whatever the revision."""
    if one.repo_id and other.repo_id:
        return one.repo_id.casefold() == other.repo_id.casefold()
    return one.path is not None and one.path == other.path


def rank_candidates(
    candidate: RepoFacts, others: Sequence[RepoFacts], hub: Hub | None, *, seed: int, most_bytes: int | None = None
) -> Ranking:
    """Hold the candidate against each of the others. A model that cannot be read is left out with the reason.

    An adapter is fitted onto each of them by names and shapes; no weights are read.

    At most ``sampling.MAX_SAMPLE_BYTES`` are read per model whose table fits, one header of those whose does not.

    Args:
        candidate: facts of the model whose parent is sought.
        others: facts of the possible parents; the candidate itself among them is left out.
        hub: the reader; may be None when all are folders.
        seed: of the sampled rows, the same for all.
        most_bytes: of weights to read from all of them together. Within such a bound tensors are paired by their names
            alone, and a model whose rows do not fit is ``unverified``. No bound when None.

    Raises:
        HubAuditError: the candidate's own weights cannot be read.
    """
    left_out: list[Skip] = []
    ranked: list[Ranked] = []
    read = 0
    each = None if most_bytes is None else most_bytes // (2 * max(1, len(others)))
    gap = GAP_BYTES if most_bytes is None else SAMPLE_GAP_BYTES
    with open_source(candidate, hub, gap_bytes=gap) as ours:
        for other in others:
            if same_model(other.ref, candidate.ref):
                left_out.append(Skip(what=other.ref.name, why="it is the model itself"))
                continue
            try:
                with open_source(other, hub, gap_bytes=gap) as theirs:
                    if is_adapter(ours):
                        ranked.append(_fitted(candidate, other, ours, theirs))
                        continue
                    ranked.append(_ranked(candidate, other, ours, theirs, seed, each))
                    read += theirs.bytes_read
            except HubAuditError as error:
                left_out.append(Skip(what=other.ref.name, why=str(error)))
        ranked.sort(key=_sort_key)
        facts = {other.ref: other for other in others}
        near = [r for r in ranked if r.status == "verified"][:MOST_COMPARED]
        if not near or is_adapter(ours):
            return Ranking(
                ranked=tuple(ranked),
                left_out=tuple(left_out),
                bytes_read=read + ours.bytes_read,
                adapter=is_adapter(ours),
            )
        half = None if most_bytes is None else most_bytes // 2
        compared = _among(candidate, ours, [facts[r.ref] for r in near], hub, seed, half)
        read += compared.bytes_read + ours.bytes_read
    order = sorted(range(len(near)), key=lambda i: i in compared.beaten)
    checks = compared.checks
    if len(near) > 1:
        share = compared.shares.get((order[1], order[0]))
        checks = (nearest_check(share, near[order[0]].ref, near[order[1]].ref), *checks)
    return Ranking(
        ranked=(*(near[i] for i in order), *ranked[len(near) :]),
        left_out=tuple(left_out),
        checks=checks,
        beaten=tuple(near[i].ref for i in sorted(compared.beaten)),
        bytes_read=read,
    )


def _sort_key(ranked: Ranked) -> tuple[int, float, float]:
    drift = ranked.relative_drift if ranked.relative_drift is not None else float("inf")
    cosine = ranked.row_cosine if ranked.row_cosine is not None else -1.0
    return _ORDER[ranked.status], (drift if ranked.status == "verified" else -cosine), -ranked.table_share


def _aligned(candidate: RepoFacts, other: RepoFacts, ours: WeightSource, theirs: WeightSource) -> Alignment:
    return align(ours.table, theirs.table, candidate_config=candidate.config, base_config=other.config)


def _ranked(
    candidate: RepoFacts, other: RepoFacts, ours: WeightSource, theirs: WeightSource, seed: int, most: int | None
) -> Ranked:
    """Look at one possible parent; its rows only when most of the candidate has a partner in it."""
    ours, theirs = in_step(ours, theirs, candidate, other)
    alignment = _aligned(candidate, other, ours, theirs)
    share = alignment.parameters_compared / alignment.parameters_total if alignment.parameters_total else 0.0
    if share < TABLE_SHARE and not _same_sizes(ours, theirs):
        note = "Its tensors have other shapes; no row was read."
        return Ranked(ref=other.ref, status="unverified", table_share=share, note=note)
    traced = trace(alignment, theirs, ours, seed=seed, most_bytes=most)
    numbers = {m.name: m.value for check in traced.checks for m in check.measurements if check.name == "sampled_rows"}
    units = next((check for check in traced.checks if check.name == "unit_order"), None)
    chance = {m.name: m.value for m in units.measurements} if units else {}
    rows = next(check for check in traced.checks if check.name == "sampled_rows")
    return Ranked(
        ref=other.ref,
        status=traced.status,
        table_share=share,
        row_cosine=numbers.get("row_cosine_median"),
        relative_drift=numbers.get("relative_drift_median"),
        log10_p=chance.get("log10_p"),
        note=rows.note,
    )


def _fitted(candidate: RepoFacts, other: RepoFacts, adapter: WeightSource, theirs: WeightSource) -> Ranked:
    """Say whether an adapter can be put on one possible base.

    Raises:
        CouldNotConclude: the adapter is of a kind that is not followed.
    """
    found = put_on(candidate, adapter, theirs, other)
    status, check = check_fit(found)
    share = next(m.value for m in check.measurements if m.name == "parameters_with_place")
    note = "Names and shapes of the adapter were fitted onto it; no row was read."
    return Ranked(ref=other.ref, status=status, table_share=share, note=note)


def _same_sizes(ours: WeightSource, theirs: WeightSource) -> bool:
    """Whether the shapes, whatever the names, are mostly those of the other: then content may pair them."""
    shapes = [sorted(m.shape for m in side.table.values() if len(m.shape) > 1) for side in (ours, theirs)]
    common = sum(shape in set(shapes[1]) for shape in shapes[0])
    return bool(shapes[0]) and common >= TABLE_SHARE * len(shapes[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What the nearest related models say of each other; ``beaten`` are positions that another one explains away."""

    beaten: frozenset[int]
    shares: Mapping[tuple[int, int], Share]
    checks: tuple[Check, ...]
    bytes_read: int = 0


def _among(
    candidate: RepoFacts,
    ours: WeightSource,
    related: Sequence[RepoFacts],
    hub: Hub | None,
    seed: int,
    most: int | None,
) -> _Compared:
    """Compare the nearest related models pairwise: y beats x when the candidate carries the whole way from x to y."""
    try:
        with ExitStack() as stack:
            gap = GAP_BYTES if most is None else SAMPLE_GAP_BYTES
            sources = [stack.enter_context(open_source(facts, hub, gap_bytes=gap)) for facts in related]
            mine, theirs = all_in_step(ours, sources, candidate, related)
            pairs = [
                {p.candidate.name: p for p in _aligned(candidate, facts, mine, source).pairs}
                for facts, source in zip(related, theirs, strict=True)
            ]
            common = [p for p in pairs[0].values() if all(_is_there(p, own) for own in pairs)]
            share = MAX_SAMPLE_BYTES if most is None else 2 * most // (len(related) + 1)  # a plan is of two sides
            planned = plan_samples(common, rows_per_tensor=ROWS, seed=seed, most_bytes=share)
            rows = [read_planned(planned, source, pairs=own) for source, own in zip(theirs, pairs, strict=True)]
            own_rows = read_planned(planned, mine)
            mixture = fit_mixture(rows[0], rows[1:4], own_rows) if len(related) > 2 else None
            samples = zip(planned, rows[0], own_rows, strict=True)
            direction = check_direction([Sample(spec=t.spec, base=b, candidate=c) for t, b, c in samples])
            read = sum(source.bytes_read for source in sources)
    except HubAuditError as error:
        check = Check(name="nearest_base", outcome="not_run", note=str(error))
        return _Compared(beaten=frozenset(), shares={}, checks=(check,))
    places = range(len(related))
    found = {(x, y): share_of_way(rows[x], rows[y], own_rows) for x in places for y in places if x != y}
    shares = {pair: share for pair, share in found.items() if share is not None}
    beaten = frozenset(x for (x, y), share in shares.items() if share.complete and not _complete(shares, y, x))
    merged = mixture is not None and mixture.merged and len(beaten) < len(related)
    names = [facts.ref.name for facts in related[1:4]]
    checks = (mixture_check(mixture, names),) if mixture is not None and merged else ()
    return _Compared(beaten=beaten, shares=shares, checks=(*checks, direction), bytes_read=read)


def _complete(shares: Mapping[tuple[int, int], Share], start: int, end: int) -> bool:
    share = shares.get((start, end))
    return share is not None and share.complete


def _is_there(pair: PairSpec, pairs: Mapping[str, PairSpec]) -> bool:
    other = pairs.get(pair.candidate.name)
    return other is not None and other.base.shape == pair.base.shape


def nearest_check(share: Share | None, first: RepoRef, second: RepoRef) -> Check:
    """Word how the first of the list compares with the second: ``share`` is of the way from the second to the first."""
    if share is None:
        note = f"{first} and {second} do not differ in the sampled rows."
        return Check(name="nearest_base", outcome="not_run", note=note)
    numbers = (Measured(name="beta", value=share.whole), Measured(name="beta_bulk", value=share.bulk))
    if share.complete:
        words = f"The model carries the whole way from {second} to {first}: it started from the latter."
        return Check(name="nearest_base", outcome="passed", measurements=numbers, note=words)
    words = f"The weights do not tell whether the model started from {first} or {second}."
    return Check(name="nearest_base", outcome="not_run", measurements=numbers, note=words)


def search_hub(candidate: RepoFacts, hub: Hub, *, limit: int) -> Iterator[str]:
    """Yield at most ``limit`` ids of models with the candidate's architecture and about its size, most used first.

    The model itself and what declares itself its descendant are left out. Two requests a hundred models.

    Raises:
        CouldNotConclude: the Hub cannot be asked.
    """
    kind = (candidate.config or {}).get("model_type")
    if not isinstance(kind, str) or not kind.isascii():
        return
    own = (candidate.ref.repo_id or "").casefold()
    size = sum(entry.size_bytes for entry in candidate.files if entry.path.endswith(".safetensors"))
    found = 0
    for model in hub.list_models(tags=(kind,), sort="downloads", limit=SEARCHED):
        repo_id, weights = model["id"], model["weights_bytes"]
        fits = not weights or not size or SIZE_RANGE[0] <= weights / size <= SIZE_RANGE[1]
        ours = isinstance(repo_id, str) and repo_id.casefold() == own
        child = own and own in [base.casefold() for base in model["base_models"]]
        if isinstance(repo_id, str) and fits and not ours and not child:
            yield repo_id
            found += 1
            if found == limit:
                return
