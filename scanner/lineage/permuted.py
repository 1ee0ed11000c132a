"""Recognises copies whose hidden units, or whose dimensions, stand in another order.

Permuting the hidden units of a feed-forward block, or the dimensions of the whole model (with signs), changes nothing
that a model computes, yet no row agrees with its own any more. Token rows are the anchor: tokens keep their numbers, so
columns of the embedding can be matched one to one (assignment over embedding dimensions as in AWM, arXiv 2510.06738);
rows of the first feed-forward matrix are then matched with all rows of the base's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr

from scanner.errors import CouldNotConclude
from scanner.lineage.chance import NEVER
from scanner.lineage.rows import best_order, row_cosines, unit_rows
from scanner.lineage.sampling import read_values
from scanner.records import F64, Alignment, Check, Measured, PairSpec, Rows
from scanner.weights.dtypes import item_bits
from scanner.weights.source import BlockRequest, WeightSource

MAX_PERMUTED_BYTES = 128 << 20
"""Bytes of the matrices that are read whole."""
MAX_DIMENSIONS = 8192
LAYERS = 2
UNIT_ROWS = 64
TOKEN_ROWS = 512
MATCHED_COSINE = 0.5**0.5
"""As ``KEPT_COSINE``."""
DISTINCT_SHARE = 0.9
"""Share of the matches that must lead to different rows: an order has no repeats."""
SIGNIFICANT_LOG10_P = -9.0
_UNIT_ROLES = ("mlp_in", "mlp_gate", "mlp_out")
_BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Candidate dimension i is base dimension ``index[i]`` times ``sign[i]``; ``cosine`` is the median of the match."""

    index: npt.NDArray[np.intp]
    sign: F64
    cosine: float

    @property
    def moved(self) -> bool:
        """Whether any dimension stands elsewhere or is turned."""
        return bool(np.any(self.index != np.arange(len(self.index))) or np.any(self.sign < 0))


