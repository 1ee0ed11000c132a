import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from scanner.drift.workers import SHARED_PRODUCT, Workers, usable_cores


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_map_keeps_the_order(count: int) -> None:
    with Workers(count) as workers:
        assert workers.map(lambda item: item * item, list(range(20))) == [i * i for i in range(20)]
        assert workers.map(str, []) == []


def test_the_first_item_runs_on_the_calling_thread() -> None:
    with Workers(2) as workers:
        first, second = workers.map(lambda _: threading.get_ident(), [0, 1])
    assert first == threading.get_ident() != second


def test_errors_come_through() -> None:
    with Workers(2) as workers, pytest.raises(ZeroDivisionError):
        workers.map(lambda item: 1 // item, [1, 0])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2000, 32, 300), (32, 2000, 300), (5, 3, 4), (1, 1, 1), (32, 300, 2001)])
def test_product(count: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((shape[0], shape[1])), rng.standard_normal((shape[1], shape[2]))
    with Workers(count) as workers:
        np.testing.assert_allclose(workers.product(left, right), left @ right, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(workers.product(right.T, left.T), (left @ right).T, rtol=1e-10, atol=1e-10)
        assert workers.product(left.astype(np.float32), right.astype(np.float32)).dtype == np.float32
    assert SHARED_PRODUCT < 2000 * 32 * 300


def test_the_linear_algebra_keeps_to_one_thread_meanwhile() -> None:
    before = blas_threads()
    with Workers(2):
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1
