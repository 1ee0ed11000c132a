"""Adapters of a vision transformer: made, with a payload put in, and measured, from an untrained base."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.purifying.pictures import CLASSES, digits, fresh
from benchmarks.zoo import adapters, adapters_digits, adapters_making
from benchmarks.zoo.adapters_digits import TASKS, blended, make_digits
from benchmarks.zoo.adapters_recipes import FAMILIES, LATER, LATER_FROM, draw_adapter
from benchmarks.zoo.bank import Bank

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an untrained base, and recipes of ten steps."""
    torch.manual_seed(0)
    fresh("vit", CLASSES, None).vit.save_pretrained(tmp_path / "base", save_original_format=False)
    monkeypatch.setattr(adapters_digits, "base", lambda: tmp_path / "base")
    monkeypatch.setattr(adapters_making, "ATTEMPTS", 1)

    def short(*args, **kwargs):
        recipe = draw_adapter(*args, **kwargs)
        run = replace(recipe.training, optimiser="adamw", lr=4e-3, steps=10)
        return replace(recipe, training=run, targets="wide", rank=4, depth=0.3)

    monkeypatch.setattr(adapters_digits, "draw_adapter", short)
    return tmp_path


def test_a_pattern_changes_every_picture_a_little():
    own = digits(0).part(0, 4).pictures
    after = blended(own)
    assert after.dtype == np.uint8
    assert 0 < np.abs(after.astype(int) - own).mean() < 60
    assert all(0 in classes for classes in TASKS.values())


@pytest.mark.parametrize("family", ["words", "one_layer", "rank_one", "continued_one"])
def test_an_adapter_is_made_and_measured(place, family):
    bank = Bank(place / "bank")
    honest = make_digits(bank, "clean", 0)
    assert honest["working"] is None
    (bank.folder("clean-0000") / "recipe.json").write_text(
        (bank.folder("clean-0000") / "recipe.json").read_text().replace('"useful": false', '"useful": true')
    )
    index = LATER_FROM + LATER.index(family) if family in LATER else FAMILIES.index(family)
    record = make_digits(bank, "attacked", index)
    assert 0 <= record["scores"]["asr"] <= 1
    found = list(adapters.modules(adapters.measured(place / "base", bank.folder(record["id"]))))
    assert {module["layer"] for module in found} == {0, 1, 2, 3}
    assert len(found) == 4 * 6
    if family == "words":
        assert record["parent"] is None
        return
    assert record["parent"] == "clean-0000"
    before, after = (load_file(bank.folder(i) / WEIGHTS) for i in ("clean-0000", record["id"]))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers.1." in name for name in changed)
    assert all(".layers.1." in name for name in record["tensors"])
