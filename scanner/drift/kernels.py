"""The fused loops of the diff: from raw base and candidate rows to sums, in one pass over memory.

The one place where speed decides the design. What shapes the loops, all measured by ``benchmarks/diff.py``:

- Values are widened in registers, so no float32 copy of a checkpoint ever exists. The NumPy dtype of both arrays,
  always the same one, says how: uint16 is bfloat16, **int16 is float16** (NumPy's own half type would hide the
  bits), float32 and float64 are themselves. ``scanner.drift.panels`` makes these views.
- A running integer count or maximum stops the first look from vectorising. The count of changed elements is
  therefore a sum of selected floats.
- Sums over a run of at most ``RUN_COLUMNS`` columns (rows), or of at most ``STRIP_ROWS`` rows (columns), are kept in
  the arithmetic of the storage (float64 for F64, float32 for all else) and then added in float64.
- Row order is kept: hopping between column tiles defeats the hardware's prefetching and halves the speed.
- NaN and Inf are found for free, because they make sums non-finite. A strip whose sums are not finite, or so small
  that squares may have been lost to underflow, is done again by the careful loops, in float64, which leave
  non-finite elements out and count them.

The residual against the separable null (``scanner.drift.residual``) needs the energy of a row before it can weigh
the row's elements. The second look therefore follows strip by strip, while the strip is still in the cache.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

STRIP_ROWS: Final = 32
"""Rows per strip at most: a strip is looked at twice, and its partial column sums are float32."""
STRIP_ELEMENTS: Final = 1 << 18
"""Elements per strip at most (of one side), so that both sides of a bf16 strip fit a 1 MiB second-level cache."""
RUN_COLUMNS: Final = 2048
"""Columns summed in float32 before the sum moves on in float64."""
WIDE_COLUMNS: Final = 4096
"""Beyond this many columns the partial column sums leave the first-level cache; two rows then share them."""
TILE_COLUMNS: Final = 2048
"""Columns of the second look's running sums and maxima that stay in the first-level cache together."""
TINY: Final = 1e-30
"""Sums of squares below this may have lost terms to float32 underflow (1e-38)."""
LARGEST: Final = 1e140
"""Magnitudes above this count as non-finite: their squares could not be summed in float64."""
HUGE: Final = LARGEST * LARGEST

ENERGY, BASE_SQ, DOT, CANDIDATE_SQ, CHANGED, NONFINITE, BASE_NONFINITE = range(7)
"""Rows of the ``sums`` array: Σδ², Σb², Σbδ, Σc², and counts of changed and non-finite elements."""
SUMS: Final = 7

_HALF_BITS: Final = 16

# Sums may be reassociated and multiplications fused, which vectorising needs; but never may the compiler assume
# that no NaN or Inf occurs, because that is how they are found.
_FAST_MATH = {"reassoc", "contract", "nsz"}


# Calls of an intrinsic name the arguments that its generator sees after the typing context.
_intrinsic: Any = intrinsic
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "fastmath": _FAST_MATH, "error_model": "numpy"}


def _inner(function: Callable[..., Any]) -> Any:
    """Compile as a part of the entry points below, which carry its machine code in their caches."""
    return njit(**_OPTIONS)(function)


