"""Pairs tensors by what they hold where their names say nothing: renamed tensors, and layers moved or left out.

A few rows of every tensor in question are read from both sides; tensors of one shape are matched one to one so that
their rows agree best, and a match counts only where rows are kept and no other tensor comes near.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from scanner.lineage.chance import centred_correlation
from scanner.lineage.rows import unit_rows
from scanner.lineage.sampling import EVIDENT_ROLES, MIN_COLUMNS, MIN_ROWS, read_values
from scanner.records import F64, Alignment, PairSpec, Role, Skip, TensorMeta
from scanner.roles import is_constant, layer_of, role_of
from scanner.weights.dtypes import is_float, item_bits
from scanner.weights.source import BlockRequest, WeightSource

MAX_CONTENT_BYTES = 32 << 20
"""Bytes read from both sides together."""
MAX_TENSORS = 4096
ROWS = 32
MATCHED_COSINE = 0.5**0.5
"""As ``KEPT_COSINE``: half of a row's energy is shared."""
VECTOR_CORRELATION = 0.9
MARGIN = 0.2
"""By how much a match must exceed the next best."""
VECTOR_MARGIN = 0.02
_LAYER_ROLES: tuple[Role, ...] = ("mlp_out", "value", "attention", "mlp_in", "attention_output", "query")
_MAX_LAYER_ROLES = 2
_BY_CONTENT = "paired by content, its name has no counterpart"

Table = Mapping[str, TensorMeta]


def pair_by_content(alignment: Alignment, base: WeightSource, candidate: WeightSource) -> Alignment:
    """Pair what names left over on both sides; return the alignment with those pairs added, or as it was.

    Only floating-point tensors of equal shape take part. Reads nothing when one side has nothing left over.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    ours = _left(candidate.table, {pair.candidate.name for pair in alignment.pairs})
    theirs = _left(base.table, {pair.base.name for pair in alignment.pairs})
    found: dict[str, str] = {}
    for vectors in (False, True):
        sides = [{n: m for n, m in side.items() if _is_vector(m) == vectors} for side in (ours, theirs)]
        found |= _matched(_groups(*sides), base, candidate)
    if not found:
        return alignment
    specs = [_spec(candidate.table[name], base.table[other]) for name, other in found.items()]
    gone = set(found) | set(found.values())
    return replace(
        alignment,
        pairs=(*alignment.pairs, *specs),
        skips=tuple(skip for skip in alignment.skips if skip.what not in gone),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Layers that stand elsewhere: candidate layer → base layer, and the alignment that follows them."""

    layers: Mapping[int, int]
    alignment: Alignment


