"""Error rates on models that no threshold knows, and the page that tells of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observations import attacks, bank, observation

from benchmarks.calibrate import transfer
from benchmarks.calibration.fit import FLOORS, fit, judge
from benchmarks.calibration.page import BEGIN, END, section
from benchmarks.calibration.protocol import protocol
from benchmarks.calibration.rates import auroc, bootstrap, cutoff, power
from benchmarks.calibration.records import Ledger
from benchmarks.calibration.splits import folds, judge_apart, origins, recipe_of
from benchmarks.pages import splice

EXACT = {"HA303": 0.9}


def child(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    """A model made of others."""
    return observation(
        id=name, recipe={"method": "full", "optimiser": "adamw", "merge": "average", "parents": list(parents)}, **more
    )


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert auroc([0.1, 0.2], [0.3, 0.2, 0.0]) == pytest.approx((2 + 1.5 + 0) / 6)
    assert np.isnan(auroc([], [0.1]))
    rng = np.random.default_rng(3)
    clean, attacked = rng.normal(size=60).tolist(), rng.normal(1.0, size=40).tolist()
    low, high = bootstrap(auroc, clean, attacked)
    assert low < auroc(clean, attacked) < high
    assert 0.1 < high - low < 0.3
    assert bootstrap(auroc, [0.1, 0.2], [0.9]) == (1.0, 1.0)


def test_power_is_what_exceeds_all_but_the_allowed_share_of_clean_models() -> None:
    clean = [k / 200 for k in range(200)]
    assert cutoff(clean) == pytest.approx(197 / 200)
    assert sum(score > cutoff(clean) for score in clean) == 2
    assert power(clean, [0.99, 0.5]).count == 1
    assert cutoff([0.1, 0.4]) == 0.4
    assert power([0.1, 0.4], [0.4, 0.41]).value == 0.5


def test_kin_are_found_through_merges_of_merges_and_share_a_fold() -> None:
    models = {f"clean-{i:04d}": observation() for i in range(10)}
    models["clean-0010"] = child("clean-0010", "clean-0001", "clean-0002")
    models["clean-0011"] = child("clean-0011", "clean-0010", "clean-0005")
    models["attacked-0000"] = child("attacked-0000", "clean-0005", kind="attacked")
    kin = origins(models)
    family = {"clean-0001", "clean-0002", "clean-0005", "clean-0010", "clean-0011", "attacked-0000"}
    assert {name for name in models if kin[name] == kin["clean-0001"]} == family
    fold = folds(models, count=3)
    assert len({fold[name] for name in family}) == 1
    assert set(fold) == set(models)
    assert len(set(fold.values())) == 3


def test_no_model_is_judged_by_thresholds_that_it_or_its_kin_shaped() -> None:
    """One wild model would raise every threshold above itself, and its twin's above the twin."""
    models = bank()
    models["clean-0007"] = observation(50.0)
    models["clean-0040"] = {**child("clean-0040", "clean-0007"), "values": models["clean-0007"]["values"]}
    apart = {name: name for name in models}
    for judged in (judge_apart(models, folds(models), EXACT), judge_apart(models, apart, EXACT)):
        assert judged["clean-0007"].outcome == judged["clean-0040"].outcome == "fail"
        assert set(judged) == set(models)
    assert judge(models["clean-0007"], fit(list(models.values())), EXACT).score < 0.95


def test_a_recipe_is_a_method_and_an_optimiser_or_a_merge() -> None:
    assert recipe_of(observation()) == "full adamw"
    assert recipe_of(child("clean-0001")) == "merge (average)"


def test_the_protocol_tells_what_it_should_of_a_bank_with_known_truth() -> None:
    idle = {f"{name}-idle": {**o, "id": f"{name}-idle"} for name, o in attacks(4, working=False).items()}
    results = protocol({**bank(120), **attacks(), **idle}, EXACT, 0.02)
    clean, groups = results["clean"], results["groups"]
    assert clean["n"] == 120
    assert clean["false"] == sum(clean["outcomes"].get(o, 0) for o in ("review", "fail"))
    assert clean["upper"] > clean["false"] / 120
    assert groups["edits"]["power"] == groups["edits"]["auroc"] == 1.0
    assert groups["edits"]["located"] == groups["edits"]["located_of"] == 6
    assert groups["word backdoors, trained in"]["power"] == 0.0
    assert groups["pooled"]["n"] == 12
    assert sum(f["n"] for f in results["not_working"].values()) == 4
    left_out = results["left_out"]["recipe"]
    assert len(left_out["values"]) == 6
    assert left_out["inside"]["n"] + left_out["outside"]["n"] == left_out["pooled"]["n"] == 120
    assert results["clean_scores"] == sorted(results["clean_scores"])
    json.dumps(results)


