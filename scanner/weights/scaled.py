"""Weights stored one code per element with a grid of scales: 8-bit floats and integers.

Covers ``weight_scale_inv`` with blocks (DeepSeek and transformers' fine-grained FP8), ``weight_scale`` per tensor,
channel, group or block (FBGEMM, compressed-tensors) and the ``SCB`` of bitsandbytes' LLM.int8().
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.errors import CorruptWeights
from scanner.paths import shown
from scanner.records import F32, Rows, TensorMeta
from scanner.weights.derived import Made
from scanner.weights.dtypes import decode
from scanner.weights.source import Block, BlockRequest, Coding

INT8_DIVISOR: Final = 127.0
"""LLM.int8() stores the largest absolute value of each row in SCB, not the scale."""
_E8M0_BIAS: Final = 127
_DEFAULT_BLOCK: Final = (128, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a grid of scales covers a matrix: each entry a block of ``rows`` by ``cols`` elements."""

    rows: int
    cols: int


def grid_of(weight: TensorMeta, scale: TensorMeta, block: tuple[int, int] | None = None) -> Grid | None:
    """The blocks that a scale tensor stands for; None when its shape does not fit the weight's.

    Args:
        weight: two axes.
        scale: no axis, or one or two; a single entry covers everything, one per row a row.
        block: what the configuration says; it decides where the last block is incomplete.
    """
    rows, cols = weight.rows_cols
    if scale.count == 1:
        return Grid(rows=rows, cols=cols)
    if len(scale.shape) == 1:
        return Grid(rows=1, cols=cols) if scale.shape[0] == rows else None
    if len(scale.shape) != 2 or 0 in scale.shape:
        return None
    for high, wide in ((rows / scale.shape[0], cols / scale.shape[1]), block or _DEFAULT_BLOCK, _DEFAULT_BLOCK):
        if high >= 1 and wide >= 1 and high == int(high) and wide == int(wide):
            grid = Grid(rows=int(high), cols=int(wide))
            if (-(-rows // grid.rows), -(-cols // grid.cols)) == scale.shape:
                return grid
    return None


def spread(grid_values: F32, grid: Grid, rows: Rows, cols: int) -> F32:
    """Repeat the entries of a grid over the elements of some rows, float32 ``[rows, cols]``."""
    lines = np.arange(rows[0], rows[1]) // grid.rows
    wide = np.repeat(grid_values[lines], grid.cols, axis=1)[:, :cols]
    return np.broadcast_to(wide, (len(lines), cols)) if grid.cols >= cols else wide


def scale_values(block: Block) -> F32:
    """The entries of a scale tensor as a matrix; bytes are powers of two (E8M0)."""
    values = block.values
    if block.dtype in ("U8", "F8_E8M0"):
        return np.exp2(values.astype(np.float32) - _E8M0_BIAS)
    return decode(values, block.dtype).astype(np.float32, copy=False)


class Scaled:
    """The recipe of a matrix of 8-bit codes and its scales."""

    def __init__(
        self,
        stored: TensorMeta,
        scale: TensorMeta,
        grid: Grid,
        *,
        scheme: str,
        divisor: float = 1.0,
        zero_point: TensorMeta | None = None,
        rescaled: bool = False,
    ) -> None:
        """Plan.

        Args:
            stored: the codes.
            scale: their scales.
            grid: how the scales lie.
            scheme: for people.
            divisor: of the scales.
            zero_point: of the same grid, in codes; none means 0.
            rescaled: whether columns may have been multiplied before.
        """
        self.meta = replace(stored, dtype="F32", scheme=scheme)
        self._stored = stored
        self._grid = grid
        self._divisor = divisor
        self._rescaled = rescaled
        tables = [scale] if zero_point is None else [scale, zero_point]
        self.whole = tuple(BlockRequest(name=meta.name, rows=(0, meta.rows_cols[0])) for meta in tables)
        self._by_row = len(scale.shape) == 1

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The codes of the same rows."""
        return (BlockRequest(name=self._stored.name, rows=rows),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """(code − zero point) · scale."""
        codes = decode(parts[0].values, self._stored.dtype).astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            scales = self._spread(scale_values(whole[0]), rows) / np.float32(self._divisor)
            if len(whole) > 1:
                codes = codes - self._spread(decode(whole[1].values, whole[1].dtype).astype(np.float32), rows)
            values = codes * scales
        steps = half_gaps(self._stored.dtype)
        raw = parts[0].values

        def reach() -> F32:
            found: F32 = np.abs(scales) * (steps[raw.view(np.uint8)] if steps is not None else np.float32(0.5))
            return found

        return values, Coding(reach=reach, rescaled=self._rescaled, nearest=not self._rescaled)

    def _spread(self, table: F32, rows: Rows) -> F32:
        return spread(table.reshape(-1, 1) if self._by_row else table, self._grid, rows, self.meta.rows_cols[1])


@cache
def half_gaps(dtype: str) -> F32 | None:
    """Half the distance from each code of an 8-bit float to its farther neighbour, float32 ``[256]``.

    None for integers, whose codes lie 1 apart.
    """
    if not dtype.startswith("F8"):
        return None
    codes = np.arange(256, dtype=np.uint8)
    values = decode(codes, dtype).astype(np.float64)
    finite = np.unique(values[np.isfinite(values)])
    gaps = np.diff(finite)
    farther = np.maximum(np.concatenate([[0], gaps]), np.concatenate([gaps, [0]])) / 2
    found: F32 = np.where(
        np.isfinite(values), farther[np.clip(np.searchsorted(finite, values), 0, len(finite) - 1)], np.nan
    ).astype(np.float32)
    return found


def require(fits: bool, what: str, why: str) -> None:
    """Refuse stored values that contradict themselves.

    Raises:
        CorruptWeights: they do.
    """
    if not fits:
        raise CorruptWeights(f"The quantised tensor {shown(what)} {why}; ask its author to publish it again.")


def small_ints(values: npt.NDArray[Any]) -> tuple[int, ...]:
    """The entries of a short integer tensor."""
    return tuple(int(value) for value in values.reshape(-1))
