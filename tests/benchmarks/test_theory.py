"""Textbook nulls, on deltas for which they hold and for which they do not."""

from collections.abc import Callable

import drift_facts
import numpy as np
import pytest

from benchmarks.calibration.theory import theory_rejections

Made = Callable[[np.random.Generator, int, int], np.ndarray]


def rejections(made: Made, count: int = 20) -> dict[str, float]:
    """The rejections of matrices that changed in this way."""
    rng = np.random.default_rng(0)
    base = {f"encoder.layer.{k}.output.dense.weight": np.ones((48, 96), np.float32) for k in range(count)}
    after = {name: (w + made(rng, *w.shape)).astype(np.float32) for name, w in base.items()}
    return theory_rejections(drift_facts.from_arrays(base, after))


def test_independent_noise_is_rejected_as_often_as_said() -> None:
    found = rejections(lambda rng, m, n: rng.normal(size=(m, n)), 60)
    assert found["spike"] <= 0.06
    assert found["rows"] <= 0.06


def test_a_direction_is_a_spike_and_uneven_rows_are_uneven() -> None:
    assert rejections(lambda rng, m, n: rng.normal(size=(m, n)) + 2.0)["spike"] == 1.0
    assert rejections(lambda rng, m, n: rng.normal(size=(m, n)) * np.linspace(0.5, 2, m)[:, None])["rows"] == 1.0


@pytest.mark.parametrize("change", [lambda _rng, m, n: np.zeros((m, n))])
def test_nothing_moved_is_nothing_rejected(change: Made) -> None:
    assert rejections(change) == {"spike": 0.0, "rows": 0.0}
