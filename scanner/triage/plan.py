"""Chooses, from headers alone, the rows of two checkpoints that a small budget is best spent on.

Small tensors (vectors, heads) are read whole: they act on every input and cost next to nothing. What is left is shared
between the token tables, where an edit hides in single rows, so that only the number of rows read counts, and the
matrices, where an edit of low rank shows in any few rows. Every matrix gives some rows, and those of one kind
equally many, because each is judged against the same matrix of other layers.

Rows are read in short runs. Which ones is drawn at random, every run with the same chance, so that a row of a tensor of
which the share p is read is seen with probability p, whoever chose the row.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scanner.records import Alignment, FileEntry, PairSpec, Role, Rows, Skip
from scanner.triage.identity import identical_pairs
from scanner.weights.dtypes import item_bits

LEAST_ROWS: Final = 16
"""Rows below which the few leading directions of a matrix hold all of its change, whatever it is."""
RUN_BYTES: Final = 64 << 10
"""Aim for a run, per side; a request costs about as much time as so many bytes."""
LEAST_RUN_ROWS: Final = 4
LEAST_RUNS: Final = 2
"""Runs of a matrix, at least: rows that lie together (one attention head) are more alike than others."""
SMALL_BYTES: Final = 256 << 10
"""Tensors of up to so many bytes, of both sides, are read whole."""
SMALL_SHARE: Final = 0.25
"""Most of the budget that goes to small tensors."""
MATRIX_SHARE: Final = 0.5
"""Part of the rest that goes to matrices where there are token tables as well."""
MOST_MATRIX_SHARE: Final = 0.6
"""The same where ``LEAST_ROWS`` of every matrix take more."""
IDENTICAL: Final = "not read: the SHA-256 and the Xet hash of its file agree with the base's"
BEYOND: Final = "not read: beyond the budget"

_TABLES: frozenset[Role] = frozenset({"embedding", "unembedding"})
_HEADS: frozenset[Role] = frozenset({"head", "pooler"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to read. ``alignment`` holds the chosen pairs with their runs, and a skip for what was left out.

    ``planned_bytes`` are of both sides. ``complete`` is true when the budget suffices for everything.
    ``identical`` and ``claimed`` count the tensors whose files agree in both hashes, or in the only one declared.
    """

    alignment: Alignment
    planned_bytes: int
    complete: bool
    identical: int = 0
    claimed: int = 0


def plan_reading(
    alignment: Alignment,
    *,
    budget_bytes: int,
    seed: int,
    base_files: Iterable[FileEntry] = (),
    candidate_files: Iterable[FileEntry] = (),
) -> Plan:
    """Choose rows worth at most ``budget_bytes`` of both sides together. Reads nothing; the same arguments, same plan.

    Args:
        alignment: the pairs, none of which has runs yet.
        budget_bytes: for tensors; headers do not count.
        seed: of the choice of runs.
        base_files: the base's listing, for hashes.
        candidate_files: the candidate's listing.
    """
    same = identical_pairs(alignment.pairs, base_files, candidate_files)
    pairs = [pair for pair in alignment.pairs if pair.name not in same.proven]
    skips = [Skip(what=pair.name, why=IDENTICAL) for pair in alignment.pairs if pair.name in same.proven]
    complete = sum(pair_bytes(pair) for pair in pairs) <= budget_bytes
    chosen = {pair.name: pair for pair in pairs} if complete else _choose(pairs, budget_bytes, seed)
    skips += [Skip(what=pair.name, why=BEYOND) for pair in pairs if pair.name not in chosen]
    kept = tuple(chosen[pair.name] for pair in pairs if pair.name in chosen)
    return Plan(
        alignment=replace(alignment, pairs=kept, skips=(*alignment.skips, *skips)),
        planned_bytes=sum(pair_bytes(pair) for pair in kept),
        complete=complete and not same.proven,
        identical=len(same.proven),
        claimed=len(same.claimed),
    )


