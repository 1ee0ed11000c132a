"""compressed-tensors' packed forms: integers of a few bits in 32-bit words, and 4-bit floats two to a byte.

``pack-quantized``: ``weight_packed`` ``[rows, words]`` along the inputs with the sign offset 2^(bits − 1),
``weight_scale`` ``[rows, groups]``, optional ``weight_zero_point`` packed along the rows, optional ``weight_g_idx``.
``nvfp4-pack-quantized`` and ``mxfp4-pack-quantized``: E2M1 codes, the first in the lower half of a byte, with a scale
per 16 (an 8-bit float over a global scale) or per 32 inputs (a power of two).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from scanner.records import F32, Rows, TensorMeta
from scanner.weights.derived import Made
from scanner.weights.dtypes import decode
from scanner.weights.gptq import unpack
from scanner.weights.scaled import Grid, require, scale_values, spread
from scanner.weights.source import Block, BlockRequest, Coding

E2M1: Final[F32] = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The numbers behind the sixteen codes (OCP Microscaling Formats 1.0, section 5.3.3)."""
_E2M1_HALF_GAPS: Final[F32] = np.array([0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 1, 1] * 2, np.float32)


class Packed:
    """The recipe of a matrix of packed integers."""

    def __init__(
        self,
        name: str,
        packed: TensorMeta,
        scale: TensorMeta,
        grid: Grid,
        *,
        bits: int,
        shape: tuple[int, int],
        zero_point: TensorMeta | None = None,
        g_idx: TensorMeta | None = None,
    ) -> None:
        """Plan; see ``scanner.weights.quantised`` for how the shapes are checked."""
        self._packed = packed
        self._grid = grid
        self._bits = bits
        self._zero = zero_point is not None
        self._sorted = g_idx is not None
        self.meta = TensorMeta(
            name=name,
            dtype="F32",
            shape=shape,
            file=packed.file,
            start=packed.start,
            end=packed.end,
            scheme=f"compressed-tensors {bits}-bit",
        )
        tables = [meta for meta in (scale, zero_point, g_idx) if meta is not None]
        self.whole = tuple(BlockRequest(name=meta.name, rows=(0, meta.rows_cols[0])) for meta in tables)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The words of the same rows."""
        return (BlockRequest(name=self._packed.name, rows=rows),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """(code − zero point) · scale."""
        middle = 1 << (self._bits - 1)
        cols = self.meta.shape[1]
        codes = unpack(parts[0].values, self._bits, cols).astype(np.float32)
        codes -= np.float32(middle)
        scales = self._spread(scale_values(whole[0]), whole, rows)
        if self._zero:
            height = self.meta.shape[0]
            zeros = unpack(whole[1].values.T, self._bits, height).T.astype(np.float32) - np.float32(middle)
            codes -= self._spread(zeros, whole, rows)
        with np.errstate(all="ignore"):
            values: F32 = codes * scales
        return values, Coding(reach=lambda: np.abs(scales) * np.float32(0.5), rescaled=True)

    def _spread(self, table: F32, whole: Sequence[Block], rows: Rows) -> F32:
        """The entries of a table of groups over the elements of some rows."""
        if not self._sorted:
            return spread(table, self._grid, rows, self.meta.shape[1])
        index = whole[-1].values.reshape(-1)
        inside = bool(((index >= 0) & (index < table.shape[1])).all())
        require(inside, self.meta.name, "sorts inputs into no group")
        lines = np.arange(rows[0], rows[1]) // self._grid.rows
        sorted_out: F32 = table[lines][:, index]
        return sorted_out


class FourBitFloat:
    """The recipe of a matrix of E2M1 codes."""

    whole: tuple[BlockRequest, ...]

    def __init__(self, name: str, packed: TensorMeta, scale: TensorMeta, divisor: TensorMeta | None) -> None:
        """Plan; ``divisor`` is the global scale by which the scales were multiplied when they were stored."""
        self._packed = packed
        self._scale = scale
        rows, width = packed.rows_cols
        self._group = width * 2 // scale.rows_cols[1]
        self.meta = TensorMeta(
            name=name,
            dtype="F32",
            shape=(rows, width * 2),
            file=packed.file,
            start=packed.start,
            end=packed.end,
            scheme="NVFP4" if divisor is not None else "MXFP4",
        )
        self.whole = () if divisor is None else (BlockRequest(name=divisor.name, rows=(0, divisor.rows_cols[0])),)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """Codes and scales of the same rows."""
        return BlockRequest(name=self._packed.name, rows=rows), BlockRequest(name=self._scale.name, rows=rows)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Number of the code · scale."""
        raw = parts[0].values
        codes = np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(rows[1] - rows[0], -1)
        with np.errstate(all="ignore"):
            scales = scale_values(parts[1])
            if whole:
                scales = scales / decode(whole[0].values, whole[0].dtype).astype(np.float32).reshape(-1)[0]
            spread_out = np.repeat(scales, self._group, axis=1)
            values: F32 = E2M1[codes] * spread_out
        return values, Coding(reach=lambda: np.abs(spread_out) * _E2M1_HALF_GAPS[codes], rescaled=True)
