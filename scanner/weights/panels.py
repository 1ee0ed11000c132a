"""From a block request to a run of bytes, and from bytes to a block: what every weight source does alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.records import TensorMeta
from scanner.weights.dtypes import storage_dtype
from scanner.weights.source import Block, BlockRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A block request with the bytes that answer it.

    ``start`` and ``end`` are offsets in ``file`` (half-open, counted from its beginning). ``shape`` is the block's,
    ``storage`` the dtype of its elements.
    """

    request: BlockRequest
    dtype: str
    storage: np.dtype[Any]
    file: str
    start: int
    end: int
    shape: tuple[int, int]

    def block(self, values: npt.NDArray[Any]) -> Block:
        """The block made of these values, ``[rows, cols]``."""
        request = self.request
        return Block(name=request.name, rows=request.rows, dtype=self.dtype, values=values, columns=request.columns)

    def empty_block(self) -> Block:
        """The block of a request that covers no element."""
        return self.block(np.empty(self.shape, self.storage))


def locate_panel(table: Mapping[str, TensorMeta], request: BlockRequest) -> Panel:
    """Find the bytes of a request.

    Raises:
        KeyError: there is no such tensor.
        ValueError: rows or columns outside the tensor, or columns of more than one row.
    """
    meta = table[request.name]
    storage = storage_dtype(meta.dtype)
    rows, cols = meta.rows_cols
    first, last = request.rows
    left, right = request.columns or (0, cols)
    if not (0 <= first <= last <= rows and 0 <= left <= right <= cols):
        raise ValueError(f"{request} lies outside of {rows} rows and {cols} columns")
    if request.columns is not None and last - first > 1:
        raise ValueError(f"{request} asks for some columns of several rows")
    count = (last - first) * (right - left)
    start = meta.start + (first * cols + left) * storage.itemsize
    return Panel(
        request=request,
        dtype=meta.dtype,
        storage=storage,
        file=meta.file,
        start=start,
        end=start + count * storage.itemsize,
        shape=(last - first, right - left),
    )


def view_values(buffer: Any, panel: Panel, offset: int) -> npt.NDArray[Any]:
    """See a buffer as the panel's values, ``[rows, cols]``, without a copy where the addresses allow it.

    Some writers do not align their tensors; such values are copied, since compiled loops want aligned ones.

    Args:
        buffer: anything with the buffer protocol.
        panel: what the bytes are.
        offset: where in the buffer they begin, in bytes.
    """
    count = panel.shape[0] * panel.shape[1]
    values = np.frombuffer(buffer, panel.storage, count, offset).reshape(panel.shape)
    return values if values.flags.aligned else values.copy()
