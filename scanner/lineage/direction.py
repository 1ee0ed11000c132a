"""Which of two related models came first, where the weights allow it.

Two facts decide. *Decay*: AdamW shrinks rows that no gradient reaches by one common factor, so rows that are exact
multiples of the other side's tell which side was trained on. *Rounding*: a model whose values are the other's, rounded
to a narrower type, came after it. Kurtosis is shown beside them and decides nothing: training for a task lowers it in
some families (Horwitz et al. 2024, arXiv 2405.18432), but not by a law.
"""

from collections.abc import Sequence

import numpy as np

from scanner.lineage.sampling import Sample
from scanner.records import F64, Check, Measured

MIN_MULTIPLES = 8
PARALLEL = 1.0 - 1e-6
"""Cosine above which a row is a multiple of the other: single precision leaves about 10⁻⁷."""
COMMON_SPREAD = 2e-3
"""Relative spread within which the factors of the rows are one factor."""
MIN_DECAY = 1e-6
"""Least departure of the factor from 1 that rounding does not make."""
_WIDTHS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8, "F8_E4M3": 4, "F8_E5M2": 3}


def check_direction(samples: Sequence[Sample]) -> Check:
    """Say whether the candidate came after the base: passed when it did, failed when it came before."""
    factor, rows = _decay(samples)
    rounded = _rounded(samples)
    kurtosis = float(np.median([_kurtosis(s.candidate) - _kurtosis(s.base) for s in samples])) if samples else 0.0
    measurements = [Measured(name="kurtosis_difference", value=kurtosis)]
    if factor is not None:
        measurements += [
            Measured(name="common_factor", value=factor),
            Measured(name="rows_with_common_factor", value=float(rows), unit="rows"),
        ]
    votes = ([1 if factor < 1 else -1] if factor is not None else []) + ([rounded] if rounded else [])
    if not votes or len(set(votes)) > 1:
        note = "The weights do not say which of the two came first."
        return Check(name="direction", outcome="not_run", measurements=tuple(measurements), note=note)
    forward = votes[0] > 0
    grounds = (
        "rows without gradient shrank by one factor" if factor is not None else "its values are the other's, rounded"
    )
    later, earlier = ("candidate", "base") if forward else ("base", "candidate")
    return Check(
        name="direction",
        outcome="passed" if forward else "failed",
        measurements=tuple(measurements),
        note=f"The {later} came after the {earlier}: {grounds}.",
    )


def _decay(samples: Sequence[Sample]) -> tuple[float | None, int]:
    """The common factor of rows that are multiples of the base's, and their number; None when there is none."""
    factors = [factor for sample in samples if sample.spec.layer is None for factor in _multiples(sample)]
    if len(factors) < MIN_MULTIPLES:
        return None, len(factors)
    middle = float(np.median(factors))
    agreeing = [f for f in factors if abs(f / middle - 1.0) <= COMMON_SPREAD * abs(middle - 1.0) + MIN_DECAY / 2]
    if len(agreeing) < MIN_MULTIPLES or abs(middle - 1.0) < MIN_DECAY:
        return None, len(agreeing)
    return middle, len(agreeing)


def _multiples(sample: Sample) -> F64:
    """Factors of the candidate rows that are exact multiples of the base's, others left out."""
    base, candidate = sample.base, sample.candidate
    usable = np.isfinite(base).all(axis=1) & np.isfinite(candidate).all(axis=1)
    base, candidate = base[usable], candidate[usable]
    dot, own = np.sum(base * candidate, axis=1), np.sum(base * base, axis=1)
    other = np.sum(candidate * candidate, axis=1)
    alive = (own > 0) & (other > 0) & (dot > 0)
    parallel = alive & (dot >= PARALLEL * np.sqrt(np.where(alive, own * other, 1.0)))
    moved = parallel & (base != candidate).any(axis=1)
    factors: F64 = dot[moved] / own[moved]
    return factors


def _rounded(samples: Sequence[Sample]) -> int:
    """1 when every sampled candidate value is the base's in a narrower type, -1 the other way round, 0 otherwise."""
    if not samples:
        return 0
    widths = [(_WIDTHS.get(s.spec.base.dtype), _WIDTHS.get(s.spec.candidate.dtype)) for s in samples]
    if any(one is None or two is None for one, two in widths):
        return 0
    if all(two < one for one, two in widths if one is not None and two is not None):
        return int(all(_is_rounding(s.base, s.candidate, _WIDTHS[s.spec.candidate.dtype]) for s in samples))
    if all(one < two for one, two in widths if one is not None and two is not None):
        return -int(all(_is_rounding(s.candidate, s.base, _WIDTHS[s.spec.base.dtype]) for s in samples))
    return 0


def _is_rounding(exact: F64, rounded: F64, bits: int) -> bool:
    """Whether each value lies within a unit in the last place, subnormal ones left out."""
    large = np.abs(exact) > 2.0**-6 * np.abs(exact).max(initial=0.0)
    ulp = np.exp2(np.floor(np.log2(np.abs(np.where(large, exact, 1.0)))) + 1 - bits)
    same = not bool(np.array_equal(exact, rounded))
    return same and bool(np.all(np.abs(exact - rounded)[large] <= 0.5001 * ulp[large]))


def _kurtosis(values: F64) -> float:
    """Fourth standardised moment over all sampled entries; 3 for a normal law, 0 for a constant."""
    centred = values - values.mean()
    square = float(np.mean(centred**2))
    return float(np.mean(centred**4)) / square**2 if square > 0 else 0.0
