"""Leading singular values of a delta, in one pass over its rows and in bounded memory.

Small matrices (a short side of at most ``EXACT_SIDE`` and at most ``EXACT_ELEMENTS`` elements) are kept whole in
float32; their singular values are the square roots of the eigenvalues of the Gram matrix of the short side, summed
in float64: exact to 10⁻⁶ of the first value. Larger ones are sketched; ``scanner.drift.sketch`` says how accurate
that is. ``Spectrum.exact`` tells the two apart.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from scanner.drift import kernels
from scanner.drift.heading import RowHeading
from scanner.drift.panels import kernel_panels, work_dtype
from scanner.drift.sketch import Sketch, Solution, sketch_bytes
from scanner.drift.workers import Workers
from scanner.records import F32, PairSpec, Spectrum
from scanner.weights.source import Block

RANK: Final = 8
"""How many singular values are kept."""
TOP: Final = 8
"""How many entries of the first singular vectors are listed."""
EXACT_SIDE: Final = 512
"""Longest short side that is solved exactly; an eigenproblem of 512 takes 25 ms, one of 1,024 already 200 ms."""
EXACT_ELEMENTS: Final = 1 << 24
"""Most elements that are kept whole (64 MiB of float32)."""
SKETCH_BYTES: Final = 128 << 20
"""Most memory for a sketch; tensors that need more (a million rows or columns) get no spectrum."""
WRITTEN_ELEMENTS: Final = 1 << 18
"""Elements of the delta that are written as float32 at a time (1 MiB)."""
GRAM_ELEMENTS: Final = 1 << 20
"""Elements that are widened to float64 at a time for the Gram matrix (8 MiB)."""

VECTOR_ELEMENTS: Final = 1 << 16
"""Most entries of a singular vector that is kept whole (256 KiB)."""
WRITERS: Final = ("attention_output", "mlp_out")
"""Roles that write to the residual stream."""
TABLES: Final = ("embedding", "unembedding")

Entries = tuple[tuple[int, float], ...]


def has_spectrum(spec: PairSpec) -> bool:
    """Whether the spectrum of a pair can be computed in bounded memory; vectors have none."""
    rows, columns = _shape(spec)
    if min(rows, columns) < 2:
        return False
    return _is_exact(rows, columns) or sketch_bytes(rows, columns) <= SKETCH_BYTES


class DeltaSpectrum:
    """Takes in the delta of one pair and finishes with its spectrum. ``has_spectrum`` must hold."""

    def __init__(self, spec: PairSpec, workers: Workers, *, seed: int = 0) -> None:
        """Prepare for a pair.

        Args:
            spec: the pair.
            workers: who multiplies.
            seed: of a sketch's Gaussian test directions; the same seed gives the same values.
        """
        rows, columns = _shape(spec)
        self._role = spec.role
        self._heading = RowHeading(columns, seed=seed) if spec.role in TABLES else None
        self._method = (
            _Whole(rows, columns, workers) if _is_exact(rows, columns) else Sketch(rows, columns, workers, seed=seed)
        )
        self._number = work_dtype(spec.base.dtype, spec.candidate.dtype)
        self._scale = 0.0
        """Factor on the delta: squares of small updates would underflow in float32."""
        self._waiting = 0
        """Rows without change that came before the first one with some."""

    def fold(self, base: Block, candidate: Block, energy: float) -> None:
        """Add a block pair; rows come in order, each once.

        Args:
            base: whole rows of the base.
            candidate: the same rows.
            energy: Σδ² of the block.
        """
        rows, columns = candidate.values.shape
        if not self._scale and not energy > 0:
            self._waiting += rows
            return
        if not self._scale:
            self._scale = float(np.sqrt(rows * columns / energy))
            self._add_zeros(columns)
        scale = self._number(self._scale)
        step = max(1, WRITTEN_ELEMENTS // columns)
        for _, left, right in kernel_panels(base, candidate, 0, rows):
            for above in range(0, left.shape[0], step):
                below = min(above + step, left.shape[0])
                delta: F32 = np.empty((below - above, columns), np.float32)
                kernels.write_delta(left[above:below], right[above:below], scale, delta)
                self._method.add(delta)
                if self._heading is not None:
                    self._heading.add(delta)

    def row_heading(self) -> npt.NDArray[np.float16] | None:
        """Where the rows went, as ``TensorDrift.row_heading`` says; None for other tensors than token tables."""
        return self._heading.finish() if self._heading is not None and self._scale else None

    def finish(self, energy: float) -> Spectrum | None:
        """Compute the spectrum of all that was folded.

        Args:
            energy: ‖Δ‖²_F in squared weight units.

        Returns:
            None for a delta of zero, or one whose range no float32 holds.
        """
        if not self._scale or not energy > 0:
            return None
        solution = self._method.solve()
        if solution is None:
            return None
        values, left, right = solution
        sign = float(np.sign(right[np.argmax(np.abs(right))]))
        return Spectrum(
            values=tuple(float(value) for value in values[:RANK] / self._scale),
            energy=energy,
            exact=isinstance(self._method, _Whole),
            left_top=largest_entries(left * sign),
            right_top=largest_entries(right * sign),
            left=whole_vector(left * sign, wanted=self._role in WRITERS),
            right=whole_vector(right * sign, wanted=self._role in WRITERS + TABLES),
        )

    def _add_zeros(self, columns: int) -> None:
        step = max(1, WRITTEN_ELEMENTS // columns)
        for start in range(0, self._waiting, step):
            zeros: F32 = np.zeros((min(step, self._waiting - start), columns), np.float32)
            self._method.add(zeros)
            if self._heading is not None:
                self._heading.add(zeros)


class _Whole:
    """Keeps the whole delta."""

    def __init__(self, rows: int, columns: int, workers: Workers) -> None:
        self._workers = workers
        self._delta: F32 = np.zeros((rows, columns), np.float32)
        self._filled = 0

    def add(self, delta: F32) -> None:
        """Add the next rows."""
        self._delta[self._filled : self._filled + delta.shape[0]] = delta
        self._filled += delta.shape[0]

    def solve(self) -> Solution | None:
        """Finish; None when the Gram matrix is not finite."""
        tall = self._delta.shape[0] >= self._delta.shape[1]
        matrix = self._delta if tall else self._delta.T
        gram = np.zeros((matrix.shape[1],) * 2)
        step = max(1, GRAM_ELEMENTS // matrix.shape[1])
        for start in range(0, matrix.shape[0], step):
            part = matrix[start : start + step].astype(np.float64)
            gram += self._workers.product(part.T, part)
        if not np.isfinite(gram).all():
            return None
        energies, vectors = np.linalg.eigh(gram)
        values = np.sqrt(np.maximum(energies[::-1], 0.0))
        short = vectors[:, -1]
        long = (matrix @ short.astype(np.float32)).astype(np.float64)
        long /= max(float(np.linalg.norm(long)), np.finfo(np.float64).tiny)
        return (values, long, short) if tall else (values, short, long)


def _shape(spec: PairSpec) -> tuple[int, int]:
    return spec.compared_rows, spec.candidate.rows_cols[1]


def _is_exact(rows: int, columns: int) -> bool:
    return min(rows, columns) <= EXACT_SIDE and rows * columns <= EXACT_ELEMENTS


def whole_vector(vector: npt.NDArray[np.float64], *, wanted: bool) -> F32 | None:
    """The vector as it is kept; None when it is not wanted or too long."""
    return vector.astype(np.float32) if wanted and vector.size <= VECTOR_ELEMENTS else None


def largest_entries(vector: npt.NDArray[np.float64]) -> Entries:
    """The entries of largest magnitude as (index, value); of equals the first."""
    order = np.lexsort((np.arange(vector.size), -np.abs(vector)))[:TOP]
    return tuple((int(i), float(vector[i])) for i in order)
