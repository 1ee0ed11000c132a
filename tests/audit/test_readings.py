"""The scale of scores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.readings import score_of, tokens_at

VALUES = st.floats(-10.0, 1e6)


@pytest.mark.parametrize(("value", "score"), [(-1, 0), (0, 0), (2.5, 0.25), (5, 0.5), (8, 0.8), (16, 0.9)])
def test_the_anchors_of_the_scale(value: float, score: float) -> None:
    assert score_of(value, review=5.0, fail=8.0) == pytest.approx(score)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_scores_are_monotone_and_stay_below_one(one: float, other: float) -> None:
    low, high = (score_of(v, review=5.0, fail=8.0) for v in sorted((one, other)))
    assert 0.0 <= low <= high < 1.0


def test_ids_beyond_the_vocabulary_have_no_text() -> None:
    assert [(t.id, t.text) for t in tokens_at(("a", "b"), [1, 7, -1])] == [(1, "b"), (7, ""), (-1, "")]
