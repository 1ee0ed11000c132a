"""The residual of a delta against the separable null, from sums that one pass leaves behind.

``scanner.records.Residual`` defines ρᵢⱼ = δ²ᵢⱼ Σ / (rᵢ cⱼ), with rᵢ and cⱼ the row and column sums of δ² and Σ their
total. Column sums are known only at the end of the tensor, row sums at the end of each row. So the second look at a
row, while it is still in the cache, keeps per column

    Dⱼ = Σᵢ qᵢⱼ²  and  Mⱼ = maxᵢ qᵢⱼ,  with the share qᵢⱼ = δ²ᵢⱼ / rᵢ in [0, 1],

and at the end of the tensor, since ρᵢⱼ = qᵢⱼ Σ / cⱼ,

    mean ρ² = Σ² / n · Σⱼ Dⱼ / cⱼ²  and  maxᵢ ρᵢⱼ = Mⱼ Σ / cⱼ.

This is the null of the whole tensor, exact up to rounding, with no second read and no block ever kept.
"""

from typing import Final

import numpy as np

from scanner.drift.moments import ColumnSums
from scanner.records import F64, Residual

TOP: Final = 8
"""How many of the largest residuals are listed."""


def residual_of(row_energy: F64, columns: ColumnSums) -> Residual | None:
    """Finish the residual of a tensor.

    Args:
        row_energy: Σⱼ δ²ᵢⱼ, float64 ``[rows]``.
        columns: the column sums after the second look at every row.

    Returns:
        None where the null says nothing: a delta of zero, or fewer than two rows or columns.
    """
    energy = columns.energy
    total = float(row_energy.sum())
    moved = energy > 0
    count = int(np.count_nonzero(row_energy > 0)) * int(np.count_nonzero(moved))
    if min(row_energy.size, energy.size) < 2 or count == 0:
        return None
    ratio = total / energy[moved]
    peaks = columns.peak[moved].astype(np.float64) * ratio
    places = np.flatnonzero(moved)
    order = np.lexsort((places, -peaks))[:TOP]
    return Residual(
        mean_square=float((columns.excess[moved] * ratio**2).sum() / count),
        maximum=float(peaks[order[0]]),
        top=tuple((int(columns.peak_row[places[i]]), int(places[i]), float(peaks[i])) for i in order),
    )
