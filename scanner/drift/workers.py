"""The threads of the diff: for the kernels and for matrix products, and no others."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

MOST_THREADS: Final = 8
"""A few cores read as fast as the memory gives; each thread beyond costs column sums and gains nothing."""
SHARED_PRODUCT: Final = 1 << 24
"""Multiplications of a matrix product that is worth handing to several threads."""

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """Cores that this process may use, up to ``MOST_THREADS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


class Workers:
    """Threads for work that holds no lock. Use as a context manager.

    The linear algebra library is kept to the calling thread meanwhile: its own threads wait for each other by
    spinning, which on a busy machine, or with a limit on processor time, makes products ten times slower.
    """

    def __init__(self, count: int) -> None:
        self.count = max(1, count)
        self._pool = ThreadPoolExecutor(self.count - 1, "drift") if self.count > 1 else None
        self._limits: threadpool_limits | None = None

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Apply the function to all items, the first of them on the calling thread."""
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        others = [self._pool.submit(function, item) for item in items[1:]]
        return [function(items[0]), *(other.result() for other in others)]

    def product(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Multiply two matrices, ``[a, b]`` by ``[b, c]``, shared out along the longer of a and c.

        Overflow shows as Inf or NaN in the product and nowhere else.
        """
        rows, columns = left.shape[0], right.shape[1]
        product = np.empty((rows, columns), np.result_type(left, right))
        threads = self.count if rows * columns * left.shape[1] >= SHARED_PRODUCT else 1
        cuts = [max(rows, columns) * i // threads for i in range(threads + 1)]

        def work(share: slice) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # of this thread
                if rows >= columns:
                    np.matmul(left[share], right, out=product[share])
                else:
                    np.matmul(left, right[:, share], out=product[:, share])

        self.map(work, [slice(start, end) for start, end in pairwise(cuts)])
        return product

    def __enter__(self) -> Self:
        self._limits = threadpool_limits(limits=1, user_api="blas")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limits is not None:
            self._limits.restore_original_limits()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
