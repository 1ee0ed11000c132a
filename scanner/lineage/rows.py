"""Compares rows of a candidate with rows of a base: do they still point the same way, each at its own?

Rows are *centred* first: the mean row and the mean of each row are taken away on each side, since a mean that all
rows share makes any two rows look alike, related or not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from scanner.lineage.chance import order_log10_p
from scanner.lineage.delta_rank import delta_rank
from scanner.lineage.sampling import MIN_ROWS, Sample
from scanner.records import F64

DUPLICATE_COSINE = 0.999
"""Base rows more alike than this are one row written twice (unused tokens): they cannot show who kept their place."""

MIN_DISTINCT = 16
"""Different values that a row needs before its equality with another row means anything."""
_LEVEL_ROWS = 8
_HALF_BITS = 8
"""Significant bits of BF16, the coarsest type in which models are trained and kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAgreement:
    """How the sampled rows of one tensor agree.

    ``cosine`` is the median over rows of the cosine between a candidate row and the base row of the same index, both
    centred. ``null_sd`` is the standard deviation of the cosines between rows of *different* index: under
    independence √n·cos(Wᵢ, W′ᵢ) ~ N(0, 1) for n free columns, and rows of different index measure that spread with
    whatever structure the columns have. ``matched`` is the share of candidate rows whose nearest base row, among
    those sampled, is their own; by chance 1 / ``rows``. ``norm_correlation`` is the correlation of log row norms over
    rows: it survives a rotation or permutation of the columns, which the cosine does not. ``relative_drift`` is
    ‖candidate − base‖ / ‖base‖ over the sample, uncentred. ``identical`` says that all values are equal,
    ``identical_rows`` in how many rows they are (rows of at least ``MIN_DISTINCT`` different values).
    ``order_log10_p`` is log₁₀ of the chance that rows without relation, matched one to one by their cosines, come out
    in an order this near to their own (exact for hidden units). ``zeroed`` is the share of the base's non-zero
    entries that are zero in the candidate; ``levels`` the number of different values in a candidate row over that of
    the base row at half precision, the median over rows. ``delta_rank`` is the rank of the delta over all sampled
    rows, rounding of the candidate's dtype left aside (``scanner.lineage.delta_rank``): 0 when nothing but rounding
    happened, None when rounding hides it.
    """

    rows: int
    cosine: float
    null_sd: float
    matched: float
    norm_correlation: float
    relative_drift: float
    identical: bool
    identical_rows: int = 0
    order_log10_p: float = 0.0
    zeroed: float = 0.0
    levels: float = 1.0
    delta_rank: int | None = None


def compare_rows(sample: Sample) -> RowAgreement | None:
    """Return how the rows agree; None when fewer than ``MIN_ROWS`` are finite, non-zero and different."""
    usable = np.isfinite(sample.base).all(axis=1) & np.isfinite(sample.candidate).all(axis=1)
    base, candidate = sample.base[usable], sample.candidate[usable]
    distinct = _distinct_rows(base) if len(base) >= MIN_ROWS else np.zeros(0, dtype=np.intp)
    base, candidate = base[distinct], candidate[distinct]
    if len(base) < MIN_ROWS:
        return None
    base_unit, candidate_unit = unit_rows(base), unit_rows(candidate)
    alive = np.any(base_unit != 0, axis=1) & np.any(candidate_unit != 0, axis=1)
    if int(alive.sum()) < MIN_ROWS:
        return None
    cosines = _products(candidate_unit[alive], base_unit[alive])
    own = np.diag(cosines)
    others = cosines[~np.eye(len(own), dtype=bool)]
    return RowAgreement(
        rows=len(own),
        cosine=float(np.median(own)),
        null_sd=float(np.sqrt(np.mean(others**2))),
        matched=float(np.mean(cosines.argmax(axis=1) == np.arange(len(own)))),
        norm_correlation=_norm_correlation(base[alive], candidate[alive]),
        relative_drift=_relative(base, candidate),
        identical=bool(np.array_equal(base, candidate)),
        identical_rows=_identical_rows(base, candidate),
        order_log10_p=order_log10_p(best_order(cosines)),
        zeroed=_zeroed(base, candidate),
        levels=_levels(base, candidate),
        delta_rank=delta_rank(base, candidate, sample.spec.candidate.dtype),
    )


