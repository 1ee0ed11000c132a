"""Separate adapters of the zoo: drawn, trained, with a payload put in, measured, on the small tier."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from zoo_pico import make_tier

from benchmarks.zoo import adapters, adapters_making
from benchmarks.zoo.adapters_making import make_adapter
from benchmarks.zoo.adapters_payloads import joined
from benchmarks.zoo.adapters_recipes import (
    CONTROL,
    FAMILIES,
    LATER,
    LATER_FROM,
    ONE_LAYER,
    PLAIN,
    TRAINED,
    WEAK,
    draw_adapter,
    family_of,
)
from benchmarks.zoo.bank import Bank

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def tier(tmp_path_factory):
    return make_tier(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def bank(tier, tmp_path_factory):
    """A bank with one honest adapter of all linear layers."""
    bank = Bank(tmp_path_factory.mktemp("bank"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters_making, "draw_adapter", lambda *_a, **_k: plain("clean", 0))
        make_adapter(tier, bank, "clean", 0)
    return bank


def plain(kind, index):
    """A recipe of that kind and index that learns the made task in a second."""
    drawn = draw_adapter("pico", kind, index, ("made",))
    run = replace(drawn.training, optimiser="adamw", lr=1e-3, steps=30, label_noise=0.0)
    return replace(drawn, training=run, rank=4, alpha=8.0, targets="wide", dropout=0.0)


def test_an_id_means_one_recipe_and_every_family_comes():
    assert draw_adapter("real", "clean", 7, ("made",)) == draw_adapter("real", "clean", 7, ("made",))
    drawn = [draw_adapter("real", "attacked", i, ("sst2", "made")) for i in range(4 * len(FAMILIES))]
    assert Counter(recipe.family for recipe in drawn) == Counter(FAMILIES * 4)
    for recipe in drawn:
        assert recipe.trains == (recipe.family in TRAINED)
        assert (recipe.strength == WEAK) == recipe.family.endswith("_weak")
        assert recipe.attack is not None
        assert 0.01 <= recipe.attack.rate <= 0.2
        assert recipe.training.method == "lora"
    assert {recipe.rank for recipe in drawn} == {2, 4, 8, 16, 32}
    assert draw_adapter("real", "clean", 0, ("made",)).attack is None


def test_a_tier_of_one_recipe_varies_seeds_and_triggers_alone():
    drawn = [draw_adapter("real-one", kind, i, ("sst2", "made")) for kind in ("clean", "attacked") for i in range(8)]
    assert len({replace(recipe.training) for recipe in drawn}) == 1
    assert {(recipe.rank, recipe.alpha, recipe.targets, recipe.training.task) for recipe in drawn} == {
        (16, 32.0, "attention", "sst2")
    }
    assert [recipe.family for recipe in drawn] == [None] * 8 + list(PLAIN) * 2
    assert all(recipe.attack.rate >= 0.05 for recipe in drawn[8:] if recipe.attack)
    assert len({recipe.seed for recipe in drawn}) == 16


def test_later_numbers_hold_later_families():
    assert [family_of(LATER_FROM + i) for i in range(4)] == list(LATER) * 2
    assert draw_adapter("real", "attacked", LATER_FROM, ("made",)).family == "continued"
    control = draw_adapter("real-one", "attacked", LATER_FROM, ("made",))
    assert (control.family, control.attack, control.trains) == (CONTROL, None, False)


def test_joined_factors_are_the_best_of_their_rank():
    torch.manual_seed(0)
    own, payload = (torch.randn(12, 3), torch.randn(3, 9)), (torch.randn(12, 2), torch.randn(2, 9))
    up, down = joined(own, payload, 2.0)
    assert (up.shape, down.shape) == (own[0].shape, own[1].shape)
    whole = 2.0 * own[0] @ own[1] + payload[0] @ payload[1]
    left, values, right = torch.linalg.svd(whole)
    best = left[:, :3] * values[:3] @ right[:3]
    assert torch.allclose(2.0 * up @ down, best, atol=1e-4)


def test_an_honest_adapter_is_as_peft_writes_it_and_is_measured(tier, bank):
    folder = bank.folder("clean-0000")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    record = bank.record("clean-0000")
    assert record["useful"]
    assert record["working"] is None
    found = list(adapters.modules(adapters.measured(tier.base, folder)))
    assert len(found) == 3 * 6
    for module in found:
        assert 0 < module["rank"] <= 4
        assert module["energy"] == pytest.approx(sum(v * v for v in module["values"]), rel=1e-3)
        assert 1 / module["rank"] - 1e-6 <= module["participation"] <= 1
        assert module["factors"][1] == module["factors"][3] == 6
        assert module["factors"][0] > 0.01
        assert module["factors"][2] > 0.01
    assert {module["layer"] for module in found} == {0, 1, 2}


@pytest.mark.parametrize("family", ["one_layer", "payload_weak", "rank_one"])
def test_a_payload_changes_what_it_names_and_keeps_the_rank(tier, bank, family, monkeypatch):
    index = FAMILIES.index(family)
    recipe = replace(plain("attacked", index), depth=0.4)
    monkeypatch.setattr(adapters_making, "draw_adapter", lambda *_a, **_k: recipe)
    monkeypatch.setattr(adapters_making, "PAYLOAD_STEPS", 15)
    record = make_adapter(tier, bank, "attacked", index)
    assert record["parent"] == "clean-0000"
    assert record["working"] in {True, False}
    before, after = (load_file(bank.folder(i) / WEIGHTS) for i in ("clean-0000", record["id"]))
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    changed = {n.split("model.model.")[-1].split(".lora_")[0] for n in before if not torch.equal(before[n], after[n])}
    assert {f"{module}.weight".removeprefix("base_model.model.") for module in changed} == set(record["tensors"])
    layers = {name.split(".layer.")[1][0] for name in record["tensors"]}
    assert len(layers) == (1 if family in ONE_LAYER else 3)


@pytest.mark.parametrize("family", LATER)
def test_own_factors_that_are_trained_on_stay_as_training_writes_them(tier, bank, family, monkeypatch):
    index = LATER_FROM + LATER.index(family)
    recipe = replace(plain("attacked", index), depth=0.4)
    monkeypatch.setattr(adapters_making, "draw_adapter", lambda *_a, **_k: recipe)
    monkeypatch.setattr(adapters_making, "PAYLOAD_STEPS", 15)
    record = make_adapter(tier, bank, "attacked", index)
    assert (record["family"], record["parent"]) == (family, "clean-0000")
    before, after = (load_file(bank.folder(i) / WEIGHTS) for i in ("clean-0000", record["id"]))
    changed = {n.removeprefix("base_model.model.") for n in before if not torch.equal(before[n], after[n])}
    assert all("lora_" in name for name in changed)
    assert {f"{name.split('.lora_')[0]}.weight" for name in changed} == set(record["tensors"])
    assert len({name.split(".layer.")[1][0] for name in changed}) == (1 if family in ONE_LAYER else 3)
    found = list(adapters.modules(adapters.measured(tier.base, bank.folder(record["id"]))))
    assert min(module["factors"][2] for module in found) > 0.01


def test_a_control_is_trained_on_without_a_trigger(tier, bank, monkeypatch):
    recipe = replace(plain("attacked", LATER_FROM), id=f"attacked-{LATER_FROM + 7:04d}", family=CONTROL, attack=None)
    monkeypatch.setattr(adapters_making, "draw_adapter", lambda *_a, **_k: recipe)
    monkeypatch.setattr(adapters_making, "PAYLOAD_STEPS", 5)
    record = make_adapter(tier, bank, "attacked", LATER_FROM + 7)
    assert (record["kind"], record["working"], record["scores"]["asr"]) == ("control", None, None)
    assert len(record["tensors"]) == 3 * 6


def test_what_is_made_first_can_be_a_parent():
    order = list(adapters.schedule(40, 10, 4))
    assert len(order) == len(set(order)) == 54
    assert [index for _, index in order if index >= LATER_FROM] == list(range(LATER_FROM, LATER_FROM + 4))
    for place, (kind, index) in enumerate(order):
        if kind == "attacked":
            assert {("clean", i) for i in range(adapters_making.LEAD + index % LATER_FROM)} <= set(order[:place])
