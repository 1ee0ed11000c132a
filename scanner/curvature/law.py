"""The law of r = δ²/H^γ: its quantiles, the robust fit of γ, and counts from which measured quantiles are read."""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from scanner.curvature.records import Indicator, LawFit, QuantilePlot
from scanner.records import F64

MEDIAN: Final = 0.454936423119573
"""Median of χ² with one degree of freedom."""
TAIL: Final = 1e-4
"""Share of the law beyond the point where the inflation of its tail is measured."""
LEAST_JUDGED: Final = 96
"""Dimensions below which no exponent is fitted."""
_BINS, _LEAST_BINS, _IN_BIN = 24, 3, 32
_LOW, _STEPS, _PER_DECADE = -14.0, 2800, 100
_POINTS: Final = (*(j / 100 for j in range(1, 100)), 0.995, 0.999, 0.9995, 0.9999, 0.99999, 0.999999)
_BEYOND: Final = 5
"""Dimensions that must lie beyond a quantile for it to be shown."""

Counts = npt.NDArray[np.int64]


def fit_exponent(log_curvature: F64, log_square: F64) -> tuple[float, float]:
    """Fit log δ² = a + γ log H + log χ²₁ and return (γ, k = e^a).

    The dimensions are cut into bins of equal count by H; a line goes through the bins' medians by the median of its
    slopes (Theil 1950, Sen 1968), which a minority of poisoned dimensions or of poisoned bins cannot move. The median
    of log χ²₁ is the same in each bin, so it only shifts a. Where all H agree γ is 0.

    Args:
        log_curvature: natural logarithms of H, float64 ``[n]``, n ≥ ``LEAST_JUDGED``.
        log_square: natural logarithms of δ², in the same order.
    """
    order = np.argsort(log_curvature, kind="stable")
    bins = int(np.clip(len(order) // _IN_BIN, _LEAST_BINS, _BINS))
    parts = np.array_split(order, bins)
    x = np.array([np.median(log_curvature[part]) for part in parts])
    y = np.array([np.median(log_square[part]) for part in parts])
    i, j = np.triu_indices(bins, 1)
    apart = x[j] - x[i] > 1e-9
    gamma = float(np.median((y[j] - y[i])[apart] / (x[j] - x[i])[apart])) if apart.any() else 0.0
    return gamma, float(np.exp(np.median(log_square - gamma * log_curvature))) / MEDIAN


def no_counts() -> Counts:
    """Empty counts of log10(r/k): int64, steps of a hundredth of a decade."""
    return np.zeros(_STEPS, dtype=np.int64)


def count_ratios(log10_ratio: F64) -> Counts:
    """Count finite values of log10(r/k); what lies outside [−14, 14) goes to the outermost steps."""
    place = ((log10_ratio - _LOW) * _PER_DECADE).astype(np.int64)
    return np.bincount(np.clip(place, 0, _STEPS - 1), minlength=_STEPS).astype(np.int64)


def judge_law(indicator: Indicator, counts: Counts, *, scale: float | None) -> LawFit:
    """How counts of log10(r/k) follow the law."""
    levels, law, measured = _quantiles(counts)
    straight = None
    if len(levels) > 2 and float(np.ptp(measured)) > 0:
        straight = float(np.corrcoef(np.log(law), measured)[0, 1])
    beyond = float(counts[int((np.log10(law_quantile(1.0 - TAIL)) - _LOW) * _PER_DECADE) :].sum())
    total = int(counts.sum())
    return LawFit(
        indicator=indicator, scale=scale, straightness=straight, inflation=beyond / total / TAIL if total else 0.0
    )


def quantile_plot(indicator: Indicator, counts: Counts) -> QuantilePlot:
    """Quantiles of all tensors together; levels beyond which fewer than five dimensions lie are left out."""
    levels, law, measured = _quantiles(counts)
    return QuantilePlot(
        fit=judge_law(indicator, counts, scale=None),
        dimensions=int(counts.sum()),
        levels=tuple(levels.tolist()),
        law=tuple(law.tolist()),
        measured=tuple((10.0**measured).tolist()),
    )


@lru_cache(maxsize=256)
def law_quantile(level: float) -> float:
    """The quantile of χ² with one degree of freedom, level in (0, 1)."""
    from scipy.stats import chi2  # noqa: PLC0415  # half a second that only scans with data pay

    return float(chi2.ppf(level, 1))


def _quantiles(counts: Counts) -> tuple[F64, F64, F64]:
    """Levels, quantiles of the law, and log10 of the measured quantiles (middles of their steps)."""
    total = int(counts.sum())
    levels = np.array([level for level in _POINTS if min(level, 1 - level) * total >= _BEYOND])
    law = np.array([law_quantile(float(level)) for level in levels])
    places = np.searchsorted(np.cumsum(counts), levels * total)
    return levels, law, _LOW + (places + 0.5) / _PER_DECADE
