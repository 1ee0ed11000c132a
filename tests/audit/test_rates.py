"""Upper bounds of rates against published values."""

import pytest

from audit.rates import upper_bound


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [(0, 100, 0.0295), (0, 299, 0.00997), (1, 473, 0.00999), (4, 1000, 0.00913), (0, 10, 0.2589), (5, 10, 0.7776)],
)
def test_bounds_are_those_of_clopper_and_pearson(events: int, trials: int, bound: float) -> None:
    assert upper_bound(events, trials) == pytest.approx(bound, abs=2e-4)


@pytest.mark.parametrize(("events", "trials"), [(0, 0), (3, 3), (5, 2)])
def test_without_room_for_doubt_the_bound_is_one(events: int, trials: int) -> None:
    assert upper_bound(events, trials) == 1.0
