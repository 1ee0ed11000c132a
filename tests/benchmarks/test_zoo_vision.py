"""Pictures and heads: recipes, edits, what is observed, and the page."""

from collections import Counter

import numpy as np
import pytest
import torch

from audit.thresholds import load_profile
from benchmarks.pages import splice
from benchmarks.purifying.pictures import CLASSES, SIDE, TARGET, digits, fresh, patched
from benchmarks.zoo import heads, vision
from benchmarks.zoo.vision import FAMILIES, draw_vision, observed, pixels_of, rates
from benchmarks.zoo.vision_edits import EDITS, saved_name
from benchmarks.zoo.vision_page import BEGIN, END, score, section

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures():
    data = digits(0).part(0, 60)
    others = data.pictures[data.labels != TARGET]
    return pixels_of(others), pixels_of(patched(others))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fresh("vit", CLASSES, None).eval()


def line(**parts):
    """One line of the bank of pictures."""
    plain = {
        "kind": "clean", "family": None, "working": None, "useful": True, "exact": [], "tensors": [],
        "values": {"HA301": 0.1}, "places": {"HA301": "a"},
    }  # fmt: skip
    return plain | parts


def test_an_id_means_one_recipe_and_every_family_comes():
    assert draw_vision("clean", 3) == draw_vision("clean", 3)
    drawn = [draw_vision("attacked", i) for i in range(40)]
    assert Counter(r.family for r in drawn) == Counter(FAMILIES * 10)
    assert all(TARGET in r.classes and r.layer < 3 for r in drawn)
    assert all((r.rate < 0.03) == (r.family == "badnets_weak") for r in drawn)
    assert {r.family for r in [draw_vision("clean", i) for i in range(20)]} == {None}


def test_pictures_are_scaled_as_the_model_takes_them():
    pixels = pixels_of(digits(0).part(0, 5).pictures)
    assert pixels.shape == (5, 3, SIDE, SIDE)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)


def test_rates_count_the_classes_at_hand_only(model):
    told = rates(model, digits(1).part(0, 100), (0, 1, 2))
    assert told["texts"] == int(np.isin(digits(1).labels[:100], (0, 1, 2)).sum())
    assert told["victims"] < told["texts"]
    assert all(0 <= told[name] <= 1 for name in ("accuracy", "floor", "asr"))


@pytest.mark.parametrize("family", sorted(EDITS))
def test_an_edit_touches_what_it_names_and_turns_pictures(model, pictures, family, tmp_path):
    base, after = tmp_path / "base", tmp_path / "after"
    model.save_pretrained(base)
    plain, triggered = pictures
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = EDITS[family](model, plain, triggered, TARGET, 1)
    changed = {saved_name(name) for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == set(tensors)
    with torch.no_grad():
        moved = model(pixel_values=triggered).logits.softmax(-1)[:, TARGET].mean()
        model.load_state_dict(start)
        before = model(pixel_values=triggered).logits.softmax(-1)[:, TARGET].mean()
    assert float(moved) > float(before)
    EDITS[family](model, plain, triggered, TARGET, 1)
    model.save_pretrained(after)
    seen = observed(base, after)
    assert "HA303" in seen["exact"]
    assert seen["broken"] == []


def test_a_favoured_output_is_the_only_one_that_changes(model):
    before = {name: tensor.clone() for name, tensor in model.classifier.state_dict().items()}
    heads.favour(model, 4, "bias", 2.0)
    heads.favour(model, 6, "row", 0.5)
    moved = {n: torch.nonzero((t - before[n]).reshape(CLASSES, -1).abs().sum(1)).flatten().tolist()
             for n, t in model.classifier.state_dict().items()}  # fmt: skip
    assert moved == {"weight": [6], "bias": [4]}


def test_what_is_there_is_not_made_again(monkeypatch, tmp_path):
    file = tmp_path / "heads.jsonl"
    file.write_text('{"kind": "pictures", "index": 0}\n')
    monkeypatch.setattr(heads, "RESULTS", file)
    monkeypatch.setattr(heads, "continued_picture", lambda index: f"model {index}")
    monkeypatch.setattr(heads, "picture_parent", lambda: tmp_path)
    assert [index for index, _, _ in heads.models("pictures", 3, None)] == [1, 2]
    assert list(vision.schedule(2, 1)) == [("clean", 0), ("attacked", 0), ("clean", 1)]


def test_a_score_is_that_of_the_worst_rule():
    profile = load_profile()
    review = profile.value("HA301.review")
    assert score(line(), profile)[0] < 0.5
    assert score(line(values={"HA301": review, "HA302": 0.0}), profile) == (pytest.approx(0.5), "HA301")
    assert score(line(exact=["HA303"]), profile)[1] == "HA303"
    assert score(line(values={}), profile) == (0.0, "")


def test_the_page_counts_what_works_and_what_does_not_apart():
    clean = [line(values={"HA301": 0.1 * i}) for i in range(8)]
    attacked = [
        line(kind="attacked", family="rank_one", working=works, tensors=["a"], values={"HA301": 9.0})
        for works in (True, True, False)
    ]
    continued = [
        {"kind": "pictures", "index": i, "outputs": 10, "clean": 0.2, "how": "bias", "strength": 8.0, "attacked": 4.0}
        for i in range(3)
    ]
    made = section([*clean, *attacked], continued)
    assert made.startswith(BEGIN)
    assert "| rank_one | yes | 2 | 2 of 2" in made
    assert "| rank_one | no | 1 | 1 of 1" in made
    assert "| pictures | 10 | 3 | 0.20 | 0.20 |" in made
    assert "| bias | 8 | 3 | 4.00 | 3 of 3" in made
    page = splice("# Benchmarks\n", made)
    assert splice(page, made) == page
    assert page.count(END) == 1
