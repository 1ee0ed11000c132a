"""What textbook nulls say of a delta: reported beside the measured error rates, never as a verdict.

Both nulls take the entries of a delta for independent and alike. Honest training does not make such deltas, so that
they reject nearly every honest tensor; that is what the numbers are here to show.
"""

from collections.abc import Iterable
from math import sqrt

from scanner.records import DriftFacts, TensorDrift

TRACY_WIDOM_99 = 2.02
"""The 99th percentile of the Tracy-Widom law of order 1 (Johnstone 2001)."""
_NORMAL_99 = 2.326


def theory_rejections(drift: DriftFacts) -> dict[str, float]:
    """Shares of the moved matrices that two textbook nulls reject at 1 %, in [0, 1]; 0 where nothing moved.

    ``spike``: the first singular value lies beyond the edge of independent noise (Johnstone 2001). ``rows``: the rows'
    energies differ by more than those of independent Gaussian entries (χ² of their relative squares, by its normal
    limit).
    """
    moved = [t for t in drift.tensors if len(t.spec.shape) == 2 and t.changed and t.delta_l2 > 0 and t.spectrum]
    return {"spike": _share(map(_spike, moved), len(moved)), "rows": _share(map(_uneven, moved), len(moved))}


def _share(rejected: Iterable[bool], count: int) -> float:
    return round(sum(rejected) / count, 3) if count else 0.0


def _spike(tensor: TensorDrift) -> bool:
    rows, columns = len(tensor.row_delta_sq), len(tensor.col_delta_sq)
    spectrum = tensor.spectrum
    if spectrum is None or min(rows, columns) < 2 or spectrum.energy <= 0:
        return False
    edge = sqrt(rows - 1) + sqrt(columns)
    spread = edge * (1 / sqrt(rows - 1) + 1 / sqrt(columns)) ** (1 / 3)
    bar: float = edge**2 + TRACY_WIDOM_99 * spread
    return spectrum.values[0] ** 2 * rows * columns / spectrum.energy > bar


def _uneven(tensor: TensorDrift) -> bool:
    rows, columns = len(tensor.row_delta_sq), len(tensor.col_delta_sq)
    mean = float(tensor.row_delta_sq.mean())
    if rows < 2 or columns < 1 or mean <= 0:
        return False
    chi_square = float((((tensor.row_delta_sq / mean) - 1.0) ** 2).sum()) * columns / 2
    return (chi_square - (rows - 1)) / sqrt(2 * (rows - 1)) > _NORMAL_99
