"""P-values: uniform where nothing is related, as small as they may be where everything is."""

import numpy as np
import pytest
from scipy.stats import chi2, spearmanr

from scanner.lineage.chance import centred_correlation, correlation_log10_p, fisher_log10_p, order_log10_p


def test_random_orders_give_uniform_values():
    generator = np.random.default_rng(0)
    found = np.array([order_log10_p(generator.permutation(64)) for _ in range(3000)])
    for level in (0.5, 0.1, 0.01):
        share = np.mean(found <= np.log10(level))
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 3000)


def test_the_order_statistic_is_that_of_the_library():
    order = np.random.default_rng(1).permutation(40)
    order[:20] = np.sort(order[:20])
    expected = spearmanr(order, np.arange(40), alternative="greater").pvalue
    assert order_log10_p(order) == pytest.approx(np.log10(expected), rel=1e-9)


@pytest.mark.parametrize(("count", "least"), [(8, -4.6055), (64, -89.1034)])
def test_one_order_among_all_is_the_least(count, least):
    assert order_log10_p(np.arange(count)) == pytest.approx(least, abs=1e-3)
    assert order_log10_p(np.arange(count)[::-1]) == 0


def test_too_few_units_say_nothing():
    assert order_log10_p(np.arange(3)) == 0
    assert correlation_log10_p(1.0, 3) == 0


def test_fisher_is_the_chi_squared_tail():
    parts = [-1.0, -0.2, -2.5]
    expected = chi2.logsf(-2 * sum(parts) * np.log(10), 6) / np.log(10)
    assert fisher_log10_p(parts) == pytest.approx(expected, rel=1e-9)
    assert fisher_log10_p([]) == 0
    assert fisher_log10_p([0.0, 0.0]) == 0
    assert fisher_log10_p([-89.0] * 12) == -300


def test_gains_near_one_do_not_correlate_by_themselves():
    """The uncentred cosine of such vectors is above 0.99, related or not."""
    generator = np.random.default_rng(2)
    one, two = (1 + 0.05 * generator.standard_normal(256) for _ in range(2))
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) > 0.99
    assert abs(centred_correlation(one, two)) < 0.2
    assert correlation_log10_p(centred_correlation(one, two), 256) > -3
    assert correlation_log10_p(centred_correlation(one, one + 0.001 * two), 256) < -100
    assert centred_correlation(np.ones(9), one[:9]) == 0
