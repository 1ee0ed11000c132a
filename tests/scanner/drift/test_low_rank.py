"""The spectrum of a product against the whole product; the rank of deltas that were rounded."""

import numpy as np
import pytest
import torch

from scanner.drift.low_rank import exact_rank, overlap, product_spectrum


@pytest.mark.parametrize(("rows", "cols", "rank"), [(40, 30, 4), (30, 40, 1), (5, 50, 8)])
def test_the_core_has_the_singular_values_of_the_product(rows, cols, rank):
    rng = np.random.default_rng(rows)
    up, down = rng.normal(size=(rows, rank)), rng.normal(size=(rank, cols))
    found = product_spectrum(up, down, -0.3)
    left, values, right = np.linalg.svd(-0.3 * up @ down)
    kept = min(rank, rows)
    assert found is not None
    assert found.exact
    np.testing.assert_allclose(found.values, values[:kept], rtol=1e-12)
    assert found.energy == pytest.approx(float((values**2).sum()))
    assert found.left_top[0][0] == int(np.abs(left[:, 0]).argmax())
    assert found.right_top[0][1] == pytest.approx(float(np.abs(right[0]).max()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_nothing_and_what_is_not_finite_have_no_spectrum(bad):
    up = np.full((4, 2), bad)
    assert product_spectrum(up, np.ones((2, 5)), 1.0) is None


def spectrum_of_merged(rank: int | None, *, size: float) -> tuple[np.ndarray, float, float]:
    """Singular values, energy and rounding energy of a bf16 base with a delta of that rank (None: full) merged in."""
    torch.manual_seed(3)
    base = (0.05 * torch.randn(96, 80)).bfloat16()
    factors = (torch.randn(96, rank), torch.randn(rank, 80)) if rank else (torch.randn(96, 80), torch.eye(80))
    delta = size * factors[0] @ factors[1]
    merged = (base.float() + delta).bfloat16()
    moved = (merged.float() - base.float()).double().numpy()
    values = np.linalg.svd(moved, compute_uv=False)
    noise = float(((merged.double() - base.double() - delta.double()) ** 2).sum())
    return values, float((values**2).sum()), noise


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_the_rank_of_a_merged_adapter_shows_through_rounding(rank):
    values, energy, noise = spectrum_of_merged(rank, size=0.01)
    assert np.linalg.matrix_rank(np.diag(values)) == 80
    assert exact_rank(tuple(values), energy, noise_energy=1.1 * noise, least_share=0.999) == rank
    assert exact_rank(tuple(values[: rank - 1]), energy, noise_energy=1.1 * noise, least_share=0.999) is None


def test_training_has_no_rank_within_the_leading_values():
    values, energy, noise = spectrum_of_merged(None, size=0.01)
    assert exact_rank(tuple(values[:16]), energy, noise_energy=noise, least_share=0.99) is None


def test_a_delta_that_rounding_explains_has_rank_nought():
    assert exact_rank((1.0,), 1.0, noise_energy=1.0, least_share=0.99) == 0
    assert exact_rank((), 0.0, noise_energy=0.0, least_share=0.99) == 0


def test_the_overlap_of_random_directions_is_the_number_of_their_pairs():
    rng = np.random.default_rng(4)
    found = [overlap(rng.uniform(-1, 1, (8, 200))) for _ in range(60)]
    assert {pairs for _, pairs in found} == {28}
    assert np.mean([value for value, _ in found]) == pytest.approx(28, rel=0.1)


def test_singular_vectors_do_not_overlap_and_equal_rows_do_so_in_full():
    rng = np.random.default_rng(5)
    left, values, right = np.linalg.svd(rng.normal(size=(40, 4)) @ rng.normal(size=(4, 30)), full_matrices=False)
    found = product_spectrum(left[:, :4] * values[:4], right[:4], 2.0)
    assert found is not None
    assert found.factors is not None
    assert max(found.factors.down_overlap, found.factors.up_overlap) < 1e-20
    assert (found.factors.down_pairs, found.factors.up_pairs) == (6, 6)
    assert overlap(np.array([[3.0, 4.0], [-6.0, -8.0], [0.0, 0.0]])) == (pytest.approx(2.0), 1)
    assert overlap(np.array([[1e-300, 0.0], [0.0, 1e300]])) == (0.0, 1)
    assert overlap(np.zeros((3, 5))) == (0.0, 0)
    assert overlap(np.ones((1, 5))) == (0.0, 0)


def test_a_factor_as_long_as_a_stranger_likes_is_compared_in_part():
    value, pairs = overlap(np.random.default_rng(6).normal(size=(5000, 12)))
    assert pairs == 256 * 255 // 2
    assert value == pytest.approx(pairs, rel=0.1)
