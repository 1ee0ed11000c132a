"""Intervals against their definitions and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.purify.intervals import paired_difference, rate


def test_exact_intervals() -> None:
    """0 of n has the upper bound 1 − 0.025^(1/n); the rest from the beta distribution's definition."""
    assert rate(0, 10).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert rate(10, 10).low == pytest.approx(0.025 ** (1 / 10))
    assert (rate(0, 10).low, rate(10, 10).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        rate(1, 0)


def test_without_correlation_it_is_the_difference_of_two_wilson_intervals() -> None:
    """Twenty of forty against ten of forty, independent: Wilson's limits combined as squares (Newcombe's eq. for φ = 0)."""
    found = paired_difference(5, 15, 5, 15)
    first, second = (0.5, *_wilson(0.5, 40)), (0.25, *_wilson(0.25, 40))
    low = 0.25 - ((first[0] - first[1]) ** 2 + (second[2] - second[0]) ** 2) ** 0.5
    high = 0.25 + ((second[0] - second[1]) ** 2 + (first[2] - first[0]) ** 2) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.25, low, high))


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Where |p − q| = 1.96 · √(q (1 − q) / n), solved for q as a quadratic."""
    z = 1.959964
    roots = np.roots([1 + z * z / n, -(2 * p + z * z / n), p * p])
    return float(min(roots)), float(max(roots))


@settings(max_examples=100, deadline=None)
@given(cells=st.tuples(*[st.integers(0, 50)] * 4).filter(lambda cells: sum(cells) > 0))
def test_paired_differences_are_intervals_and_antisymmetric(cells: tuple[int, int, int, int]) -> None:
    both, first, second, neither = cells
    found = paired_difference(both, first, second, neither)
    mirrored = paired_difference(both, second, first, neither)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_coverage_is_about_what_is_claimed() -> None:
    generator = np.random.default_rng(1)
    shares = [0.3, 0.25, 0.05, 0.4]
    draws = generator.multinomial(80, shares, size=1500)
    inside = [f.low <= 0.2 <= f.high for f in (paired_difference(*map(int, draw)) for draw in draws)]
    assert 0.93 < np.mean(inside) < 0.975