def follow_layers(alignment: Alignment, base: WeightSource, candidate: WeightSource) -> Moved | None:
    """Find out by content which base layer each layer of the candidate is; None when none has moved, or none is found.

    Two kinds of matrices vote. Tensors of layers that are found in no place of the base stay as their names say.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    roles = Counter(pair.role for pair in alignment.pairs if pair.layer is not None and pair.role in _LAYER_ROLES)
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for role in sorted(roles, key=lambda r: (-roles[r], _LAYER_ROLES.index(r)))[:_MAX_LAYER_ROLES]:
        shapes = {pair.candidate.shape for pair in alignment.pairs if pair.role == role}
        ours, theirs = (
            {n: m for n, m in side.table.items() if _may_vote(m, role, shapes)} for side in (candidate, base)
        )
        for name, other in _matched(_groups(ours, theirs), base, candidate).items():
            here, there = layer_of(name), layer_of(other)
            if here is not None and there is not None:
                votes[here][there] += 1
    layers = {here: counts.most_common(1)[0][0] for here, counts in votes.items()}
    if all(here == there for here, there in layers.items()) or len(set(layers.values())) < len(layers):
        return None
    pairs = tuple(_at(pair, layers, base.table) for pair in alignment.pairs)
    return Moved(layers=layers, alignment=replace(alignment, pairs=pairs))


def _may_vote(meta: TensorMeta, role: Role, shapes: set[tuple[int, ...]]) -> bool:
    inside = meta.shape in shapes and layer_of(meta.name) is not None
    return inside and is_float(meta.dtype) and role_of(meta.name, meta.shape, None) == role


def _at(pair: PairSpec, layers: Mapping[int, int], base: Table) -> PairSpec:
    """The pair with the base tensor of the layer that it really is."""
    there = layers.get(pair.layer, pair.layer) if pair.layer is not None else None
    if there is None or there == pair.layer:
        return pair
    name = re.sub(rf"(?<=\.){pair.layer}(?=\.)|^{pair.layer}(?=\.)", str(there), pair.base.name, count=1)
    other = base.get(name)
    return replace(pair, base=other) if other is not None and other.shape == pair.base.shape else pair


def _left(table: Table, taken: set[str]) -> dict[str, TensorMeta]:
    """Tensors without a partner that content could pair."""
    left = {
        name: meta
        for name, meta in table.items()
        if name not in taken and is_float(meta.dtype) and not is_constant(name, meta.shape) and _is_readable(meta)
    }
    return left if len(left) <= MAX_TENSORS else {}


def _is_readable(meta: TensorMeta) -> bool:
    rows, columns = meta.rows_cols
    return columns >= MIN_COLUMNS and (_is_vector(meta) or rows >= MIN_ROWS)


def _is_vector(meta: TensorMeta) -> bool:
    return len(meta.shape) < 2


def _groups(ours: Table, theirs: Table) -> list[tuple[list[TensorMeta], list[TensorMeta]]]:
    """Tensors of equal shape that stand on both sides."""
    sides: list[dict[tuple[int, ...], list[TensorMeta]]] = []
    for table in (ours, theirs):
        grouped: dict[tuple[int, ...], list[TensorMeta]] = defaultdict(list)
        for meta in table.values():
            grouped[meta.shape].append(meta)
        sides.append(grouped)
    return [(metas, sides[1][shape]) for shape, metas in sides[0].items() if shape in sides[1]]


def _matched(
    groups: Sequence[tuple[list[TensorMeta], list[TensorMeta]]], base: WeightSource, candidate: WeightSource
) -> dict[str, str]:
    """Candidate name → base name of every match that counts; groups too wide for the budget are left out."""
    found: dict[str, str] = {}
    budget = MAX_CONTENT_BYTES / max(1, len(groups))
    for ours, theirs in groups:
        row_bytes = sum(meta.rows_cols[1] * item_bits(meta.dtype) / 8 for meta in (*ours, *theirs))
        vector = _is_vector(ours[0])
        rows = 1 if vector else min(ROWS, ours[0].rows_cols[0], int(budget / max(row_bytes, 1)))
        if rows < (1 if vector else MIN_ROWS) or row_bytes * rows > budget:
            continue
        one, two = _heads(candidate, ours, rows), _heads(base, theirs, rows)
        scores = _correlations(one, two) if vector else _row_scores(one, two)
        least, margin = (VECTOR_CORRELATION, VECTOR_MARGIN) if vector else (MATCHED_COSINE, MARGIN)
        for i, j in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
            others = np.concatenate([np.delete(scores[i], j), np.delete(scores[:, j], i)])
            if scores[i, j] >= least and scores[i, j] - others.max(initial=-1.0) >= margin:
                found[ours[i].name] = theirs[j].name
    return found


def _heads(source: WeightSource, metas: Sequence[TensorMeta], rows: int) -> list[F64]:
    values = read_values(source, [BlockRequest(name=meta.name, rows=(0, rows)) for meta in metas])
    return [np.where(np.isfinite(value), value, 0.0) for value in values]


def _row_scores(ours: Sequence[F64], theirs: Sequence[F64]) -> F64:
    """Median over rows of the cosine of rows of equal index, centred, ``[ours, theirs]``."""
    bases = [unit_rows(value) for value in theirs]
    return np.array([[np.median(np.sum(unit * other, axis=1)) for other in bases] for unit in map(unit_rows, ours)])


def _correlations(ours: Sequence[F64], theirs: Sequence[F64]) -> F64:
    return np.array([[centred_correlation(one[0], two[0]) for two in theirs] for one in ours])


def _spec(ours: TensorMeta, theirs: TensorMeta) -> PairSpec:
    """A pair whose role is that of whichever name says more."""
    roles = [role_of(meta.name, meta.shape, None) for meta in (ours, theirs)]
    named = next((i for i, role in enumerate(roles) if role in EVIDENT_ROLES or role in {"norm", "bias"}), 1)
    return PairSpec(
        name=ours.name,
        base=theirs,
        candidate=ours,
        role=roles[named],
        layer=layer_of((ours, theirs)[named].name),
        rows=(0, ours.rows_cols[0]),
    )


def content_skip(alignment: Alignment, before: Alignment) -> Skip | None:
    """Say in one line how many tensors were paired by content; None when none was."""
    added = len(alignment.pairs) - len(before.pairs)
    return Skip(what=f"names of {added} tensors", why=_BY_CONTENT) if added else None
