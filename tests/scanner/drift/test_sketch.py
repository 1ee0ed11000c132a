import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.drift import sketch
from scanner.drift.sketch import KEPT, PANEL_ELEMENTS, WIDTH, Sketch, sketch_bytes
from scanner.drift.workers import Workers
from scanner.records import F32


def matrix(rows: int, columns: int, values: list[float], noise: float = 0.0, seed: int = 0) -> F32:
    """A matrix with these leading singular values (up to the noise)."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(rng.standard_normal((columns, len(values))))[0]
    made = (left * np.array(values)) @ right.T + noise * rng.standard_normal((rows, columns))
    return made.astype(np.float32)


PANEL = 1 << 16


def solved(delta: F32, portions: tuple[int, ...] = (), panel_elements: int = PANEL) -> sketch.Solution | None:
    with Workers(1) as workers:
        made = Sketch(*delta.shape, workers, panel_elements=panel_elements)
        for part in np.split(delta, np.clip(np.cumsum(portions, dtype=int), 0, delta.shape[0])):
            made.add(part)
        return made.solve()


@pytest.mark.parametrize("shape", [(130, 300), (1000, 200), (300, 700), (5000, 40)])
def test_low_rank_matrices_are_found_to_rounding(shape: tuple[int, int]) -> None:
    delta = matrix(*shape, [9.0, 7.0, 3.0, 1.0, 0.1])
    solution = solved(delta)
    assert solution is not None
    values, left, right = solution
    np.testing.assert_allclose(values[:5], [9.0, 7.0, 3.0, 1.0, 0.1], rtol=1e-4)
    assert (values[5:] < 1e-4).all()
    np.testing.assert_allclose(delta.astype(np.float64) @ right / 9.0, left, atol=1e-5)


def test_a_direction_that_only_late_rows_hold_is_found() -> None:
    delta = matrix(2000, 300, [5.0] * 3, noise=0.001)
    late = np.zeros((2000, 300), np.float32)
    late[1900:] = matrix(100, 300, [40.0], seed=1)
    solution = solved(delta + late)
    assert solution is not None
    values, left, _ = solution
    assert values[0] == pytest.approx(40.0, rel=1e-3)
    assert np.linalg.norm(left[1900:]) == pytest.approx(1.0, rel=1e-3)


def test_more_directions_than_are_carried() -> None:
    delta = matrix(1500, 250, [2.0 * 0.97**i for i in range(3 * KEPT)])
    exact = np.linalg.svd(delta.astype(np.float64), compute_uv=False)
    solution = solved(delta)
    assert solution is not None
    np.testing.assert_allclose(solution[0][:8], exact[:8], rtol=0.02)
    assert (solution[0][:8] <= exact[:8] * (1 + 1e-6)).all()


def test_noise_is_underestimated_but_never_overestimated() -> None:
    delta = matrix(900, 400, [], noise=1.0)
    exact = np.linalg.svd(delta.astype(np.float64), compute_uv=False)
    solution = solved(delta)
    assert solution is not None
    assert 0.85 * exact[0] < solution[0][0] <= exact[0] * (1 + 1e-6)


@settings(max_examples=10, deadline=None)
@given(portions=st.lists(st.integers(1, 900), max_size=6))
def test_portions_do_not_matter(portions: list[int]) -> None:
    delta = matrix(1700, 150, [3.0, 2.0], noise=0.01)
    whole, parts = solved(delta), solved(delta, tuple(portions))
    assert whole is not None
    assert parts is not None
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_zero_rows_first() -> None:
    delta = np.concatenate([np.zeros((1500, 200), np.float32), matrix(200, 200, [4.0, 1.0])])
    solution = solved(delta)
    assert solution is not None
    assert solution[0][0] == pytest.approx(4.0, rel=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_values_beyond_float32_give_nothing(bad: float) -> None:
    delta = matrix(1500, 200, [4.0, 1.0])
    delta[1000] = bad
    assert solved(delta) is None


def test_nothing_gives_nothing() -> None:
    assert Sketch(10, 10, Workers(1)).solve() is None
    assert solved(np.zeros((2000, 100), np.float32)) is None


def test_memory_is_bounded_by_rows_and_columns() -> None:
    assert sketch_bytes(256_000, 4096) < 64 << 20
    assert sketch_bytes(4096, 11_008) < 4 * (PANEL_ELEMENTS + 7 * 11_008 * WIDTH)
