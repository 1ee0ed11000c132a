"""Leading components against NumPy's own decomposition, panel by panel."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.purify.components import leading_components
from scanner.records import F64


@pytest.mark.parametrize(("shape", "panel"), [((60, 20), 7), ((20, 60), 20), ((5, 3), 1), ((300, 40), 64)])
def test_a_prominent_component_is_found_exactly(shape: tuple[int, int], panel: int) -> None:
    generator = np.random.default_rng(5)
    matrix = generator.standard_normal(shape) * 0.01
    matrix += 3 * np.outer(*(v / np.linalg.norm(v) for v in (generator.standard_normal(n) for n in shape)))

    def panels() -> Iterator[tuple[int, F64]]:
        for start in range(0, shape[0], panel):
            yield start, matrix[start : start + panel]

    found = leading_components(panels, *shape, rank=4, seed=0)
    left, values, right = np.linalg.svd(matrix)
    assert found.values[0] == pytest.approx(values[0], rel=1e-10)
    np.testing.assert_allclose(found.product(0, shape[0], 1), values[0] * np.outer(left[:, 0], right[0]), atol=1e-9)
    np.testing.assert_allclose(found.product(2, 4, 1), found.product(0, shape[0], 1)[2:4])
    assert found.energy == pytest.approx(float((matrix**2).sum()))
    assert len(found.values) == min(4, *shape)


def test_nothing_has_no_components() -> None:
    found = leading_components(lambda: iter([(0, np.zeros((8, 4)))]), 8, 4, rank=2, seed=0)
    assert found.energy == 0
    assert not found.values.any()
