"""Leading singular values of a delta, in one pass over its rows and in memory that does not grow with it.

Small matrices (a short side of at most ``EXACT_SIDE`` and at most ``EXACT_ELEMENTS`` elements) are kept whole in
float32; their singular values are the square roots of the eigenvalues of the Gram matrix of the short side, in float64.

Larger ones are sketched. With Ω a Gaussian ``[cols, WIDTH]`` matrix, the pass keeps S = ΔΩ, row by row, and
Y = ΔᵀS, a sum over rows. S spans the range that the randomized range finder looks for (Halko, Martinsson & Tropp
2011, algorithm 4.1), and Y already holds the projection that their algorithm 5.1 reads the matrix again for: with
SᵀS = VΛVᵀ and Q = SVΛ^(-1/2), which has orthonormal columns, QᵀΔ = Λ^(-1/2)VᵀYᵀ. (QᵀΔ)ᵀ(QᵀΔ) is the
Nyström approximation of ΔᵀΔ from its sketch ΔᵀΔΩ (Tropp, Yurtsever, Udell & Cevher 2017, equation 1).

Values of a sketch are those of a projection: never too large, and too small by little when the spectrum decays.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from scanner.drift import kernels
from scanner.drift.panels import kernel_panels, work_dtype
from scanner.records import F32, F64, PairSpec, Spectrum
from scanner.weights.source import Block

RANK: Final = 8
"""How many singular values are kept."""
TOP: Final = 8
"""How many entries of the first singular vectors are listed."""
EXACT_SIDE: Final = 512
"""Longest short side that is solved exactly; an eigenproblem of 512 takes 25 ms, one of 1,024 already 200 ms."""
EXACT_ELEMENTS: Final = 1 << 24
"""Most elements that are kept whole (64 MiB of float32)."""
WIDTH: Final = 32
"""Columns of the sketch: four times ``RANK``."""
SKETCH_BYTES: Final = 128 << 20
"""Most memory for a sketch; larger tensors (fused experts) get no spectrum."""
PANEL_ELEMENTS: Final = 1 << 20
"""Elements of the delta that exist as float32 at a time (4 MiB)."""

_SMALLEST_SHARE: Final = 1e-8
"""Directions of S below this share of its largest eigenvalue are noise of float32 and left out."""

Entries = tuple[tuple[int, float], ...]


def has_spectrum(spec: PairSpec) -> bool:
    """Whether the spectrum of a pair can be computed in bounded memory; vectors have none."""
    rows, columns = _shape(spec)
    if min(rows, columns) < 2:
        return False
    return _is_exact(rows, columns) or 4 * WIDTH * (rows + 3 * columns) <= SKETCH_BYTES


class DeltaSpectrum:
    """Takes in the delta of one pair and finishes with its spectrum. ``has_spectrum`` must hold."""

    def __init__(self, spec: PairSpec, *, seed: int = 0) -> None:
        """Prepare for a pair.

        Args:
            spec: the pair.
            seed: of the Gaussian test matrix; the same seed gives the same values.
        """
        rows, columns = _shape(spec)
        self._spec = spec
        self._method: _Exact | _Sketch
        self._method = _Exact(rows, columns) if _is_exact(rows, columns) else _Sketch(rows, columns, seed)
        self._number = work_dtype(spec.base.dtype, spec.candidate.dtype)
        self._scale = 0.0
        """Factor on the delta: float32 sums of squares of squares would underflow for small updates."""

    def fold(self, base: Block, candidate: Block, energy: float) -> None:
        """Add a block pair; rows may come in any blocks, but each element once.

        Args:
            base: rows of the base.
            candidate: the same rows.
            energy: Σδ² of the block, which spares blocks without change.
        """
        if not energy > 0:
            return
        rows, columns = candidate.values.shape
        self._scale = self._scale or float(np.sqrt(rows * columns / energy))
        scale = self._number(self._scale)
        first = candidate.rows[0] - self._spec.rows[0]
        step = max(1, PANEL_ELEMENTS // columns)
        for start, left, right in kernel_panels(base, candidate, 0, rows):
            for above in range(0, left.shape[0], step):
                below = min(above + step, left.shape[0])
                delta: F32 = np.empty((below - above, columns), np.float32)
                kernels.write_delta(left[above:below], right[above:below], scale, delta)
                self._method.add(first + start + above, delta)

    def finish(self, energy: float) -> Spectrum | None:
        """Compute the spectrum of all that was folded.

        Args:
            energy: ‖Δ‖²_F in squared weight units.

        Returns:
            None for a delta of zero, or one whose range no float32 holds.
        """
        if not self._scale or not energy > 0:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            values, left, right = self._method.solve()
        if not (np.isfinite(values).all() and np.isfinite(left).all() and np.isfinite(right).all()):
            return None
        sign = np.sign(right[np.argmax(np.abs(right))]) or 1.0
        return Spectrum(
            values=tuple(float(value) for value in values[:RANK] / self._scale),
            energy=energy,
            exact=isinstance(self._method, _Exact),
            left_top=_largest(left * sign),
            right_top=_largest(right * sign),
        )


Solution = tuple[F64, F64, F64]
"""Singular values, largest first; the first left and the first right singular vector."""


class _Exact:
    """Keeps the whole delta."""

    def __init__(self, rows: int, columns: int) -> None:
        self._delta: F32 = np.zeros((rows, columns), np.float32)

    def add(self, row: int, delta: F32) -> None:
        self._delta[row : row + delta.shape[0]] = delta

    def solve(self) -> Solution:
        tall = self._delta.shape[0] >= self._delta.shape[1]
        matrix = self._delta if tall else self._delta.T
        gram = np.zeros((matrix.shape[1],) * 2)
        step = max(1, PANEL_ELEMENTS // matrix.shape[1])
        for start in range(0, matrix.shape[0], step):
            part = matrix[start : start + step].astype(np.float64)
            gram += part.T @ part
        if not np.isfinite(gram).all():
            return (np.array([np.nan]),) * 3
        eigenvalues, vectors = np.linalg.eigh(gram)
        short: F64 = vectors[:, -1]
        long = _unit((matrix @ short.astype(np.float32)).astype(np.float64))
        values = np.sqrt(np.maximum(eigenvalues[::-1], 0.0))
        return (values, long, short) if tall else (values, short, long)


class _Sketch:
    """Keeps S = ΔΩ and Y = ΔᵀS."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self._omega = _test_matrix(columns, seed)
        self._range: F32 = np.zeros((rows, WIDTH), np.float32)
        self._projected: F64 = np.zeros((columns, WIDTH))

    def add(self, row: int, delta: F32) -> None:
        part = delta @ self._omega
        self._range[row : row + delta.shape[0]] = part
        self._projected += delta.T @ part

    def solve(self) -> Solution:
        gram = self._range.T.astype(np.float64) @ self._range
        if not (np.isfinite(gram).all() and np.isfinite(self._projected).all()):
            return (np.array([np.nan]),) * 3
        eigenvalues, vectors = np.linalg.eigh(gram)
        kept = eigenvalues > _SMALLEST_SHARE * eigenvalues[-1]
        basis = vectors[:, kept] / np.sqrt(eigenvalues[kept])  # Q = S · basis
        projection = self._projected @ basis  # (QᵀΔ)ᵀ
        energies, turned = np.linalg.eigh(projection.T @ projection)
        first = turned[:, -1]
        values = np.sqrt(np.maximum(energies[::-1], 0.0))
        return values, _unit(self._range @ (basis @ first)), _unit(projection @ first)


@lru_cache(maxsize=4)
def _test_matrix(columns: int, seed: int) -> F32:
    """Gaussian float32 ``[columns, WIDTH]``; models have few widths, and drawing takes longer than using."""
    omega = np.random.default_rng(seed).standard_normal((columns, WIDTH), np.float32)
    omega.flags.writeable = False
    return omega


def _shape(spec: PairSpec) -> tuple[int, int]:
    return spec.rows[1] - spec.rows[0], spec.candidate.rows_cols[1]


def _is_exact(rows: int, columns: int) -> bool:
    return min(rows, columns) <= EXACT_SIDE and rows * columns <= EXACT_ELEMENTS


def _unit(vector: F64) -> F64:
    return vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)


def _largest(vector: npt.NDArray[np.float64]) -> Entries:
    """The entries of largest magnitude as (index, value); of equals the first."""
    order = np.lexsort((np.arange(vector.size), -np.abs(vector)))[:TOP]
    return tuple((int(i), float(vector[i])) for i in order)
