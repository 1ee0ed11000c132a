"""What casting the base to the candidate's dtype would change by itself: the floor under every delta."""

from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

_SIGNIFICAND_AND_EXPONENT_BITS: Final = {
    "F64": (53, 11),
    "F32": (24, 8),
    "BF16": (8, 8),
    "F16": (11, 5),
    "F8_E4M3": (4, 4),
    "F8_E4M3FNUZ": (4, 4),
    "F8_E5M2": (3, 5),
    "F8_E5M2FNUZ": (3, 5),
    "F8_E8M0": (1, 8),
}
"""Digits and range of each float, the significand with its hidden bit."""

_NARROW: Final[dict[str, Any]] = {
    "F32": np.float32,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def loses_precision(base: str, candidate: str) -> bool:
    """Whether some float of the base's dtype has no equal in the candidate's dtype; false for other kinds."""
    bits = _SIGNIFICAND_AND_EXPONENT_BITS
    if base not in bits or candidate not in bits:
        return False
    return bits[candidate][0] < bits[base][0] or bits[candidate][1] < bits[base][1]


def rounding_energy(base: npt.NDArray[Any], candidate: npt.NDArray[Any], dtype: str) -> float:
    """Sum (cast(b) − b)² over the elements that are finite in ``base``, in ``candidate`` and after the cast.

    Args:
        base: float32 or float64, any shape.
        candidate: the same shape; tells which elements are compared at all.
        dtype: the candidate's dtype as safetensors names it; the cast rounds to nearest, ties to even.

    Returns:
        Squared weight units.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        errors = base.astype(_NARROW[dtype]).astype(base.dtype)
        errors -= base
        energy = float(np.square(errors, dtype=np.float64).sum())
        if np.isfinite(energy) and np.isfinite(candidate).all():
            return energy
        kept = np.isfinite(errors) & np.isfinite(candidate)
        return float(np.square(errors[kept], dtype=np.float64).sum())
