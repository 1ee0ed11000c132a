"""Outliers against the tail of the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from audit.tail import log10_at_least, tail_evidence


@pytest.mark.parametrize("count", [1, 2, 5, 20])
@pytest.mark.parametrize("expected", [1e-12, 1e-3, 0.5, 1.0, 4.9, 19.0, 100.0])
def test_counts_follow_poisson(count: int, expected: float) -> None:
    truth = float(poisson.logsf(count - 1, expected)) / np.log(10)
    assert log10_at_least(count, expected) == pytest.approx(truth, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("count", "expected", "value"), [(0, 3.0, 0.0), (1, 0.0, -300.0), (3, 1e-290, -300.0)])
def test_the_ends_of_the_scale(count: int, expected: float, value: float) -> None:
    assert log10_at_least(count, expected) == value


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
@pytest.mark.parametrize("size", [250, 4000, 30_000])
def test_ordinary_samples_give_little_evidence(draw: str, size: int) -> None:
    rng = np.random.default_rng(3)
    seen = [tail_evidence(getattr(rng, draw)(size=size)).evidence for _ in range(40)]
    assert np.median(seen) < 1.0
    assert np.quantile(seen, 0.9) < 2.5


@pytest.mark.parametrize("outliers", [1, 5, 20])
def test_outliers_are_counted(outliers: int) -> None:
    values = np.random.default_rng(0).exponential(size=5000)
    values[:outliers] = 25.0 + np.arange(outliers) / 10
    found = tail_evidence(values)
    assert found.count == outliers
    assert found.evidence > 3
    assert found.expected < 1e-3


def test_a_heavier_scale_takes_more_to_stand_out() -> None:
    values = np.random.default_rng(0).exponential(size=5000)
    far = np.append(values, 20.0)
    assert tail_evidence(far).evidence > 3
    assert tail_evidence(np.append(4 * values, 20.0)).evidence < 1


@settings(deadline=None)
@given(st.floats(0.1, 100.0), st.floats(-50.0, 50.0))
def test_scale_and_place_change_nothing(scale: float, shift: float) -> None:
    values = np.append(np.random.default_rng(1).exponential(size=800), 12.0)
    one, other = tail_evidence(values), tail_evidence(values * scale + shift)
    assert one.count == other.count
    assert one.evidence == pytest.approx(other.evidence, rel=1e-6)


@pytest.mark.parametrize("values", [np.zeros(300), np.full(100, 3.5), np.append(np.zeros(299), 1.0)])
def test_values_without_spread_give_no_evidence(values: np.ndarray) -> None:
    assert tail_evidence(values).evidence == 0.0
