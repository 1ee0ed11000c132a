"""Deriving thresholds and error rates from observations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.thresholds import load_profile
from benchmarks.calibration.fit import FLOORS, auroc, auroc_interval, cross_fitted, fit, judge, located, tail_point
from benchmarks.calibration.table import BEGIN, END, section, splice

EXACT = {"HA303": 0.9}


def observation(value: float | None = 0.1, *, exact: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """One model on which every rule measured that value."""
    return {
        "kind": "clean",
        "family": None,
        "working": None,
        "recipe": {"method": "full", "optimiser": "adamw"},
        "truth": {"tensors": [], "rows": []},
        "coverage": 1.0,
        "values": {} if value is None else dict.fromkeys(FLOORS, value),
        "exact": list(exact),
        "places": {},
        **more,
    }


def bank(count: int = 40) -> dict[str, dict[str, Any]]:
    """Clean models with exponential values."""
    values = np.random.default_rng(0).exponential(0.2, count)
    return {f"clean-{i:04d}": observation(float(v)) for i, v in enumerate(values)}


def test_the_tail_point_is_that_of_an_exponential() -> None:
    values = np.random.default_rng(1).exponential(2.0, 200_000)
    assert tail_point(values, 1e-3) == pytest.approx(2.0 * np.log(1000), rel=0.02)


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


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert auroc([0.1, 0.2], [0.3, 0.2, 0.0]) == pytest.approx((2 + 1.5 + 0) / 6)
    assert np.isnan(auroc([], [0.1]))
    rng = np.random.default_rng(3)
    clean, attacked = rng.normal(size=60).tolist(), rng.normal(1.0, size=40).tolist()
    low, high = auroc_interval(clean, attacked)
    assert low < auroc(clean, attacked) < high
    assert 0.1 < high - low < 0.3
    assert auroc_interval([0.1, 0.2], [0.9]) == (1.0, 1.0)


def test_no_model_is_judged_by_thresholds_that_it_shaped() -> None:
    """One wild model would raise every threshold above itself."""
    models = bank()
    models["clean-0007"] = observation(50.0)
    assert cross_fitted(models, EXACT)["clean-0007"].outcome == "fail"
    assert judge(models["clean-0007"], fit(list(models.values())), EXACT).score < 0.95


def test_every_clean_model_is_judged_once() -> None:
    assert set(cross_fitted(bank(), EXACT)) == set(bank())


@pytest.mark.parametrize(
    ("truth", "places", "verdict"),
    [
        ({"tensors": [], "rows": []}, {}, None),
        ({"tensors": ["a"], "rows": []}, {"HA301": [{"tensor": "a", "rows": []}]}, True),
        ({"tensors": ["a"], "rows": []}, {"HA301": [{"tensor": "b", "rows": []}, {"tensor": "a", "rows": []}]}, False),
        ({"tensors": [], "rows": [7]}, {"HA301": [{"tensor": "e", "rows": [7, 9]}]}, True),
        ({"tensors": [], "rows": [7]}, {"HA301": [{"tensor": "e", "rows": [9, 7]}]}, False),
        ({"tensors": ["a"], "rows": []}, {}, False),
    ],
)
def test_located_means_named_first(truth: dict, places: dict, verdict: bool | None) -> None:
    assert located(observation(truth=truth, places=places), ("HA301",)) is verdict


def test_the_page_keeps_what_is_around_the_section() -> None:
    made = section(bank(), cross_fitted(bank(), EXACT), {}, fit(list(bank().values())))
    page = splice("# Benchmarks\n\n## Speed\n\nfast\n", made)
    assert page.startswith("# Benchmarks\n\n## Speed\n\nfast\n")
    assert splice(page, made) == page
    again = splice(page + "\n## After\n", f"{BEGIN}\nnew\n{END}\n")
    assert "fast" in again
    assert "## After" in again
    assert again.count(BEGIN) == 1
    assert splice("", made).startswith("# Benchmarks\n")


def test_the_shipped_profile_follows_from_the_committed_observations() -> None:
    """After a change of the rules: python -m benchmarks.calibrate --again --write."""
    root = Path(__file__).resolve().parents[2]
    observed = json.loads((root / "benchmarks" / "results" / "calibration.json").read_text(encoding="utf-8"))
    profile = load_profile()
    least = profile.value("policy.least_coverage")
    clean = [o for o in observed.values() if o["kind"] == "clean" and o["coverage"] >= least]
    for rule, (review, fail) in fit(clean).items():
        assert (profile.value(f"{rule}.review"), profile.value(f"{rule}.fail")) == (review, fail)
