import numpy as np
import pytest
from scipy.stats import chi2

from scanner.curvature.law import MEDIAN, count_ratios, fit_exponent, judge_law, law_quantile, quantile_plot

RNG = np.random.default_rng(7)
CURVATURE = 10.0 ** RNG.uniform(-9, -2, 200_000)


def squares(gamma, scale=3e-6, curvature=CURVATURE):
    return scale * curvature**gamma * RNG.chisquare(1, len(curvature))


@pytest.mark.parametrize("gamma", [0.0, 0.13, 0.5, 1.0, -0.2])
def test_the_exponent_and_the_scale_are_found(gamma):
    found, scale = fit_exponent(np.log(CURVATURE), np.log(squares(gamma)))
    assert found == pytest.approx(gamma, abs=0.01)
    assert np.log(scale) == pytest.approx(np.log(3e-6), abs=0.15)


def test_a_tenth_of_poisoned_dimensions_does_not_move_the_exponent():
    poisoned = squares(0.5)
    worst = np.argsort(CURVATURE)[: len(CURVATURE) // 10]
    poisoned[worst] *= 1e6
    found, _ = fit_exponent(np.log(CURVATURE), np.log(poisoned))
    assert found == pytest.approx(0.5, abs=0.1)


def test_dimensions_that_all_have_one_curvature_give_no_slope():
    found, scale = fit_exponent(np.zeros(1000), np.log(RNG.chisquare(1, 1000)))
    assert found == 0
    assert scale == pytest.approx(1, rel=0.3)


def test_the_median_is_the_laws():
    assert pytest.approx(chi2.ppf(0.5, 1)) == MEDIAN
    assert law_quantile(0.5) == pytest.approx(MEDIAN)


def test_where_the_law_holds_the_plot_is_the_diagonal():
    plot = quantile_plot("fitted", count_ratios(np.log10(RNG.chisquare(1, 1_000_000))))
    assert plot.dimensions == 1_000_000
    assert plot.levels[0] == 0.01
    assert max(plot.levels) == 0.99999  # beyond the next one fewer than five would lie
    assert np.allclose(np.log10(plot.measured), np.log10(plot.law), atol=0.12)
    assert plot.fit.straightness == pytest.approx(1, abs=1e-3)
    assert plot.fit.inflation == pytest.approx(1, rel=0.3)


def test_a_heavier_tail_shows_as_inflation():
    mixed = np.concatenate([RNG.chisquare(1, 990_000), 100 * RNG.chisquare(1, 10_000)])
    fit = judge_law("delta2", count_ratios(np.log10(mixed)), scale=2.0)
    assert fit.scale == 2.0
    assert fit.inflation == pytest.approx(1 + 0.01 * chi2.sf(chi2.isf(1e-4, 1) / 100, 1) / 1e-4, rel=0.1)


def test_extreme_ratios_go_to_the_outermost_steps():
    counts = count_ratios(np.array([-300.0, 300.0, 0.0]))
    assert (counts[0], counts[-1], counts.sum()) == (1, 1, 3)


def test_few_dimensions_have_no_straightness():
    fit = judge_law("fitted", count_ratios(np.array([0.0])), scale=None)
    assert fit.straightness is None
