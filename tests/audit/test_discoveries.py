import numpy as np
import pytest
from scipy.stats import false_discovery_control

from audit.discoveries import benjamini_hochberg, e_benjamini_hochberg, e_value

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_bh_agrees_with_scipy(count, rate):
    p = np.concatenate([RNG.uniform(size=count), 1e-4 * RNG.uniform(size=count // 3)])
    adjusted = false_discovery_control(p)
    assert list(benjamini_hochberg(p.tolist(), rate)) == (adjusted <= rate).tolist()


def test_nothing_and_no_tests():
    assert benjamini_hochberg([], 0.05) == ()
    assert e_benjamini_hochberg([], 0.05) == ()
    assert benjamini_hochberg([0.5, 0.9], 0.05) == (False, False)
    assert e_benjamini_hochberg([1.0, 3.0], 0.05) == (False, False)


def test_e_bh_takes_the_largest_k_that_holds():
    assert e_benjamini_hochberg([100.0, 1.0, 45.0, 30.0], 0.05) == (True, False, True, True)  # 4/(3·0.05) = 26.7
    assert e_benjamini_hochberg([100.0, 1.0, 45.0, 20.0], 0.05) == (True, False, True, False)  # 4/(2·0.05) = 40
    assert e_benjamini_hochberg([70.0, 1.0, 1.0, 1.0], 0.05) == (False,) * 4


def test_e_values_are_e_values():
    """Where the null holds p is uniform and the mean of e is 1; and no e-discovery is none of BH's."""
    p = RNG.uniform(size=400_000)
    assert np.mean([e_value(x) for x in p]) == pytest.approx(1, rel=0.05)
    assert np.isfinite(e_value(0.0))
    found = [1e-9, 1e-6, 0.2, 0.7]
    by_e = e_benjamini_hochberg([e_value(x) for x in found], 0.05)
    assert all(strict <= loose for strict, loose in zip(by_e, benjamini_hochberg(found, 0.05), strict=True))
