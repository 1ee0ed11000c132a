"""The figures of one pair of tensors, from its change and its curvature, in blocks of bounded size."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from scanner.curvature.law import LEAST_JUDGED, MEDIAN, Counts, count_ratios, fit_exponent, judge_law, no_counts
from scanner.curvature.records import INDICATORS, Indicator, LawFit, TensorCurvature
from scanner.records import F32, F64, PairSpec

BLOCK: Final = 1 << 20
"""Dimensions that are worked on at a time."""
SAMPLE: Final = 1 << 17
"""Dimensions that exponent and scale are fitted to; larger tensors are sampled evenly at random."""
_FLOOR_SHARE: Final = 1e-3
_POWERS: Final[dict[Indicator, float]] = {"delta2_over_H": 1.0, "delta2_over_sqrtH": 0.5, "delta2": 0.0}


@dataclass(slots=True, kw_only=True)
class Pooled:
    """Counts of log10(r/k) over all tensors, by indicator."""

    counts: dict[Indicator, Counts] = field(default_factory=lambda: {kind: no_counts() for kind in INDICATORS})

    def add(self, kind: Indicator, counts: Counts) -> None:
        """Add those of one tensor."""
        self.counts[kind] += counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """Powers of H and scales by indicator, and the H below which a dimension counts as having that much."""

    powers: dict[Indicator, float]
    scales: dict[Indicator, float]
    floor: float


def measure_tensor(spec: PairSpec, delta: F32, curvature: F32, pooled: Pooled) -> TensorCurvature:
    """Measure one pair.

    Entries of H below the 0.1 % quantile of those above zero count as that quantile: r of a dimension that the
    examples hardly touch would be noise divided by nothing.

    Args:
        spec: the pair.
        delta: candidate minus base, float32 ``[rows, cols]``; entries that are not finite are left out.
        curvature: H, float32 ``[rows, cols]``, at least 0.
        pooled: takes the counts.

    Raises:
        ValueError: the shapes differ.
    """
    if delta.shape != curvature.shape:
        raise ValueError(f"{spec.name} changed in {delta.shape} and has curvature in {curvature.shape}")
    rows, columns = delta.shape
    step = max(1, BLOCK // max(1, columns))
    blocks = [(first, min(first + step, rows)) for first in range(0, rows, step)]
    fitted = _fit(delta, curvature)
    counts = {kind: no_counts() for kind in INDICATORS}
    ratio, energy = np.full(rows, np.nan), np.zeros(rows)
    moved = seen_dimensions = judged_dimensions = nonfinite = 0
    total_curvature = 0.0
    for first, end in blocks:
        square = np.square(delta[first:end].astype(np.float64))
        here = curvature[first:end]
        finite, seen = np.isfinite(square), here > 0
        square[~finite] = 0.0
        judged = seen & (square > 0)
        energy[first:end] = square.sum(axis=1)
        moved += int((square > 0).sum())
        nonfinite += int((~finite).sum())
        seen_dimensions += int(seen.sum())
        judged_dimensions += int(judged.sum())
        total_curvature += float(here.sum(dtype=np.float64))
        if fitted is None:
            continue
        log_square = np.log10(square[judged])
        log_curvature = np.log10(np.maximum(here[judged], fitted.floor).astype(np.float64))
        for kind in INDICATORS:
            logs = log_square - fitted.powers[kind] * log_curvature - np.log10(fitted.scales[kind])
            counts[kind] += count_ratios(logs)
            if kind == "fitted":
                ratio[first:end] = _row_means(judged, seen, 10.0**logs)
    fits: tuple[LawFit, ...] = ()
    if fitted is not None:
        fits = tuple(judge_law(kind, counts[kind], scale=fitted.scales[kind]) for kind in INDICATORS)
        for kind in INDICATORS:
            pooled.add(kind, counts[kind])
    size = max(1, rows * columns)
    return TensorCurvature(
        spec=spec,
        dimensions=rows * columns,
        moved=moved,
        seen=seen_dimensions,
        judged=judged_dimensions,
        nonfinite=nonfinite,
        mean_square=float(energy.sum()) / size,
        mean_curvature=total_curvature / size,
        exponent=fitted.powers["fitted"] if fitted is not None else None,
        fits=fits,
        row_ratio=ratio,
        row_energy=energy,
    )


def _fit(delta: F32, curvature: F32) -> _Fitted | None:
    """Fit to a sample of the rows that are seen at all; None where too few of its dimensions are judged."""
    rows = np.flatnonzero((curvature > 0).any(axis=1))
    columns = delta.shape[1]
    size = len(rows) * columns
    # A fixed seed: the same files give the same report.
    chosen = np.arange(size) if size <= SAMPLE else np.random.default_rng(0).integers(0, size, SAMPLE)
    row, column = rows[chosen // columns] if columns else rows, chosen % max(1, columns)
    square = np.square(delta[row, column].astype(np.float64))
    curved = curvature[row, column].astype(np.float64)
    seen = curved > 0
    judged = seen & np.isfinite(square) & (square > 0)
    if int(judged.sum()) < LEAST_JUDGED:
        return None
    floor = float(np.quantile(curved[seen], _FLOOR_SHARE))
    log_curvature, log_square = np.log(np.maximum(curved[judged], floor)), np.log(square[judged])
    gamma, scale = fit_exponent(log_curvature, log_square)
    scales: dict[Indicator, float] = {
        kind: float(np.exp(np.median(log_square - power * log_curvature))) / MEDIAN for kind, power in _POWERS.items()
    }
    return _Fitted(powers={"fitted": gamma, **_POWERS}, scales={"fitted": scale, **scales}, floor=floor)


def _row_means(judged: np.ndarray, seen: np.ndarray, ratios: F64) -> F64:
    """Mean of r/k over the seen dimensions of each row (0 where they did not move), NaN where fewer than half are."""
    whole = np.zeros(judged.shape)
    whole[judged] = ratios
    count = seen.sum(axis=1)
    enough = (2 * count >= judged.shape[1]) & (count > 0)
    return np.where(enough, whole.sum(axis=1) / np.maximum(count, 1), np.nan)
