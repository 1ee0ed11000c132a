"""The leading singular components of a matrix that is only ever seen in runs of rows.

Randomised subspace iteration (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1): a few passes over the rows,
memory of the order of (rows + columns) · rank, whatever the matrix.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from scanner.records import F64

PASSES: Final = 6
"""Power iterations: the error of a component falls with (σ_last / σ_k) to the power 2 · PASSES + 1."""
OVERSAMPLING: Final = 8

Panels = Callable[[], Iterator[tuple[int, F64]]]
"""Starts a new pass over the matrix: (first row, float64 ``[rows, cols]``), in order and without gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Leading singular triplets, largest first: ``left`` ``[rows, k]``, ``values`` ``[k]``, ``right`` ``[k, cols]``.

    ``energy`` is the squared Frobenius norm of the whole matrix.
    """

    left: F64
    values: F64
    right: F64
    energy: float

    def product(self, start: int, stop: int, count: int) -> F64:
        """The sum of the first ``count`` components in rows ``start`` (included) to ``stop`` (excluded)."""
        scaled: F64 = self.left[start:stop, :count] * self.values[:count]
        result: F64 = scaled @ self.right[:count]
        return result


def leading_components(panels: Panels, rows: int, columns: int, *, rank: int, seed: int) -> Components:
    """Return up to ``rank`` leading components.

    Args:
        panels: the matrix.
        rows: its height.
        columns: its width.
        rank: components wanted; fewer when a side is shorter.
        seed: of the first random subspace.
    """
    width = min(rank + OVERSAMPLING, rows, columns)
    basis: F64 = np.random.default_rng(seed).standard_normal((columns, width))
    for _ in range(PASSES):
        basis = _orthonormal(_from_left(panels, _orthonormal(_times(panels, rows, basis)), columns))
    left = _orthonormal(_times(panels, rows, basis))
    core = _from_left(panels, left, columns).T
    inner, values, right = np.linalg.svd(core, full_matrices=False)
    energy = sum(float(np.square(panel).sum()) for _, panel in panels())
    kept = min(rank, len(values))
    return Components(left=(left @ inner)[:, :kept], values=values[:kept], right=right[:kept], energy=energy)


def _times(panels: Panels, rows: int, right: F64) -> F64:
    """The matrix times ``[cols, k]``: ``[rows, k]``."""
    product: F64 = np.zeros((rows, right.shape[1]))
    for start, panel in panels():
        product[start : start + len(panel)] = panel @ right
    return product


def _from_left(panels: Panels, left: F64, columns: int) -> F64:
    """The transposed matrix times ``[rows, k]``: ``[cols, k]``."""
    product: F64 = np.zeros((columns, left.shape[1]))
    for start, panel in panels():
        product += panel.T @ left[start : start + len(panel)]
    return product


def _orthonormal(matrix: F64) -> F64:
    result: F64 = np.linalg.qr(matrix)[0]
    return result
