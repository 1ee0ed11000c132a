"""95 % intervals of rates and of the difference of two rates on the same samples."""

import math
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.95
_Z: Final = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``count`` of ``n``: the share, and its two-sided 95 % interval (both ends included), all in [0, 1]."""

    count: int
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One rate less another on the same samples, in [−1, 1], with its 95 % interval."""

    value: float
    low: float
    high: float


def rate(count: int, n: int) -> Rate:
    """Return a share with its exact interval (Clopper & Pearson 1934).

    Raises:
        ValueError: not 0 ≤ count ≤ n with n > 0.
    """
    if not 0 <= count <= n or n == 0:
        raise ValueError(f"{count} of {n} is no share")
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, n - count)) if count < n else 1.0
    return Rate(count=count, n=n, value=count / n, low=low, high=high)


def paired_difference(both: int, first: int, second: int, neither: int) -> Difference:
    """Return p₁ − p₂ of two yes-or-no outcomes on the same samples (Newcombe 1998, method 10).

    Args:
        both: samples with both outcomes.
        first: samples with the first alone.
        second: samples with the second alone.
        neither: the rest.
    """
    n = both + first + second + neither
    p1, p2 = (both + first) / n, (both + second) / n
    (l1, u1), (l2, u2) = _wilson(p1, n), _wilson(p2, n)
    phi = _correlation(both, first, second, neither)
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    value = p1 - p2
    return Difference(
        value=value,
        low=max(-1.0, value - math.sqrt(max(below, 0.0))),
        high=min(1.0, value + math.sqrt(max(above, 0.0))),
    )


def _wilson(p: float, n: int) -> tuple[float, float]:
    """The score interval (Wilson 1927)."""
    centre = p + _Z**2 / (2 * n)
    spread = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    scale = 1 + _Z**2 / n
    return (centre - spread) / scale, (centre + spread) / scale


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Newcombe's φ with its continuity correction; 0 when a margin is empty."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    n = both + first + second + neither
    product = float(both * neither - first * second)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)