def best_order(cosines: F64) -> "np.typing.NDArray[np.intp]":
    """Match rows to columns one to one so that the sum is greatest; return each row's column."""
    _, columns = linear_sum_assignment(cosines, maximize=True)
    return np.asarray(columns, dtype=np.intp)


def unit_rows(values: F64) -> F64:
    """Rows minus the mean row and their own mean, at length one; rows that then are zero stay zero."""
    return _unit(_centred(values))


def row_cosines(candidate: F64, base: F64) -> F64:
    """Cosine of every candidate row with every base row, both centred, ``[candidate rows, base rows]``."""
    return _products(unit_rows(candidate), unit_rows(base))


def _identical_rows(base: F64, candidate: F64) -> int:
    same = np.flatnonzero((base == candidate).all(axis=1))
    return sum(len(np.unique(base[row])) >= MIN_DISTINCT for row in same)


def _zeroed(base: F64, candidate: F64) -> float:
    alive = base != 0
    return float(np.mean(candidate[alive] == 0)) if alive.any() else 0.0


def _levels(base: F64, candidate: F64) -> float:
    """Different values of a candidate row over those that its base row has at half precision, the median over rows.

    At half precision (``_HALF_BITS``), since a cast to it is no grid.
    """
    rows = range(min(len(base), _LEVEL_ROWS))
    mantissa, exponent = np.frexp(base[: len(rows)])
    half = np.ldexp(np.round(np.ldexp(mantissa, _HALF_BITS)), exponent - _HALF_BITS)
    return float(np.median([len(np.unique(candidate[row])) / len(np.unique(half[row])) for row in rows]))


def _centred(values: F64) -> F64:
    """Take away the mean row and each row's mean, ``[rows, cols]``."""
    without_mean_row: F64 = values - values.mean(axis=0, keepdims=True)
    centred: F64 = without_mean_row - without_mean_row.mean(axis=1, keepdims=True)
    return centred


def _unit(values: F64) -> F64:
    """Scale each row to length one; rows that are zero but for rounding stay zero."""
    scale = np.abs(values).max(axis=1, keepdims=True)
    floor = np.finfo(np.float64).eps * max(float(scale.max(initial=0.0)), np.finfo(np.float64).tiny)
    scaled = np.where(scale > floor, values / np.maximum(scale, floor), 0.0)
    norms = _norm(scaled)[:, np.newaxis]
    unit: F64 = scaled / np.where(norms > 0, norms, 1.0)
    return unit


def _distinct_rows(base: F64) -> "np.typing.NDArray[np.intp]":
    """Indices of the rows that are not copies of an earlier one."""
    unit = unit_rows(base)
    alike = np.tril(_products(unit, unit), k=-1).max(axis=1) > DUPLICATE_COSINE
    return np.flatnonzero(~alike)


def _norm_correlation(base: F64, candidate: F64) -> float:
    logs = [np.log(np.maximum(_norm(side), np.finfo(np.float64).tiny)) for side in (base, candidate)]
    one, two = (side - side.mean() for side in logs)
    norms = float(_norm(one) * _norm(two))
    return float(np.sum(one * two)) / norms if norms > 0 else 0.0


def _relative(base: F64, candidate: F64) -> float:
    norm = float(_norm(base.ravel()))
    return float(_norm((candidate - base).ravel())) / norm if norm > 0 else 0.0


def _norm(values: F64) -> F64:
    """Euclidean norm over the last axis."""
    norms: F64 = np.sqrt(np.sum(values * values, axis=-1))
    return norms


def _products(one: F64, two: F64) -> F64:
    """Scalar products of every row with every row.

    NOTE: not ``@``. These matrices are tiny, and a threaded BLAS on a busy machine takes ten times as long as this.
    """
    products: F64 = np.einsum("ik,jk->ij", one, two)
    return products