def more_rows(pair: PairSpec, *, budget_bytes: int, seed: int) -> PairSpec:
    """The same pair with all of its rows, or with as many as the budget allows; those it had are kept.

    Args:
        pair: a pair that was sampled.
        budget_bytes: for this tensor, both sides, the rows it had included: they are read once more.
        seed: of the choice of runs.
    """
    whole = replace(pair, runs=())
    if pair_bytes(whole) <= budget_bytes:
        return whole
    rows = int(budget_bytes // max(1.0, row_bytes(pair)))
    if rows <= pair.compared_rows:
        return pair
    kept = {row for first, end in pair.runs for row in range(first, end)}
    wider = _with_rows(pair, rows - len(kept), np.random.default_rng(seed))
    rows_of_both = sorted(kept | {row for first, end in wider.runs for row in range(first, end)})
    return replace(pair, runs=_joined((row, row + 1) for row in rows_of_both))


def row_bytes(pair: PairSpec) -> float:
    """Bytes of one row, both sides."""
    return pair.candidate.rows_cols[1] * (item_bits(pair.base.dtype) + item_bits(pair.candidate.dtype)) / 8


def pair_bytes(pair: PairSpec) -> int:
    """Bytes of the compared rows, both sides."""
    return int(pair.compared_rows * row_bytes(pair))


def _choose(pairs: Sequence[PairSpec], budget: int, seed: int) -> dict[str, PairSpec]:
    """The pairs to read, by name, with their runs."""
    rng = np.random.default_rng(seed)
    small = sorted((pair for pair in pairs if _is_small(pair)), key=pair_bytes)
    chosen: dict[str, PairSpec] = {}
    left = budget
    for pair in small:
        if budget - left + pair_bytes(pair) > SMALL_SHARE * budget:
            break
        chosen[pair.name] = pair
        left -= pair_bytes(pair)
    rest = [pair for pair in pairs if pair.name not in chosen and pair.compared_rows > 1]
    tables = [pair for pair in rest if pair.role in _TABLES]
    matrices = [pair for pair in rest if pair.role not in _TABLES]
    picked = _matrices(matrices, _matrix_budget(matrices, tables, left), rng)
    left -= sum(pair_bytes(pair) for pair in picked)
    return chosen | {pair.name: pair for pair in (*picked, *_tables(tables, left, rng))}


def _is_small(pair: PairSpec) -> bool:
    return pair.compared_rows == 1 or pair.role in _HEADS or pair_bytes(pair) <= SMALL_BYTES


def _matrix_budget(matrices: Sequence[PairSpec], tables: Sequence[PairSpec], left: int) -> int:
    """The matrices' part, such that what the tables cannot use goes to them."""
    least = sum(min(LEAST_ROWS, pair.compared_rows) * row_bytes(pair) for pair in matrices)
    part = max(MATRIX_SHARE * left, min(least, MOST_MATRIX_SHARE * left))
    return int(max(part, left - sum(pair_bytes(pair) for pair in tables)))


def _matrices(matrices: Sequence[PairSpec], budget: int, rng: np.random.Generator) -> list[PairSpec]:
    """Rows of every matrix, about as many bytes of each; of some matrices only, where not even that is to be had."""
    if sum(min(LEAST_ROWS, pair.compared_rows) * row_bytes(pair) for pair in matrices) > budget:
        matrices = _spread(matrices, budget, rng)
    low, high = 0, max(budget, 1)
    while high - low > 1:
        middle = (low + high) // 2
        fits = sum(_rows_for(pair, middle) * row_bytes(pair) for pair in matrices) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return [_with_rows(pair, _rows_for(pair, low), rng) for pair in matrices]


def _rows_for(pair: PairSpec, share: int) -> int:
    return min(pair.compared_rows, max(LEAST_ROWS, int(share / row_bytes(pair))))


def _spread(matrices: Sequence[PairSpec], budget: int, rng: np.random.Generator) -> list[PairSpec]:
    """As many matrices as ``LEAST_ROWS`` of each fit, kind by kind: siblings are only judged together."""
    kinds: dict[tuple[Role, tuple[int, ...]], list[PairSpec]] = defaultdict(list)
    for pair in matrices:
        kinds[pair.role, pair.shape].append(pair)
    left, kept = float(budget), set()
    for kind in sorted(kinds.values(), key=lambda members: row_bytes(members[0]) * len(members)):
        for place in rng.permutation(len(kind)):
            cost = min(LEAST_ROWS, kind[place].compared_rows) * row_bytes(kind[place])
            if cost <= left:
                left -= cost
                kept.add(kind[place].name)
    return [pair for pair in matrices if pair.name in kept]


def _tables(tables: Sequence[PairSpec], budget: int, rng: np.random.Generator) -> list[PairSpec]:
    """The same share of the rows of every table."""
    total = sum(pair_bytes(pair) for pair in tables)
    share = min(1.0, budget / total) if total else 0.0
    found = [(pair, int(share * pair.compared_rows)) for pair in tables]
    return [_with_rows(pair, rows, rng) for pair, rows in found if rows]


def _with_rows(pair: PairSpec, rows: int, rng: np.random.Generator) -> PairSpec:
    """The pair with about ``rows`` rows, never more, in runs of one length drawn without replacement."""
    first, end = pair.rows
    if rows >= end - first:
        return replace(pair, runs=())
    side = max(1.0, row_bytes(pair) / 2)
    length = max(1, min(max(LEAST_RUN_ROWS, int(RUN_BYTES / side)), rows // LEAST_RUNS))
    # The grid of runs begins at a random place before the first row, so that no row has a special one.
    begin = first - int(rng.integers(length))
    cells = -(-(end - begin) // length)
    drawn = sorted(rng.choice(cells, size=min(cells, max(1, rows // length)), replace=False).tolist())
    runs = ((max(first, begin + cell * length), min(end, begin + (cell + 1) * length)) for cell in drawn)
    return replace(pair, runs=_joined(runs))


def _joined(runs: Iterable[Rows]) -> tuple[Rows, ...]:
    """Ascending runs with neighbours made one."""
    joined: list[Rows] = []
    for first, end in runs:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return tuple(joined)