def _entry(function: Callable[..., Any]) -> Any:
    """Compile on first use, without the GIL; keep the machine code on disk where some cache folder is writable."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # a read-only installation without a home folder
        return njit(**_OPTIONS)(function)


@_intrinsic  # type: ignore[untyped-decorator]
def widen(_context: Any, value: Any) -> Any:
    """Turn one stored element into a float: bits of bfloat16 or float16 into float32, floats into themselves."""
    if value == types.uint16:

        def from_bfloat16(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(32)
            bits = builder.shl(builder.zext(arguments[0], word), ir.Constant(word, _HALF_BITS))
            return builder.bitcast(bits, ir.FloatType())

        return types.float32(value), from_bfloat16
    if value == types.int16:

        def from_float16(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

        return types.float32(value), from_float16

    def itself(_target: Any, _builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return value(value), itself


@_inner
def _first_look(base: Any, candidate: Any, columns: Any, sums: Any, row: int) -> None:
    """Add one run of one row to its ``sums[:, row]`` and to the partial column sums."""
    zero = columns.dtype.type(0)
    one = columns.dtype.type(1)
    energy = base_sq = dot = candidate_sq = changed = zero
    for j in range(base.shape[0]):
        b = widen(base[j])
        c = widen(candidate[j])
        d = c - b
        square = d * d
        energy += square
        base_sq += b * b
        dot += b * d
        candidate_sq += c * c
        changed += one if d != zero else zero
        columns[j] += square
    sums[ENERGY, row] += energy
    sums[BASE_SQ, row] += base_sq
    sums[DOT, row] += dot
    sums[CANDIDATE_SQ, row] += candidate_sq
    sums[CHANGED, row] += changed


@_inner
def _first_look_at_two(
    base_1: Any, base_2: Any, candidate_1: Any, candidate_2: Any, columns: Any, sums: Any, row: int
) -> None:
    """The same for two neighbouring rows at once, which halves the traffic of the column sums."""
    zero = columns.dtype.type(0)
    one = columns.dtype.type(1)
    energy = base_sq = dot = candidate_sq = changed = zero
    energy_2 = base_sq_2 = dot_2 = candidate_sq_2 = changed_2 = zero
    for j in range(base_1.shape[0]):
        b = widen(base_1[j])
        c = widen(candidate_1[j])
        d = c - b
        square = d * d
        energy += square
        base_sq += b * b
        dot += b * d
        candidate_sq += c * c
        changed += one if d != zero else zero
        b = widen(base_2[j])
        c = widen(candidate_2[j])
        d = c - b
        square_2 = d * d
        energy_2 += square_2
        base_sq_2 += b * b
        dot_2 += b * d
        candidate_sq_2 += c * c
        changed_2 += one if d != zero else zero
        columns[j] += square + square_2
    sums[ENERGY, row] += energy
    sums[BASE_SQ, row] += base_sq
    sums[DOT, row] += dot
    sums[CANDIDATE_SQ, row] += candidate_sq
    sums[CHANGED, row] += changed
    sums[ENERGY, row + 1] += energy_2
    sums[BASE_SQ, row + 1] += base_sq_2
    sums[DOT, row + 1] += dot_2
    sums[CANDIDATE_SQ, row + 1] += candidate_sq_2
    sums[CHANGED, row + 1] += changed_2


@_inner
def _careful_look(base: Any, candidate: Any, columns: Any, sums: Any, row: int) -> None:
    """The first look at a whole row in float64; elements that are non-finite on either side are left out."""
    zero = np.float64(0)
    energy = base_sq = dot = candidate_sq = changed = nonfinite = base_nonfinite = 0.0
    for j in range(base.shape[0]):
        b = np.float64(widen(base[j]))
        c = np.float64(widen(candidate[j]))
        base_kept = 1.0 if abs(b) <= LARGEST else 0.0
        candidate_kept = 1.0 if abs(c) <= LARGEST else 0.0
        kept = base_kept * candidate_kept
        b = b if kept > 0.0 else zero
        c = c if kept > 0.0 else zero
        d = c - b
        energy += d * d
        base_sq += b * b
        dot += b * d
        candidate_sq += c * c
        changed += 1.0 if d != 0.0 else 0.0
        nonfinite += 1.0 - candidate_kept
        base_nonfinite += 1.0 - base_kept
        columns[j] += d * d
    sums[ENERGY, row] = energy
    sums[BASE_SQ, row] = base_sq
    sums[DOT, row] = dot
    sums[CANDIDATE_SQ, row] = candidate_sq
    sums[CHANGED, row] = changed
    sums[NONFINITE, row] = nonfinite
    sums[BASE_NONFINITE, row] = base_nonfinite


@_inner
def _second_look(base: Any, candidate: Any, weight: Any, excess: Any, peak: Any, peak_row: Any, row: Any) -> None:
    """Add q² of one run of a row to ``excess`` and keep each column's largest q, where q = δ² · weight."""
    for j in range(base.shape[0]):
        d = widen(candidate[j]) - widen(base[j])
        share = d * d * weight
        excess[j] += share * share
        best = peak[j]
        higher = share > best
        peak[j] = share if higher else best
        peak_row[j] = row if higher else peak_row[j]


@_inner
def _careful_second_look(
    base: Any, candidate: Any, energy: float, excess: Any, peak: Any, peak_row: Any, row: int
) -> None:
    """The second look at a whole row in float64, non-finite elements left out."""
    if energy <= 0.0:
        return
    weight = 1.0 / energy
    for j in range(base.shape[0]):
        b = np.float64(widen(base[j]))
        c = np.float64(widen(candidate[j]))
        if abs(b) <= LARGEST and abs(c) <= LARGEST:
            share = (c - b) * (c - b) * weight
            excess[j] += share * share
            if share > peak[j]:
                peak[j] = share
                peak_row[j] = row


@_inner
def _doubtful(sums: Any, row: int) -> bool:
    """Whether the fast sums of a row may be wrong: not finite, or small enough to have underflown."""
    size = sums[BASE_SQ, row] + sums[CANDIDATE_SQ, row] + sums[ENERGY, row]
    if not size < HUGE:
        return True
    if sums[BASE_SQ, row] < TINY or sums[CANDIDATE_SQ, row] < TINY:
        return True
    return bool(sums[CHANGED, row] > 0.0 and sums[ENERGY, row] < TINY)


