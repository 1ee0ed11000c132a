"""Thresholds from observations, and judging by them."""

from typing import Any

import numpy as np
import pytest
from observations import bank, observation

from audit.thresholds import load_profile
from benchmarks.calibrate import clean_of, whole
from benchmarks.calibration.banks import BANKS, LEAST_CLEAN, TierBank, as_text, bank_entry, fill
from benchmarks.calibration.fit import FLOORS, fit, judge, located, tail_point
from benchmarks.calibration.records import ledger_of

EXACT = {"HA303": 0.9}


def test_the_tail_point_is_that_of_an_exponential() -> None:
    values = np.random.default_rng(1).exponential(2.0, 200_000)
    assert tail_point(values, 1e-3) == pytest.approx(2.0 * np.log(1000), rel=0.02)


def test_the_tail_point_of_a_heavy_tail_is_far_out_and_of_few_values_exponential() -> None:
    """A generalised Pareto law of shape 0.3 exceeds (1000^0.3 - 1) / 0.3 one time in a thousand."""
    uniform = np.random.default_rng(2).random(200_000)
    values = (uniform**-0.3 - 1) / 0.3
    assert tail_point(values, 1e-3) == pytest.approx((1000**0.3 - 1) / 0.3, rel=0.05)
    few = values[:60]
    excess = few[few > np.quantile(few, 0.75)] - np.quantile(few, 0.75)
    assert tail_point(few, 1e-3) == pytest.approx(np.quantile(few, 0.75) + excess.mean() * np.log(250))


@pytest.mark.parametrize(("values", "point"), [([], -np.inf), ([1.0, 1.0, 1.0], 1.0)])
def test_the_tail_point_of_poor_data(values: list[float], point: float) -> None:
    assert tail_point(np.array(values), 1e-3) == point


def test_thresholds_respect_their_floors_and_their_order() -> None:
    for thresholds in (fit(list(bank().values())), fit([])):
        assert set(thresholds) == set(FLOORS)
        for rule, (review, fail) in thresholds.items():
            assert FLOORS[rule] <= review + 0.005
            assert fail >= 1.39 * review


def test_a_model_is_judged_by_its_worst_rule() -> None:
    thresholds = dict.fromkeys(FLOORS, (1.0, 2.0))
    assert judge(observation(0.5), thresholds, EXACT).outcome == "pass"
    assert judge(observation(1.5), thresholds, EXACT).outcome == "review"
    assert judge(observation(2.5), thresholds, EXACT).outcome == "fail"
    assert judge(observation(0.5, exact=("HA303",)), thresholds, EXACT).rules == ("HA303",)
    assert judge(observation(None), thresholds, EXACT).outcome == "not judged"


def test_no_pass_rests_on_a_rule_that_sees_little() -> None:
    thresholds = dict.fromkeys(FLOORS, (1.0, 2.0))
    slight = {**observation(None), "values": {"HA404": 0.1, "HA203": 0.1, "HA306": 0.0}}
    assert judge(slight, thresholds, EXACT).outcome == "not judged"
    assert judge({**slight, "values": {"HA404": 1.5}}, thresholds, EXACT).outcome == "review"


@pytest.mark.parametrize(
    ("truth", "places", "verdict"),
    [
        ({"tensors": [], "rows": []}, {}, None),
        ({"tensors": ["a"], "rows": []}, {"HA301": {"tensor": "a", "rows": []}}, True),
        ({"tensors": ["a"], "rows": []}, {"HA301": {"tensor": "b", "rows": []}}, False),
        ({"tensors": [], "rows": [7]}, {"HA301": {"tensor": "e", "rows": [7, 9]}}, True),
        ({"tensors": [], "rows": [7]}, {"HA301": {"tensor": "e", "rows": [9, 7]}}, False),
        ({"tensors": ["a"], "rows": []}, {}, False),
    ],
)
def test_located_means_named_first(truth: dict, places: dict, verdict: bool | None) -> None:
    assert located(observation(truth=truth, places=places), ("HA301",)) is verdict


def test_the_first_bank_speaks_for_models_without_one() -> None:
    profile: dict[str, Any] = {"thresholds": {"policy.x": {"value": 1, "source": "s"}}}
    entries = [bank_entry(b, bank(), [0.1, 0.2]) for b in BANKS[:2]]
    fill(profile, entries)
    assert profile["clean_models"] == 2
    assert profile["model_types"] == ["bert"]
    assert profile["thresholds"]["policy.x"]["value"] == 1
    assert profile["thresholds"]["HA301.review"] == entries[0]["thresholds"]["HA301.review"]
    assert [b["id"] for b in profile["banks"]] == ["minilm-22m", "toy-encoder"]
    assert f"{len(bank())} clean fine-tunes" in profile["calibration"]


def test_a_profile_is_written_with_its_numbers_in_rows() -> None:
    import json

    profile = {"a": [0.5, -1e-07, 3], "b": [[1.0, 2.0], [3.0, 4.0]], "c": {"d": "[1,\n 2]"}, "e": []}
    text = as_text(profile)
    assert json.loads(text) == profile
    assert "[0.5, -1e-07, 3]" in text
    assert "[1.0, 2.0]" in text


@pytest.mark.parametrize("described", BANKS, ids=[b.id for b in BANKS])
def test_the_shipped_profile_follows_from_the_committed_observations(described: TierBank) -> None:
    """After a change of the rules: python -m benchmarks.calibrate --observe real --again --write."""
    profile = load_profile()
    held = clean_of(whole(ledger_of(described.tier).read()))
    shipped = {b.id: b for b in profile.banks}
    if described.id not in shipped:
        assert len(held) < LEAST_CLEAN
        return
    for rule, (review, fail) in fit(list(held.values())).items():
        assert shipped[described.id].values[f"{rule}.review"] == review
        assert shipped[described.id].values[f"{rule}.fail"] == fail
    assert len(shipped[described.id].clean_scores) == len(held)
