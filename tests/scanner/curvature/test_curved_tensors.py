import numpy as np
import pytest

from scanner.curvature.records import INDICATORS
from scanner.curvature.tensors import Pooled, measure_tensor
from scanner.records import PairSpec, TensorMeta


def spec(rows, columns):
    meta = TensorMeta(name="a.weight", dtype="F32", shape=(rows, columns), file="m", start=0, end=4 * rows * columns)
    return PairSpec(name="a.weight", base=meta, candidate=meta, role="mlp_in", layer=0, rows=(0, rows))


def drawn(rows=300, columns=200, gamma=0.5, seed=0):
    rng = np.random.default_rng(seed)
    curvature = (10.0 ** rng.uniform(-8, -3, (rows, columns))).astype(np.float32)
    delta = (1e-3 * curvature ** (gamma / 2) * rng.standard_normal((rows, columns))).astype(np.float32)
    return delta, curvature


def test_rows_that_follow_the_law_are_near_one_and_a_poisoned_one_is_not():
    delta, curvature = drawn()
    delta[17] *= 5
    found = measure_tensor(spec(300, 200), delta, curvature, Pooled())
    assert found.exponent == pytest.approx(0.5, abs=0.03)
    assert int(np.argmax(found.row_ratio)) == 17
    assert found.row_ratio[17] == pytest.approx(25, rel=0.4)
    others = np.delete(found.row_ratio, 17)
    assert np.median(others) == pytest.approx(1, rel=0.1)
    assert others.max() < 2
    assert found.row_energy == pytest.approx(np.square(delta.astype(np.float64)).sum(axis=1))


def test_blocks_do_not_change_the_figures(monkeypatch):
    delta, curvature = drawn()
    whole, parts = Pooled(), Pooled()
    one = measure_tensor(spec(300, 200), delta, curvature, whole)
    monkeypatch.setattr("scanner.curvature.tensors.BLOCK", 1000)
    other = measure_tensor(spec(300, 200), delta, curvature, parts)
    assert np.allclose(one.row_ratio, other.row_ratio)
    assert one.fits == other.fits
    assert all((whole.counts[kind] == parts.counts[kind]).all() for kind in INDICATORS)


def test_rows_without_curvature_have_an_energy_and_no_ratio():
    delta, curvature = drawn()
    curvature[100:] = 0
    found = measure_tensor(spec(300, 200), delta, curvature, Pooled())
    assert np.isfinite(found.row_ratio[:100]).all()
    assert np.isnan(found.row_ratio[100:]).all()
    assert (found.row_energy[100:] > 0).all()
    assert found.seen == found.judged == 100 * 200
    assert found.moved == 300 * 200


def test_what_did_not_move_counts_as_nothing_in_a_row():
    delta, curvature = drawn()
    delta[5, ::2] = 0
    found = measure_tensor(spec(300, 200), delta, curvature, Pooled())
    assert found.judged == 300 * 200 - 100
    assert found.row_ratio[5] == pytest.approx(0.5, rel=0.4)


def test_values_that_are_not_finite_are_counted_and_left_out():
    delta, curvature = drawn()
    delta[3, 4], delta[3, 5] = np.nan, np.inf
    found = measure_tensor(spec(300, 200), delta, curvature, Pooled())
    assert found.nonfinite == 2
    assert np.isfinite(found.row_energy).all()
    assert np.isfinite(found.mean_square)


@pytest.mark.parametrize(
    ("delta", "curvature"),
    [(np.zeros((300, 200)), np.ones((300, 200))), (np.ones((300, 200)), np.zeros((300, 200))), (np.ones((1, 5)),) * 2],
)
def test_too_little_to_fit_is_no_fit(delta, curvature):
    pooled = Pooled()
    found = measure_tensor(spec(*delta.shape), delta.astype(np.float32), curvature.astype(np.float32), pooled)
    assert found.exponent is None
    assert found.fits == ()
    assert found.fit("fitted") is None
    assert not pooled.counts["fitted"].any()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="curvature in"):
        measure_tensor(spec(2, 2), np.ones((2, 2), np.float32), np.ones((2, 3), np.float32), Pooled())
