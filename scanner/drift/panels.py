"""Two blocks made ready for the kernels: the same storage on both sides, aligned and contiguous."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.weights.dtypes import decode
from scanner.weights.source import Block

DECODED_ELEMENTS: Final = 1 << 18
"""Elements per side that are decoded at a time where the kernels cannot read the storage (1 MiB of float32)."""

_KERNEL_STORAGE: Final = {"BF16": np.uint16, "F16": np.int16, "F32": np.float32, "F64": np.float64}

Panel = tuple[int, npt.NDArray[Any], npt.NDArray[Any]]
"""First row within the block, base, candidate."""


def work_dtype(base: str, candidate: str) -> type[np.float32] | type[np.float64]:
    """The dtype in which the kernels compute a pair of these dtypes: float64 as soon as float32 would lose digits."""
    exact_in_float64_only = {"F64", "I32", "U32"}
    return np.float64 if {base, candidate} & exact_in_float64_only else np.float32


def kernel_panels(base: Block, candidate: Block, start: int, end: int) -> Iterator[Panel]:
    """Yield rows ``start`` to ``end`` (excluded, counted within the blocks) in the form that the kernels read.

    Sides that share a storage the kernels know are views, one panel for all rows. Everything else (mixed dtypes,
    8-bit floats) is decoded a few rows at a time.

    Raises:
        ValueError: a dtype has no exact form as a float.
    """
    if base.dtype == candidate.dtype and base.dtype in _KERNEL_STORAGE:
        storage = _KERNEL_STORAGE[base.dtype]
        left, right = (_readable(block.values[start:end], storage) for block in (base, candidate))
        if left.shape != right.shape:  # compiled loops check no bounds
            raise ValueError(f"{base.dtype} comes as {base.values.dtype} and as {candidate.values.dtype}")
        yield start, left, right
        return
    number = work_dtype(base.dtype, candidate.dtype)
    step = max(1, DECODED_ELEMENTS // max(1, base.values.shape[1]))
    for first in range(start, end, step):
        last = min(first + step, end)
        yield (
            first,
            _readable(decode(base.values[first:last], base.dtype).astype(number, copy=False), number),
            _readable(decode(candidate.values[first:last], candidate.dtype).astype(number, copy=False), number),
        )


def _readable(values: npt.NDArray[Any], storage: type[Any]) -> npt.NDArray[Any]:
    """The values as a read-only, aligned, C-contiguous array, so that each storage has one compiled form."""
    ready: npt.NDArray[Any] = np.require(values, requirements=["C", "A"]).view(storage)
    ready.flags.writeable = False
    return ready
