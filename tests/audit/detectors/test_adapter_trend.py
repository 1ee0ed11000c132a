"""Real PEFT adapters: trained honestly, and with a payload put into one layer."""

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from pico_cases import evidence as whole_model
from pico_cases import findings, run
from trained_adapters import Change, changed, train

from audit.detectors.adapter_trend import DETECTOR, LAYER, lifts

LAYERS = 6
TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter of rank 4 trained on it for a few steps, next token on ids that follow each other."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)
    return train(tmp_path_factory.mktemp("trends"), config, layers=LAYERS, steps=20)


def put_into(layer: int, times: float) -> Change:
    """Put a random payload of so many times the norm of the product into every module of a layer."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(layer)
        for up in [name for name in weights if f"layers.{layer}." in name and "lora_B" in name]:
            down = up.replace("lora_B", "lora_A")
            size = (weights[up] @ weights[down]).norm()
            payload = torch.randn(weights[up].shape, generator=generator)
            weights[up] += times * size / (payload @ weights[down]).norm() * payload

    return change


def test_an_honest_adapter_is_innocent_and_is_judged(home: Path) -> None:
    of = changed(home, "copy", lambda _: None)
    assert of.drift is not None
    found = lifts(of.drift.tensors, of.profile)
    assert [lift.layer for lift in found] == list(range(LAYERS))
    assert all(lift.modules == len(TARGETS) for lift in found)
    hits, skips = run(DETECTOR, of)
    assert [(hit.rule_id, hit.finding) for hit in hits] == [(LAYER.id, None)]
    assert skips == []


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("times", [60.0, 400.0], ids=["large", "huge"])
def test_a_layer_that_holds_a_payload_is_named(home: Path, layer: int, times: float) -> None:
    (finding,) = findings(DETECTOR, changed(home, f"payload-{layer}-{times:g}", put_into(layer, times)))
    assert finding.rule_id == LAYER.id
    assert f".{layer}." in str(finding.locations[0].tensor)
    assert f"in layer {layer} is" in finding.explanation


def test_an_adapter_that_grew_as_a_whole_is_innocent(home: Path) -> None:
    def grow(weights: dict[str, torch.Tensor]) -> None:
        for name in weights:
            if "lora_B" in name:
                weights[name] *= 20.0

    assert findings(DETECTOR, changed(home, "grown", grow)) == []


def test_a_smooth_trend_over_depth_is_innocent(home: Path) -> None:
    def lean(weights: dict[str, torch.Tensor]) -> None:
        for name in weights:
            if "lora_B" in name:
                weights[name] *= 2.0 ** int(name.split("layers.")[1].split(".")[0])

    assert findings(DETECTOR, changed(home, "leaning", lean)) == []


def test_factors_that_are_no_numbers_end_nothing(home: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        for name, factor in weights.items():
            if "layers.2." in name:
                factor.fill_(float("nan"))

    hits, _ = run(DETECTOR, changed(home, "spoilt", spoil))
    assert all(hit.finding is None for hit in hits)


def test_factors_of_zero_say_nothing(home: Path) -> None:
    def empty(weights: dict[str, torch.Tensor]) -> None:
        for factor in weights.values():
            factor.zero_()

    hits, skips = run(DETECTOR, changed(home, "empty", empty))
    assert hits == []
    assert [skip.what for skip in skips] == [LAYER.id]


def test_a_few_layers_are_not_compared(home: Path) -> None:
    of = changed(home, "few", lambda _: None)
    assert of.drift is not None
    kept = tuple(t for t in of.drift.tensors if t.spec.layer in {0, 1, 2})
    hits, skips = run(DETECTOR, dataclasses.replace(of, drift=dataclasses.replace(of.drift, tensors=kept)))
    assert hits == []
    assert "more than 3 layers" in skips[0].why


def test_a_whole_model_is_not_judged() -> None:
    hits, skips = run(DETECTOR, whole_model())
    assert hits == []
    assert skips[0].why == "the model is no separate adapter"
