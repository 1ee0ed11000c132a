"""The conformal test of belonging to a bank."""

import numpy as np
import pytest

from audit.likeness import NEIGHBOURS, likeness
from audit.traits import TRAITS


def bank(count: int = 99) -> np.ndarray:
    """Models around one recipe."""
    return np.random.default_rng(1).normal(size=(count, len(TRAITS)))


def test_a_model_of_another_kind_is_the_furthest_of_all() -> None:
    strange = np.zeros(len(TRAITS))
    strange[3] = 40.0
    found = likeness(strange, bank())
    assert found is not None
    assert found.p_value == pytest.approx(1 / 100)
    assert found.traits[0] == TRAITS[3]
    assert found.of == 99


def test_p_values_of_models_of_the_bank_are_uniform() -> None:
    held = bank()
    values = [likeness(held[i], np.delete(held, i, axis=0)) for i in range(len(held))]
    p = np.array([v.p_value for v in values if v is not None])
    assert len(p) == len(held)
    # A rank among 99: exactly uniform in distribution, so that the shares below a level stay near it.
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_a_trait_without_variance_counts_in_its_own_units() -> None:
    held = bank()
    held[:, 5] = 0.3
    middle = held.mean(axis=0)
    inside, outside = middle.copy(), middle.copy()
    outside[5] = 5.0
    near, far = likeness(inside, held), likeness(outside, held)
    assert near is not None
    assert far is not None
    assert near.p_value > 0.5
    assert far.p_value == pytest.approx(1 / 100)


def test_a_twin_is_inside() -> None:
    held = bank()
    found = likeness(held[0], held)
    assert found is not None
    assert found.p_value > 0.02


def test_a_bank_of_too_few_says_nothing() -> None:
    assert likeness(np.zeros(len(TRAITS)), bank(NEIGHBOURS)) is None
    assert likeness(np.zeros(len(TRAITS)), bank(NEIGHBOURS + 1)) is not None