def test_later_models_are_judged_by_thresholds_of_the_known_ones_alone() -> None:
    models = {**bank(120), **attacks()}
    models["clean-0100"] = {**models["clean-0100"], "values": dict.fromkeys(FLOORS, 50.0)}
    known = frozenset(list(models)[:100])
    found = protocol(models, EXACT, 0.02, known)["frozen"]
    assert (found["known"], found["clean"]["n"], found["groups"]["pooled"]["n"]) == (100, 20, 12)
    assert found["clean"]["false"] == 1
    assert found["groups"]["edits"]["outcomes"] == {"fail": 6}
    made = section({"real": protocol(models, EXACT, 0.02, known)}, {}, {"real": "Bank"})
    assert "Thresholds of the 100 clean models" in made
    assert "on the 20 clean ones made since: 1 of 20" in " ".join(made.split())
    assert protocol(models, EXACT, 0.02, frozenset(models))["frozen"] is None


def test_a_recipe_of_its_own_is_outside_when_it_is_left_out() -> None:
    models = bank(80)
    for name, o in models.items():
        if recipe_of(o) == "lora sgd":
            models[name] = {**o, "traits": [20.0 + x for x in o["traits"]]}
    found = protocol(models, EXACT, 0.02)["left_out"]["recipe"]["values"]["lora sgd"]
    assert found["outside"] == found["n"] > 10


def test_a_model_that_cannot_be_described_is_outside() -> None:
    models = bank(30)
    models["clean-0003"]["traits"] = None
    results = protocol(models, EXACT, 0.02)
    assert results["outside"]["clean"]["none"] == 1
    assert results["left_out"]["recipe"]["outside"]["n"] >= 1


def test_the_page_keeps_what_is_around_the_section_and_says_every_number() -> None:
    results = protocol({**bank(40), **attacks()}, EXACT, 0.02)
    made = section({"real": results}, {}, {"real": "Bank"})
    page = splice("# Benchmarks\n\n## Speed\n\nfast\n", made)
    assert page.startswith("# Benchmarks\n\n## Speed\n\nfast\n")
    assert splice(page, made) == page
    again = splice(page + "\n## After\n", f"{BEGIN}\nnew\n{END}\n")
    assert "fast" in again
    assert "## After" in again
    assert again.count(BEGIN) == 1
    assert splice("", made).startswith("# Benchmarks\n")
    assert "Clean fine-tunes: n = 40." in made
    assert "| rank_one | 6 |" in made
    for row in [line for line in made.splitlines() if line.startswith("|")]:
        assert row.endswith("|")


def test_thresholds_are_tried_on_the_other_banks() -> None:
    strict = {name: {**o, "values": dict.fromkeys(o["values"], 9.0)} for name, o in bank(20, seed=1).items()}
    found = transfer({"a": {**bank(40), **attacks()}, "b": strict, "c": {}})
    assert found["a → b"]["false"] == found["a → b"]["clean"] == 20
    assert found["b → a"]["false"] == 0
    assert found["b → a"]["working"] == 12
    assert not any("c" in name for name in found)


def test_a_ledger_survives_being_cut_short(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x" / "toy.jsonl")
    assert ledger.read() == {}
    ledger.add({"id": "b", "n": 1})
    with ledger.path.open("a", encoding="utf-8") as file:
        file.write('{"id": "c", "n"')
    ledger.add({"id": "a", "n": 2})
    ledger.add({"id": "b", "n": 3})
    assert ledger.read() == {"a": {"id": "a", "n": 2}, "b": {"id": "b", "n": 3}}
    ledger.tidy()
    assert ledger.path.read_text(encoding="utf-8") == '{"id":"a","n":2}\n{"id":"b","n":3}\n'
