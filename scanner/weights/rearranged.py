"""Recipes for tensors that lie inside of others: some rows of a fused one, one expert of a stack, a turned one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.records import Rows, TensorMeta
from scanner.weights.derived import MAX_WHOLE_BYTES, Made
from scanner.weights.dtypes import item_bits, storage_dtype
from scanner.weights.source import Block, BlockRequest

SPANNED_WIDTH: Final = 8
"""Runs of fewer rows than this are read together with what lies between them."""

Take = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the rows of a part lie in a matrix.

    Row i of the part is row ``(i // width) · period + offset + i % width`` of the matrix; a ``width`` of 0 means that
    the part lies in one piece. For vectors, entries take the place of rows. ``turned`` says that the matrix is stored
    with its axes exchanged, ``expert`` which matrix of a stack is meant.
    """

    rows: int
    offset: int = 0
    width: int = 0
    period: int = 0
    turned: bool = False
    expert: int | None = None

    def of_expert(self, expert: int) -> "Place":
        """The same place in one matrix of a stack."""
        return replace(self, expert=expert)

    def runs(self, rows: Rows) -> list[Rows]:
        """Half-open runs of the matrix' rows that hold these rows of the part, in order."""
        first, last = rows
        if not self.width:
            return [(self.offset + first, self.offset + last)] if first < last else []
        found = []
        while first < last:
            end = min(last, (first // self.width + 1) * self.width)
            start = first // self.width * self.period + self.offset + first % self.width
            found.append((start, start + end - first))
            first = end
        return found

    def indices(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The matrix' row of each of these rows."""
        return np.array([index for run in self.runs(rows) for index in range(*run)], dtype=np.int64)


class Part:
    """Rows of a fused matrix or of one expert, or entries of a fused vector; see ``Recipe``."""

    def __init__(self, stored: TensorMeta, name: str, shape: tuple[int, ...], place: Place) -> None:
        """Plan one part.

        Args:
            stored: the tensor that it lies in: a vector, a matrix, or a stack of matrices.
            name: what the part is called.
            shape: of the part.
            place: where it lies.

        Raises:
            ValueError: the stored tensor must be read whole for it, and is too large for that.
        """
        self.meta = replace(stored, name=name, shape=shape)
        self._stored = stored
        self._place = place
        self._matrix = stored.shape[-2:] if place.expert is not None else stored.rows_cols
        self.whole: tuple[BlockRequest, ...] = ()
        if place.turned or len(stored.shape) < 2:
            rows = (0, stored.rows_cols[0]) if place.expert is None else (place.expert, place.expert + 1)
            bits = item_bits(stored.dtype) * self._matrix[0] * self._matrix[1]
            if bits // 8 > MAX_WHOLE_BYTES:
                raise ValueError(f"{stored.name} is too large to be turned")
            self.whole = (BlockRequest(name=stored.name, rows=rows),)
        elif place.expert is None and not place.width:
            self.meta = replace(self.meta, start=self._byte(place.offset), end=self._byte(place.offset + place.rows))

    def _byte(self, row: int) -> int:
        """Where a row begins in the file; for codes as near as can be told."""
        return self._stored.start + (self._stored.end - self._stored.start) * row // self._matrix[0]

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The runs of the fused tensor that hold these rows."""
        if self.whole:
            return ()
        runs = self._place.runs(rows)
        if 0 < self._place.width < SPANNED_WIDTH and runs:
            runs = [(runs[0][0], runs[-1][1])]
        if self._place.expert is None:
            return tuple(BlockRequest(name=self._stored.name, rows=run) for run in runs)
        expert, columns = (self._place.expert, self._place.expert + 1), self._matrix[1]
        return tuple(
            BlockRequest(name=self._stored.name, rows=expert, columns=(first * columns, last * columns))
            for first, last in runs
        )

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Pick the rows out of what was read."""
        if self.whole:
            return picked(whole[0], self._from_whole(rows))
        columns = self.meta.rows_cols[1]
        if not parts:
            return np.empty((0, columns), dtype=storage_dtype(self.meta.dtype)), None
        values = [block.values.reshape(-1, columns) for block in parts]
        if len(parts) > 1:
            return np.concatenate(values), None
        chosen = self._place.indices(rows)
        chosen = chosen - chosen[0]
        if len(chosen) == len(values[0]):
            return picked(parts[0], lambda stored: stored.reshape(-1, columns), whole_rows=self._place.expert is None)
        return picked(parts[0], lambda stored: stored.reshape(-1, columns)[chosen])

    def _from_whole(self, rows: Rows) -> Take:
        """What takes the rows out of the whole stored matrix, or the entries out of the whole vector."""
        if len(self._stored.shape) < 2:
            entries = self._place.indices((0, self._place.rows))
            return lambda stored: stored[:, entries]
        chosen = self._place.indices(rows)
        return lambda stored: stored.reshape(self._matrix).T[chosen]


def picked(block: Block, take: Take, *, whole_rows: bool = False) -> Made:
    """Take values out of a block, and their reach alike.

    Quantisers work within rows: other weights can be quantised again where ``whole_rows`` are kept as they are.
    """
    values = np.ascontiguousarray(take(block.values))
    if block.coding is None:
        return values, None
    reach = block.coding.reach
    return values, replace(block.coding, reach=lambda: take(reach()), again=block.coding.again if whole_rows else None)