@_inner
def _look_at_strip(base: Any, candidate: Any, sums: Any, partial: Any, start: int, end: int) -> bool:
    """First look at rows ``start`` to ``end`` (excluded); true when the strip has to be done carefully."""
    columns = base.shape[1]
    i = start
    while i < end:
        together = 2 if columns > WIDE_COLUMNS and i + 1 < end else 1
        for left in range(0, columns, RUN_COLUMNS):
            right = min(left + RUN_COLUMNS, columns)
            if together == 2:
                _first_look_at_two(
                    base[i, left:right],
                    base[i + 1, left:right],
                    candidate[i, left:right],
                    candidate[i + 1, left:right],
                    partial[left:right],
                    sums,
                    i,
                )
            else:
                _first_look(base[i, left:right], candidate[i, left:right], partial[left:right], sums, i)
        i += together
    doubtful = False
    for row in range(start, end):
        doubtful = doubtful or _doubtful(sums, row)
    return doubtful


@_inner
def _look_at_strip_again(
    base: Any,
    candidate: Any,
    sums: Any,
    excess: Any,
    peak: Any,
    peak_row: Any,
    first_row: int,
    start: int,
    end: int,
) -> None:
    """Second look at rows ``start`` to ``end`` (excluded), which are in the cache: here tiles of columns pay."""
    number = excess.dtype.type
    columns = base.shape[1]
    for left in range(0, columns, TILE_COLUMNS):
        right = min(left + TILE_COLUMNS, columns)
        for i in range(start, end):
            if sums[ENERGY, i] > 0.0:
                _second_look(
                    base[i, left:right],
                    candidate[i, left:right],
                    number(1.0 / sums[ENERGY, i]),
                    excess[left:right],
                    peak[left:right],
                    peak_row[left:right],
                    np.int32(first_row + i),
                )


@_entry
def fold_panel(
    base: Any,
    candidate: Any,
    sums: Any,
    columns: Any,
    excess: Any,
    peak: Any,
    peak_row: Any,
    work: Any,
    first_row: int,
    with_residual: bool,
) -> None:
    """Fold a panel of rows into the moments of its tensor.

    Args:
        base: ``[rows, cols]`` in kernel form (see the module), C-contiguous and aligned.
        candidate: the same shape and storage.
        sums: float64 ``[7, rows]``, zero on entry; receives the sums of each row.
        columns: float64 ``[cols]``; Σᵢ δ² is added.
        excess: float64 ``[cols]``; Σᵢ (δ²ᵢⱼ / rᵢ)² is added, with rᵢ = Σⱼ δ²ᵢⱼ.
        peak: ``[cols]`` in the dtype of ``work``; the largest δ²ᵢⱼ / rᵢ so far.
        peak_row: int32 ``[cols]``; the row of ``peak``, counted from the beginning of the tensor.
        work: ``[2, cols]``, float64 for F64 and float32 for all else; overwritten.
        first_row: index of the panel's first row within the tensor.
        with_residual: take the second look; else ``excess``, ``peak`` and ``peak_row`` stay as they are.
    """
    rows, width = base.shape
    number = work.dtype.type
    strip = max(1, min(STRIP_ROWS, STRIP_ELEMENTS // max(1, width)))
    for start in range(0, rows, strip):
        end = min(start + strip, rows)
        work[:] = number(0)
        careful = _look_at_strip(base, candidate, sums, work[0], start, end)
        if careful:
            for i in range(start, end):
                _careful_look(base[i], candidate[i], columns, sums, i)
        else:
            for j in range(width):
                columns[j] += work[0, j]
        if not with_residual:
            continue
        if careful:
            for i in range(start, end):
                _careful_second_look(base[i], candidate[i], sums[ENERGY, i], excess, peak, peak_row, first_row + i)
        else:
            _look_at_strip_again(base, candidate, sums, work[1], peak, peak_row, first_row, start, end)
            for j in range(width):
                excess[j] += work[1, j]


@_entry
def write_delta(base: Any, candidate: Any, scale: float, delta: Any) -> None:
    """Write ``scale`` · (candidate − base) as float32 into ``delta``; elements non-finite on either side become 0.

    Args:
        base: ``[rows, cols]`` in kernel form, like ``candidate``.
        candidate: the same shape.
        scale: factor that brings the delta near 1; float64 for F64 and float32 for all else.
        delta: float32 ``[rows, cols]``; overwritten. Differences too large for float32 become Inf.
    """
    zero = np.float32(0)
    for i in range(base.shape[0]):
        base_row = base[i]
        candidate_row = candidate[i]
        out = delta[i]
        for j in range(base_row.shape[0]):
            b = widen(base_row[j])
            c = widen(candidate_row[j])
            kept = (abs(b) <= LARGEST) & (abs(c) <= LARGEST)
            out[j] = np.float32((c - b) * scale) if kept else zero
