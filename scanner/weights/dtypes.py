"""The element types of the safetensors format: how they lie in a file and which numbers they stand for.

A **storage** dtype is the NumPy dtype of the bytes as they lie in the file (little endian): unsigned integers of the
same width where NumPy has no such float, or where reading the bits as a float first would alter a signalling NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from scanner.records import F32, F64

Kind = Literal["float", "integer", "boolean", "complex"]

_BF16_SHIFT_BITS = 16  # bfloat16 is the upper half of a float32
_CODES_8_BITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One element type.

    ``bits`` is the width of one element. ``storage`` is None when several elements share a byte; such tensors
    cannot be cut into rows of whole elements and are not read.
    """

    bits: int
    kind: Kind
    storage: np.dtype[Any] | None


def _float(bits: int, storage: str | None) -> ElementType:
    return ElementType(bits=bits, kind="float", storage=np.dtype(storage) if storage else None)


def _plain(kind: Kind, storage: str) -> ElementType:
    dtype = np.dtype(storage)
    return ElementType(bits=dtype.itemsize * 8, kind=kind, storage=dtype)


ELEMENT_TYPES: Mapping[str, ElementType] = MappingProxyType(
    {
        "F64": _float(64, "<f8"),
        "F32": _float(32, "<f4"),
        "F16": _float(16, "<u2"),
        "BF16": _float(16, "<u2"),
        "F8_E4M3": _float(8, "u1"),
        "F8_E4M3FNUZ": _float(8, "u1"),
        "F8_E5M2": _float(8, "u1"),
        "F8_E5M2FNUZ": _float(8, "u1"),
        "F8_E8M0": _float(8, "u1"),
        "F6_E2M3": _float(6, None),
        "F6_E3M2": _float(6, None),
        "F4": _float(4, None),
        # Not NumPy's bool: a stranger's byte may hold 2, which a NumPy bool must never do.
        "BOOL": _plain("boolean", "u1"),
        "U8": _plain("integer", "u1"),
        "I8": _plain("integer", "i1"),
        "U16": _plain("integer", "<u2"),
        "I16": _plain("integer", "<i2"),
        "U32": _plain("integer", "<u4"),
        "I32": _plain("integer", "<i4"),
        "U64": _plain("integer", "<u8"),
        "I64": _plain("integer", "<i8"),
        "C64": _plain("complex", "<c8"),
    }
)
"""Every element type of safetensors 0.8 by its name in the header."""

_EIGHT_BIT_FLOATS: Mapping[str, Any] = MappingProxyType(
    {
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }
)

_EXACT_IN_FLOAT64_ONLY = frozenset({"F64", "I32", "U32"})
_EXACT_IN_FLOAT32 = frozenset({"F32", "I8", "U8", "I16", "U16"})


def item_bits(dtype: str) -> int:
    """Width of one element in bits.

    Raises:
        KeyError: the dtype is unknown.
    """
    return ELEMENT_TYPES[dtype].bits


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype in which the elements lie in the file.

    Raises:
        KeyError: the dtype is unknown, or several of its elements share a byte.
    """
    storage = ELEMENT_TYPES[dtype].storage
    if storage is None:
        raise KeyError(dtype)
    return storage


def is_readable(dtype: str) -> bool:
    """Whether tensors of this dtype can be cut into rows: the dtype is known and its elements fill whole bytes."""
    return dtype in ELEMENT_TYPES and ELEMENT_TYPES[dtype].storage is not None


def is_float(dtype: str) -> bool:
    """Whether the elements are real floats, so that differences between two tensors mean something.

    Everything else (integers, booleans, complex numbers, unknown types) can only be compared byte by byte.
    """
    return is_readable(dtype) and ELEMENT_TYPES[dtype].kind == "float"


def decode(values: npt.NDArray[Any], dtype: str) -> F32 | F64:
    """Turn storage values of any shape into the numbers they stand for, exactly.

    Args:
        values: array of ``storage_dtype(dtype)``.
        dtype: safetensors name.

    Returns:
        float64 for F64, I32 and U32, float32 for everything else, in the shape of ``values``. A fresh array, except
        for F32 and F64, which come back as they are. Infinities and NaN stay what they are (a NaN's payload may
        gain the quiet bit). Booleans are 0 and 1; any non-zero byte is 1.

    Raises:
        ValueError: the numbers have no exact float64 form (I64, U64, C64), or the dtype cannot be read.
    """
    if dtype in _EIGHT_BIT_FLOATS:
        looked_up: F32 = _eight_bit_values(dtype)[values]
        return looked_up
    if dtype in _EXACT_IN_FLOAT32:
        return values.astype(np.float32, copy=False)
    if dtype in _EXACT_IN_FLOAT64_ONLY:
        return values.astype(np.float64, copy=False)
    if dtype == "BF16":
        wide = values.astype(np.uint32)
        wide <<= _BF16_SHIFT_BITS
        upper_halves: F32 = wide.view(np.float32)
        return upper_halves
    if dtype == "F16":
        halves: F32 = values.view(np.float16).astype(np.float32)
        return halves
    if dtype == "BOOL":
        truths: F32 = np.not_equal(values, 0).astype(np.float32)
        return truths
    raise ValueError(f"{dtype} has no exact form as a float; compare its bytes instead")


@cache
def _eight_bit_values(dtype: str) -> F32:
    """float32 ``[256]``: the number behind each code of an 8-bit float."""
    codes = np.arange(_CODES_8_BITS, dtype=np.uint8)
    table: F32 = codes.view(_EIGHT_BIT_FLOATS[dtype]).astype(np.float32)
    table.flags.writeable = False
    return table
