"""GPTQ and AWQ checkpoints: integers packed into 32-bit words, with a scale and a zero point per group of inputs.

Both store a layer transposed, inputs by outputs; a layer's packed words are held in full while its rows are made.

GPTQ (AutoGPTQ, GPTQModel) packs along the inputs, least significant bits first and across word borders:
``weight[o, i] = scales[g_idx[i], o] · (q[i, o] − zero[g_idx[i], o])``, the zero points stored less 1 in the first
version of the format. AWQ's GEMM form packs eight outputs into a word, in the order 0 2 4 6 1 3 5 7.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.records import F32, Rows, TensorMeta
from scanner.weights.derived import Made
from scanner.weights.dtypes import decode
from scanner.weights.scaled import require
from scanner.weights.source import Block, BlockRequest, Coding

I32 = npt.NDArray[np.int32]

WORD_BITS: Final = 32
GPTQ_BITS: Final = frozenset({2, 3, 4, 8})
_AWQ_BITS: Final = 4
_AWQ_PLACE: Final = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""Nibble of the word that holds output 8k + i, by i."""


def unpack(words: npt.NDArray[Any], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """Cut rows of 32-bit words into numbers of ``bits`` bits, least significant first.

    Args:
        words: 32-bit integers ``[rows, words]``.
        bits: 1 to 8.
        count: numbers per row.

    Returns:
        uint8 ``[rows, count]``.
    """
    raw = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return raw[:, :count]
    if bits == 4:
        halves = np.stack([raw & 0xF, raw >> 4], axis=-1)
        return halves.reshape(raw.shape[0], -1)[:, :count]
    single = np.unpackbits(raw, axis=1, count=count * bits, bitorder="little").reshape(raw.shape[0], count, bits)
    return np.packbits(single, axis=-1, bitorder="little")[..., 0]


class Gptq:
    """The recipe of one layer of a GPTQ checkpoint."""

    def __init__(
        self,
        name: str,
        qweight: TensorMeta,
        qzeros: TensorMeta,
        scales: TensorMeta,
        g_idx: TensorMeta | None,
        *,
        bits: int,
        inputs: int,
        zero_offset: int,
    ) -> None:
        """Plan; see ``scanner.weights.quantised`` for how the shapes are checked."""
        outputs = scales.shape[1]
        self._bits = bits
        self._inputs = inputs
        self._zero_offset = zero_offset
        self.meta = TensorMeta(
            name=name,
            dtype="F32",
            shape=(outputs, inputs),
            file=qweight.file,
            start=qweight.start,
            end=qweight.end,
            scheme=f"GPTQ {bits}-bit",
        )
        parts = [qweight, qzeros, scales] + ([g_idx] if g_idx is not None else [])
        self.whole = tuple(BlockRequest(name=meta.name, rows=(0, meta.rows_cols[0])) for meta in parts)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """Nothing beyond the layer's own tensors."""
        del rows
        return ()

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """The weights of some outputs."""
        del parts
        qweight, qzeros, scales = (block.values for block in whole[:3])
        outputs = slice(rows[0], rows[1])
        codes = unpack(qweight[:, outputs].T, self._bits, self._inputs)
        zeros = unpack(qzeros, self._bits, self.meta.shape[0])[:, outputs].astype(np.int16) + self._zero_offset
        groups = len(scales)
        if len(whole) > 3:
            index = whole[3].values.reshape(-1)
            require(bool(((index >= -groups) & (index < groups)).all()), self.meta.name, "sorts inputs into no group")
        else:
            index = np.arange(self._inputs) // -(-self._inputs // groups)
        return from_groups(codes, zeros.T, decode(scales, whole[2].dtype).astype(np.float32)[:, outputs].T, index)


class Awq:
    """The recipe of one layer of an AWQ checkpoint in the GEMM form."""

    def __init__(self, name: str, qweight: TensorMeta, qzeros: TensorMeta, scales: TensorMeta) -> None:
        """Plan; see ``scanner.weights.quantised`` for how the shapes are checked."""
        self.meta = TensorMeta(
            name=name,
            dtype="F32",
            shape=(scales.shape[1], qweight.shape[0]),
            file=qweight.file,
            start=qweight.start,
            end=qweight.end,
            scheme=f"AWQ {_AWQ_BITS}-bit",
        )
        self.whole = tuple(
            BlockRequest(name=meta.name, rows=(0, meta.rows_cols[0])) for meta in (qweight, qzeros, scales)
        )

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """Nothing beyond the layer's own tensors."""
        del rows
        return ()

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """The weights of some outputs."""
        del parts
        qweight, qzeros, scales = (block.values for block in whole)
        inputs, groups = len(qweight), len(scales)
        found = decode(scales, whole[2].dtype).astype(np.float32)[:, rows[0] : rows[1]].T
        index = np.arange(inputs) // (inputs // groups)
        values, coding = from_groups(_awq(qweight, rows).T, _awq(qzeros, rows).astype(np.int16).T, found, index)
        return values, Coding(reach=coding.reach, rescaled=True)


def from_groups(
    codes: npt.NDArray[np.uint8], zeros: npt.NDArray[np.int16], scales: F32, index: npt.NDArray[Any]
) -> tuple[F32, Coding]:
    """(code − zero) · scale, and half a scale of reach.

    Args:
        codes: ``[rows, cols]``.
        zeros: ``[rows, groups]``.
        scales: ``[rows, groups]``.
        index: the group of each column.
    """
    steps = scales[:, index]
    with np.errstate(all="ignore"):
        values: F32 = (codes.astype(np.float32) - zeros[:, index]) * steps
    return values, Coding(reach=lambda: np.abs(steps) * np.float32(0.5))


def _awq(words: npt.NDArray[Any], rows: Rows) -> npt.NDArray[np.uint8]:
    """Outputs ``rows`` of words of eight, uint8 ``[len(words), rows]``."""
    per_word = WORD_BITS // _AWQ_BITS
    first = rows[0] // per_word
    nibbles = unpack(words[:, first : -(-rows[1] // per_word)], _AWQ_BITS, per_word * (-(-rows[1] // per_word) - first))
    ordered = nibbles.reshape(len(words), -1, per_word)[:, :, _AWQ_PLACE].reshape(len(words), -1)
    return ordered[:, rows[0] - first * per_word : rows[1] - first * per_word]
