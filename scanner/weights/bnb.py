"""4-bit weights of bitsandbytes: two codes to a byte, the first in the upper half, a largest value per block.

The largest values may themselves be stored in 8 bits (double quantisation): ``absmax = map[code] · nested_absmax +
offset``. The library computes with the code books of its kinds and pays no attention to a stored ``quant_map``
(bitsandbytes 0.45 and later), so the code books here are its own, and a file that stores another one is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from scanner.records import F32, Rows, TensorMeta
from scanner.weights.derived import Made
from scanner.weights.dtypes import decode
from scanner.weights.scaled import require
from scanner.weights.source import Block, BlockRequest, Coding

# fmt: off
_NF4: Final = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
_FP4_HALF: Final = (0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5,
                    0.1666666716337204, 0.25)
# fmt: on
CODE_BOOKS: Final[Mapping[str, F32]] = MappingProxyType(
    {
        "nf4": np.array(_NF4, np.float32),
        "fp4": np.array((*_FP4_HALF, *(-value for value in _FP4_HALF)), np.float32),
    }
)
"""The numbers behind the sixteen codes (QLoRA, Dettmers et al. 2023, appendix E; bitsandbytes ``functional``)."""
BOOK_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What ``quant_state`` says: the kind, elements per block, shape, and the double quantisation if any."""

    kind: str
    block: int
    shape: tuple[int, ...]
    nested_block: int | None
    offset: float


class FourBit:
    """The recipe of one matrix."""

    def __init__(self, stored: TensorMeta, absmax: TensorMeta, nested: tuple[TensorMeta, ...], state: State) -> None:
        """Plan.

        Args:
            stored: the bytes, ``[count / 2, 1]``.
            absmax: one entry per block.
            nested: ``nested_absmax`` and ``nested_quant_map``, or nothing.
            state: see ``State``.
        """
        self.meta = TensorMeta(
            name=stored.name,
            dtype="F32",
            shape=state.shape,
            file=stored.file,
            start=stored.start,
            end=stored.end,
            scheme=f"bitsandbytes {state.kind}",
        )
        self._stored = stored
        self._state = state
        self.whole = tuple(BlockRequest(name=m.name, rows=(0, m.rows_cols[0])) for m in (absmax, *nested))

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The bytes that hold the rows; both ends may share theirs with a neighbour."""
        first, end = (row * self.meta.rows_cols[1] for row in rows)
        start, stop = first // 2, -(-end // 2)
        if self._stored.rows_cols[0] == 1:
            return (BlockRequest(name=self._stored.name, rows=(0, 1), columns=(start, stop)),)
        return (BlockRequest(name=self._stored.name, rows=(start, stop)),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Number of the code · largest value of the block."""
        width = self.meta.rows_cols[1]
        first, end = rows[0] * width, rows[1] * width
        raw = parts[0].values.reshape(-1)
        codes = np.stack([raw >> 4, raw & 0xF], axis=-1).reshape(-1)[first % 2 :][: end - first]
        scales = self._scales(whole, first, end)
        book = CODE_BOOKS[self._state.kind]
        shape = rows[1] - rows[0], width
        with np.errstate(all="ignore"):
            values = (book[codes] * scales).reshape(shape)
        gaps = _half_gaps(book)
        return values, Coding(reach=lambda: (gaps[codes] * np.abs(scales)).reshape(shape), nearest=True)

    def _scales(self, whole: Sequence[Block], first: int, end: int) -> F32:
        """The largest value of each element's block, float32 ``[end - first]``."""
        blocks = np.arange(first, end) // self._state.block
        stored = whole[0].values.reshape(-1)
        if self._state.nested_block is None:
            plain: F32 = decode(stored, whole[0].dtype).astype(np.float32)[blocks]
            return plain
        nested, table = (decode(b.values, b.dtype).astype(np.float32).reshape(-1) for b in whole[1:3])
        require(stored.size <= nested.size * self._state.nested_block, self.meta.name, "lacks scales for its blocks")
        found = table[stored] * np.repeat(nested, self._state.nested_block)[: stored.size]
        found = (found + np.float32(self._state.offset)).astype(np.float32)
        scales: F32 = found[blocks]
        return scales


def _half_gaps(book: F32) -> F32:
    """Half the distance from each number of a book to its farther neighbour."""
    rising = np.unique(book)
    gaps = np.diff(rising)
    farther = np.maximum(np.concatenate([[0], gaps]), np.concatenate([gaps, [0]])) / 2
    found: F32 = farther[np.searchsorted(rising, book)].astype(np.float32)
    return found
