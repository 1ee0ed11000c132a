"""The storage kinds of ggml: how large they are, what their codes stand for, and how far apart those lie.

Decoding and, where the rounding depends on nothing but the weights, encoding are the ``gguf`` package's own, which
follows ggml's reference implementation bit for bit. The distance between neighbouring codes is found with the decoder
itself: the codes of a block are overwritten and its scales kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

from scanner.records import F32
from scanner.weights.source import Coding

U8 = npt.NDArray[np.uint8]

PLAIN: Final[Mapping[str, str]] = MappingProxyType(
    {"F64": "F64", "F32": "F32", "F16": "F16", "BF16": "BF16", "I8": "I8", "I16": "I16", "I32": "I32", "I64": "I64"}
)
"""Kinds that are stored element by element, with the name of their dtype in safetensors."""

SIZES: Final[Mapping[int, tuple[str, int, int]]] = MappingProxyType(
    {int(kind): (kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()}
)
"""Number of a storage kind → its name, the elements of a block and the bytes of a block."""

REPRODUCIBLE: Final = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
"""Kinds whose reference encoder looks at nothing but the block, so that its result can be had again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codes:
    """Where the codes of a block lie, and how a ladder of them is written.

    ``bytes`` are half-open runs within the block; ``cleared`` is set to 0 in all of them; ``low`` is the run that
    holds the lowest bits and ``step`` the byte that raises every code by one. ``count`` is the number of codes when
    they are unevenly spaced (a codebook), else 0.
    """

    cleared: tuple[tuple[int, int], ...]
    low: tuple[int, int]
    step: int
    count: int = 0


_CODES: Final[Mapping[str, _Codes]] = MappingProxyType(
    {
        "Q4_0": _Codes(cleared=(), low=(2, 18), step=0x11),
        "Q4_1": _Codes(cleared=(), low=(4, 20), step=0x11),
        "Q5_0": _Codes(cleared=((2, 6),), low=(6, 22), step=0x11),
        "Q5_1": _Codes(cleared=((4, 8),), low=(8, 24), step=0x11),
        "Q8_0": _Codes(cleared=(), low=(2, 34), step=0x01),
        "Q2_K": _Codes(cleared=(), low=(16, 80), step=0x55),
        "Q3_K": _Codes(cleared=((0, 32),), low=(32, 96), step=0x55),
        "Q4_K": _Codes(cleared=(), low=(16, 144), step=0x11),
        "Q5_K": _Codes(cleared=((16, 48),), low=(48, 176), step=0x11),
        "Q6_K": _Codes(cleared=((128, 192),), low=(0, 128), step=0x11),
        "IQ4_NL": _Codes(cleared=(), low=(2, 18), step=0x11, count=16),
        "IQ4_XS": _Codes(cleared=(), low=(8, 136), step=0x11, count=16),
        "MXFP4": _Codes(cleared=(), low=(1, 17), step=0x11, count=16),
    }
)
"""Kinds whose codes stand for single elements, after the block layouts of ggml (``ggml-common.h``). The others
(IQ1 to IQ3, the ternary ones) draw several elements from one codebook entry and have no such bound."""


def can_decode(kind: str) -> bool:
    """Whether the package turns this kind into numbers; plain kinds need no decoding."""
    number = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[number]
    try:
        dequantize(np.zeros((1, size), np.uint8), number)
    except (NotImplementedError, KeyError):
        return False
    return block > 1


def decode_rows(raw: U8, kind: str) -> F32:
    """Turn whole blocks, uint8 ``[rows, bytes per row]``, into the numbers they stand for, float32 ``[rows, cols]``.

    Scales that are not finite give values that are not finite; they are counted where weights are compared.
    """
    if not raw.size:
        return np.empty((raw.shape[0], _row_elements(raw, kind)), np.float32)
    with np.errstate(all="ignore"):
        values: F32 = dequantize(np.ascontiguousarray(raw), GGMLQuantizationType[kind])
    return values.astype(np.float32, copy=False)


def coding_of(raw: U8, kind: str, shape: tuple[int, int]) -> Coding | None:
    """What is known of the rounding of these blocks; None for kinds without codes of single elements.

    Args:
        raw: uint8 ``[ggml rows, bytes per row]``.
        kind: of storage.
        shape: in which the values are handed on; several ggml rows may make up one of its rows.
    """
    if kind not in _CODES:
        return None

    def again(weights: F32) -> F32:
        if not weights.size:
            return weights
        rows = weights.reshape(-1, _row_elements(raw, kind))
        return decode_rows(encode_rows(rows, kind), kind).reshape(weights.shape)

    return Coding(reach=lambda: _reach(raw, kind).reshape(shape), again=again if kind in REPRODUCIBLE else None)


def _row_elements(raw: U8, kind: str) -> int:
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(raw.shape[1] // size * block)


def encode_rows(weights: F32, kind: str) -> U8:
    """What ggml's reference makes of weights, float32 ``[rows, cols]``; only for ``REPRODUCIBLE`` kinds."""
    with np.errstate(all="ignore"):
        encoded: U8 = quantize(np.ascontiguousarray(weights, np.float32), GGMLQuantizationType[kind])
    return encoded


def _reach(raw: U8, kind: str) -> F32:
    """Half the distance to the farther neighbouring code, float32 ``[rows, cols]``."""
    codes = _CODES[kind]
    if not codes.count:
        with np.errstate(all="ignore"):
            gap = _with_codes(raw, kind, 1)
            gap -= _with_codes(raw, kind, 0)
            gap *= np.float32(0.5)
        distance: F32 = np.fabs(gap)
        return distance
    ladder = np.stack([_with_codes(raw, kind, number) for number in range(codes.count)])
    return reach_on_ladder(decode_rows(raw, kind), np.sort(ladder, axis=0))


def reach_on_ladder(values: F32, ladder: npt.NDArray[Any]) -> F32:
    """Half the distance from each value to the farther neighbour on its own ladder.

    Args:
        values: float32, any shape; each is one of its ladder's steps.
        ladder: ``[steps, *shape]`` (or broadcastable), rising.
    """
    with np.errstate(all="ignore"):
        gaps = np.diff(ladder, axis=0)
        none = np.zeros_like(gaps[:1])
        farther = np.maximum(np.concatenate([none, gaps]), np.concatenate([gaps, none]))
        reach = np.where(ladder == values, farther, 0).max(axis=0) * 0.5
    found: F32 = reach.astype(np.float32)
    return found


def _with_codes(raw: U8, kind: str, number: int) -> F32:
    """Decode with every code set to this number."""
    codes = _CODES[kind]
    _, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = np.ascontiguousarray(raw).reshape(-1, size).copy()
    for start, end in codes.cleared:
        blocks[:, start:end] = 0
    blocks[:, codes.low[0] : codes.low[1]] = codes.step * number & 0xFF
    return decode_rows(blocks.reshape(raw.shape), kind)