def check_permutation(alignment: Alignment, base: WeightSource, candidate: WeightSource) -> Check:
    """Say whether the candidate is the base up to the order of hidden units, and of dimensions. Never raises.

    Passes when the units of every layer tried are found again, each at a different row, with a chance below
    10^``SIGNIFICANT_LOG10_P`` under independence. Passing without any movement is left to ``check_descent``.
    """
    try:
        order = _dimension_order(alignment, base, candidate)
        found = [_match_units(pair, order, base, candidate) for pair in _unit_pairs(alignment)] if order else []
    except CouldNotConclude as error:
        return Check(name="hidden_units", outcome="not_run", note=str(error))
    if order is None or not found:
        note = "No embedding or no feed-forward matrix of equal width could be read within the budget."
        return Check(name="hidden_units", outcome="not_run", note=note)
    cosine = min(unit.cosine for unit in found)
    distinct = min(unit.distinct for unit in found)
    log10_p = max(unit.log10_p for unit in found)
    passed = cosine >= MATCHED_COSINE and distinct >= DISTINCT_SHARE and log10_p <= SIGNIFICANT_LOG10_P
    dimensions = "dimensions and " if order.moved else ""
    return Check(
        name="hidden_units",
        outcome="passed" if passed else "failed",
        measurements=(
            Measured(name="matched_cosine", value=cosine),
            Measured(name="units_found_once", value=distinct, unit="share"),
            Measured(name="units_in_place", value=float(np.mean([unit.own for unit in found])), unit="share"),
            Measured(name="dimension_cosine", value=order.cosine),
            Measured(name="dimensions_moved", value=float(order.moved)),
            Measured(name="log10_p", value=log10_p),
            Measured(name="layers", value=float(len(found)), unit="layers"),
        ),
        note=f"Verified up to a permutation of {dimensions}hidden units."
        if passed
        else "No order of the hidden units makes the candidate's rows the base's.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """How the sampled units of one layer were found; ``own`` is the share found at their own place."""

    cosine: float
    distinct: float
    own: float
    log10_p: float


def _dimension_order(alignment: Alignment, base: WeightSource, candidate: WeightSource) -> Order | None:
    """Match the columns of the token embedding; the identity when they already stand in place."""
    tables = [p for p in alignment.pairs if p.role == "embedding" and p.candidate.rows_cols[1] <= MAX_DIMENSIONS]
    if not tables:
        return None
    pair = max(tables, key=lambda p: p.candidate.count)
    rows = (pair.rows[0], min(pair.rows[1], pair.rows[0] + TOKEN_ROWS))
    theirs, ours = _read(base, pair.base.name, rows), _read(candidate, pair.candidate.name, rows)
    width = theirs.shape[1]
    in_place = np.sum(unit_rows(ours.T) * unit_rows(theirs.T), axis=1)
    if float(np.median(in_place)) >= MATCHED_COSINE:
        return Order(index=np.arange(width), sign=np.ones(width), cosine=float(np.median(in_place)))
    cosines = unit_rows(ours.T) @ unit_rows(theirs.T).T
    index = best_order(np.abs(cosines))
    matched = cosines[np.arange(width), index]
    return Order(index=index, sign=np.where(matched < 0, -1.0, 1.0), cosine=float(np.median(np.abs(matched))))


def _unit_pairs(alignment: Alignment) -> Sequence[PairSpec]:
    """At most ``LAYERS`` matrices with hidden units as rows, from different layers, within the budget."""
    usable = [
        p
        for p in alignment.pairs
        if p.role in _UNIT_ROLES
        and p.layer is not None
        and p.candidate.shape == p.base.shape
        and p.candidate.rows_cols[0] > p.candidate.rows_cols[1]
    ]
    by_layer = {p.layer: p for p in reversed(usable)}
    chosen: list[PairSpec] = []
    left = MAX_PERMUTED_BYTES
    for pair in by_layer.values():
        cost = pair.base.count * item_bits(pair.base.dtype) // 8
        if len(chosen) < LAYERS and cost <= left:
            chosen.append(pair)
            left -= cost
    return chosen


def _match_units(pair: PairSpec, order: Order, base: WeightSource, candidate: WeightSource) -> _Units:
    """Find each of the candidate's first units among all of the base's."""
    rows, columns = pair.base.rows_cols
    ours = _read(candidate, pair.candidate.name, (0, min(UNIT_ROWS, rows)))
    if len(order.index) == columns:
        reordered = np.empty_like(ours)
        reordered[:, order.index] = ours * order.sign
        ours = reordered
    # Whole matrices are read in blocks, so that memory stays flat.
    runs = [(start, min(start + _BLOCK_ROWS, rows)) for start in range(0, rows, _BLOCK_ROWS)]
    cosines = np.concatenate([row_cosines(ours, _read(base, pair.base.name, run)) for run in runs], axis=1)
    best = cosines.argmax(axis=1)
    top = np.take_along_axis(cosines, best[:, np.newaxis], axis=1)[:, 0]
    spread = float(np.sqrt(np.median(cosines**2))) / _MEDIAN_OF_NORMAL
    return _Units(
        cosine=float(np.median(top)),
        distinct=len(np.unique(best)) / len(best),
        own=float(np.mean(best == np.arange(len(best)))),
        log10_p=_half_log10_p(float(np.median(top)), spread, len(top), rows),
    )


_MEDIAN_OF_NORMAL = 0.6745
"""Median of |x| for a standard normal x: the median square of cosines gives their spread, matches left out."""


def _half_log10_p(median: float, spread: float, count: int, choices: int) -> float:
    """Bound the chance that half of ``count`` rows each find, among ``choices``, one as near as the median.

    p ≤ C(count, half) · (choices · P(cos ≥ median))^half, cosines of strangers being normal with that spread.
    """
    half = (count + 1) // 2
    ways = float(gammaln(count + 1) - gammaln(half + 1) - gammaln(count - half + 1))
    each = min(0.0, float(np.log(choices)) + float(log_ndtr(-median / max(spread, np.finfo(np.float64).eps))))
    return max(NEVER, min(0.0, (ways + half * each) / float(np.log(10.0))))


def _read(source: WeightSource, name: str, rows: Rows) -> F64:
    (value,) = read_values(source, [BlockRequest(name=name, rows=rows)])
    return np.where(np.isfinite(value), value, 0.0)
