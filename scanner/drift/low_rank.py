"""Deltas of low rank: the exact spectrum of a product of two thin factors, and the rank of a delta that was rounded."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from scanner.drift.spectrum import largest_entries, whole_vector
from scanner.records import F64, Factors, Spectrum

KEPT: Final = 64
"""Most singular values that are kept of a product."""
_NOTHING: Final = 1e-9
"""Share of the largest singular value below which a direction of a product is rounding."""
_COMPARED: Final = 256
"""Most directions of a factor that are compared with each other."""


def product_spectrum(up: F64, down: F64, scale: float, *, writer: bool = False) -> Spectrum | None:
    """The singular values of ``scale · up @ down`` through its core, without the product itself.

    With ``up = Q₁R₁`` and ``downᵀ = Q₂R₂`` the product is ``Q₁ (R₁R₂ᵀ) Q₂ᵀ``, whose singular values are those of
    the ``r × r`` core: O((m + n) r²) in place of O(m n r).

    Args:
        up: float64 ``[m, r]``.
        down: float64 ``[r, n]``.
        scale: the factor in front.
        writer: keep the first singular vectors whole.

    Returns:
        None for a product that is zero or not finite.
    """
    if not (np.isfinite(up).all() and np.isfinite(down).all() and np.isfinite(scale)):
        return None
    with np.errstate(all="ignore"):
        left, left_core = np.linalg.qr(up)
        right, right_core = np.linalg.qr(down.T)
        core = scale * (left_core @ right_core.T)
        if not np.isfinite(core).all():
            return None
        inner, values, outer = np.linalg.svd(core)
        energy = float(np.square(values).sum())
    if not (np.isfinite(energy) and energy > 0):
        return None
    first, second = left @ inner[:, 0], right @ outer[0]
    sign = float(np.sign(second[np.argmax(np.abs(second))]))
    kept = values[values > _NOTHING * values[0]][:KEPT]
    return Spectrum(
        values=tuple(float(value) for value in kept),
        energy=energy,
        exact=True,
        left_top=largest_entries(first * sign),
        right_top=largest_entries(second * sign),
        left=whole_vector(first * sign, wanted=writer),
        right=whole_vector(second * sign, wanted=writer),
        factors=_factors(up, down),
    )


def _factors(up: F64, down: F64) -> Factors:
    down_overlap, down_pairs = overlap(down)
    up_overlap, up_pairs = overlap(up.T)
    return Factors(down_overlap=down_overlap, down_pairs=down_pairs, up_overlap=up_overlap, up_pairs=up_pairs)


def overlap(vectors: F64) -> tuple[float, int]:
    """n·Σcos² over the pairs of rows of a finite matrix, float64 ``[k, n]``, and how many pairs there are.

    For directions drawn at random each n·cos² is about chi-squared with one degree of freedom; rows of zeros are left
    out, and so are those beyond the first 256 of a factor that is as long as a stranger likes.
    """
    vectors = vectors[:_COMPARED]
    largest = np.abs(vectors).max(axis=1, initial=0.0)  # squares of the smallest numbers would vanish
    scaled = vectors[largest > 0] / largest[largest > 0, None]
    units = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    first, second = np.triu_indices(len(units), 1)
    cosines = (units @ units.T)[first, second]
    return float(vectors.shape[1] * np.square(cosines).sum()), len(first)


def exact_rank(
    values: Sequence[float],
    energy: float,
    *,
    noise_energy: float,
    least_share: float,
    shape: tuple[int, int] | None = None,
) -> int | None:
    """How many directions hold everything that rounding does not explain.

    The numeric rank of a merged adapter is full, since storing base plus delta rounds every entry. What is left after
    the adapter's own directions is that rounding and no more, so the rank is the smallest k with
    ``energy − Σᵢ≤k σᵢ² ≤ max(noise_energy, (1 − least_share) · energy)``. With a ``shape`` of m × n the noise that k
    directions take with them is left out, ``noise_energy · (1 − k/m)(1 − k/n)``, and both terms are added: a full-rank
    change whose tail lies below the rounding would else pass for one of low rank.

    Args:
        values: the leading singular values of the delta, largest first, in weight units.
        energy: ‖Δ‖²_F.
        noise_energy: the square of the norm that rounding would leave (``TensorDrift.rounding_floor`` squared).
        least_share: share of the energy, in (0, 1], that the directions must hold whatever the noise is said to be.
        shape: rows and columns of the delta, where all of its singular values are given.

    Returns:
        None when the given values do not hold enough (full rank, or a rank beyond their number); 0 when rounding
        explains the whole delta.
    """
    if not energy > 0 or energy <= noise_energy:
        return 0
    free = (1.0 - least_share) * energy
    rest = energy
    for rank, value in enumerate(values, start=1):
        rest -= value * value
        if shape is None:
            allowed = max(noise_energy, free)
        else:
            allowed = noise_energy * (1.0 - rank / shape[0]) * (1.0 - rank / shape[1]) + free
        if rest <= allowed:
            return rank
    return None
