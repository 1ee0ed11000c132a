"""The moments of one pair of tensors, folded block by block in any sizes, on one thread or several."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.drift import kernels
from scanner.drift.panels import kernel_panels, work_dtype
from scanner.drift.rounding import loses_precision, rounding_energy
from scanner.drift.workers import Workers
from scanner.records import F64, PairSpec
from scanner.weights.source import Block

MAX_COLUMNS: Final = 1 << 20
"""Tensors with more columns (fused experts) keep row sums only: column sums would outweigh the panels."""
PIECE_COLUMNS: Final = 1 << 16
"""Pieces in which such long rows are folded."""
SHARED_ELEMENTS: Final = 1 << 19
"""Smallest block, in elements, that is worth handing to several threads."""
SHARED_COLUMNS: Final = 1 << 17
"""Most columns for which each thread has column sums of its own (44 bytes a column)."""


class ColumnSums:
    """What one thread accumulates per column; see ``kernels.fold_panel``."""

    def __init__(self, columns: int, dtype: type[Any]) -> None:
        self.energy: F64 = np.zeros(columns)
        self.excess: F64 = np.zeros(columns)
        self.peak: npt.NDArray[Any] = np.zeros(columns, dtype)
        self.peak_row: npt.NDArray[np.int32] = np.zeros(columns, np.int32)
        self.work: npt.NDArray[Any] = np.empty((2, columns), dtype)
        self.rounding = 0.0

    def add(self, other: "ColumnSums") -> None:
        """Take in what another thread has seen; of equal peaks the one in the earlier row stays."""
        self.energy += other.energy
        self.excess += other.excess
        self.rounding += other.rounding
        earlier = (other.peak == self.peak) & (other.peak_row < self.peak_row)
        better = (other.peak > self.peak) | earlier
        self.peak[better] = other.peak[better]
        self.peak_row[better] = other.peak_row[better]


@dataclass(frozen=True, slots=True)
class _Share:
    """A thread's part of a block: rows ``start`` to ``end`` (excluded)."""

    columns: ColumnSums
    start: int
    end: int


class TensorMoments:
    """Row, column and cross moments of a pair, with what the residual needs.

    ``sums`` is float64 ``[7, rows]`` over the compared rows, indexed by ``kernels.ENERGY`` and its siblings.
    """

    def __init__(self, spec: PairSpec, workers: Workers, *, with_residual: bool) -> None:
        """Prepare for a pair.

        Args:
            spec: the pair.
            workers: who folds.
            with_residual: also take the second look.
        """
        columns = spec.candidate.rows_cols[1]
        self.narrow = columns <= MAX_COLUMNS
        """Whether column sums are kept."""
        self.sums: F64 = np.zeros((kernels.SUMS, spec.compared_rows))
        self._spec = spec
        self._workers = workers
        self.with_residual = with_residual and self.narrow
        """Whether the second look is taken."""
        self._rounds = loses_precision(spec.base.dtype, spec.candidate.dtype)
        self._width = columns if self.narrow else PIECE_COLUMNS
        self._dtype = work_dtype(spec.base.dtype, spec.candidate.dtype)
        self._states: list[ColumnSums] = []

    def fold(self, base: Block, candidate: Block) -> None:
        """Add a block pair; rows may come in any blocks, but each element once.

        Raises:
            ValueError: the blocks differ in shape, or a dtype has no exact form as a float.
        """
        if base.values.shape != candidate.values.shape:
            raise ValueError(f"blocks of {base.values.shape} and {candidate.values.shape} cannot be compared")
        first = self._spec.place_of(candidate.rows[0])
        if self.narrow:
            count = candidate.values.shape[0]
            self.sums[:, first : first + count] = self._fold_rows(base, candidate, first)
            return
        for row, left, right in _pieces(base, candidate):
            self.sums[:, first + row] += self._fold_rows(left, right, first).sum(axis=1)

    def columns(self) -> ColumnSums:
        """The column sums of all threads together; empty arrays for tensors of more than ``MAX_COLUMNS``."""
        merged = ColumnSums(self._width if self.narrow else 0, self._dtype)
        for state in self._states:
            if self.narrow:
                merged.add(state)
            else:
                merged.rounding += state.rounding
        return merged

    def _fold_rows(self, base: Block, candidate: Block, first_row: int) -> F64:
        """Fold rows, shared out between the threads; returns their sums, float64 ``[7, rows]``."""
        rows = candidate.values.shape[0]
        sums = np.zeros((kernels.SUMS, rows))

        def work(share: _Share) -> None:
            columns = share.columns
            for start, left, right in kernel_panels(base, candidate, share.start, share.end):
                part = np.zeros((kernels.SUMS, left.shape[0]))
                width = left.shape[1]
                kernels.fold_panel(
                    left,
                    right,
                    part,
                    columns.energy[:width],
                    columns.excess[:width],
                    columns.peak[:width],
                    columns.peak_row[:width],
                    columns.work if width == self._width else np.empty((2, width), self._dtype),
                    first_row + start,
                    self.with_residual,
                )
                sums[:, start : start + left.shape[0]] = part
                if self._rounds:
                    columns.rounding += rounding_energy(left, right, self._spec.candidate.dtype)

        self._workers.map(work, self._shares(rows, candidate.values.size))
        return sums

    def _shares(self, rows: int, elements: int) -> list[_Share]:
        """Cut rows into one contiguous share per thread, at strip boundaries."""
        threads = self._workers.count if elements >= SHARED_ELEMENTS and self._width <= SHARED_COLUMNS else 1
        strips = -(-rows // kernels.STRIP_ROWS)
        cuts = [min(rows, strips * i // threads * kernels.STRIP_ROWS) for i in range(threads + 1)]
        while len(self._states) < threads:
            self._states.append(ColumnSums(self._width, self._dtype))
        return [
            _Share(state, start, end)
            for state, start, end in zip(self._states, cuts[:-1], cuts[1:], strict=False)
            if start < end
        ]


def _pieces(base: Block, candidate: Block) -> Iterable[tuple[int, Block, Block]]:
    """Yield each row of a block pair as blocks of ``PIECE_COLUMNS`` columns and a last, shorter one."""
    for row in range(candidate.values.shape[0]):
        for left, right in zip(_folded(base, row), _folded(candidate, row), strict=True):
            yield row, left, right


def _folded(block: Block, row: int) -> Iterator[Block]:
    """One long row, folded into many short ones."""
    values = block.values[row]
    whole = values.size // PIECE_COLUMNS * PIECE_COLUMNS
    for part in (values[:whole].reshape(-1, PIECE_COLUMNS), values[whole:].reshape(1, -1)):
        if part.size:
            yield Block(name=block.name, rows=(0, part.shape[0]), dtype=block.dtype, values=part)
