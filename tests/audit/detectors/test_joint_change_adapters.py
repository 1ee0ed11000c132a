"""Real PEFT adapters: trained honestly, and with one module overwritten by a strong or a weak payload."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from peft import LoraConfig
from pico_cases import findings
from trained_adapters import Change, changed, evidence_of, train

from audit.detectors.joint_change import DETECTOR, JOINT

LAYERS = 6
TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter of rank 8 trained on it for a few steps, next token on ids that follow each other."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS)
    return train(tmp_path_factory.mktemp("adapters"), config, layers=LAYERS, steps=25)


def overwrite(layer: int, module: str, times: float) -> Change:
    """Replace one module by a rank-one payload of so many times its norm."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        up, down = (
            next(name for name in weights if f"layers.{layer}." in name and f"{module}.lora_{side}." in name)
            for side in ("B", "A")
        )
        generator = torch.Generator().manual_seed(3)
        size = (weights[up] @ weights[down]).norm() * times
        left = torch.nn.functional.normalize(torch.randn(weights[up].shape[0], generator=generator), dim=0)
        right = torch.nn.functional.normalize(torch.randn(weights[down].shape[1], generator=generator), dim=0)
        for name in (up, down):
            weights[name] = torch.zeros_like(weights[name])
        weights[up][:, 0] = left * size
        weights[down][0] = right

    return change


def test_an_honest_adapter_is_innocent(home: Path) -> None:
    of = evidence_of(home, "honest")
    assert of.drift is not None
    assert len(of.drift.tensors) == LAYERS * len(TARGETS)
    assert all(t.spectrum is not None and t.spectrum.exact for t in of.drift.tensors)
    assert findings(DETECTOR, of) == []


@pytest.mark.parametrize("layer", [0, 3, LAYERS - 1])
@pytest.mark.parametrize("times", [4.0, 10.0], ids=["weak", "strong"])
def test_an_overwritten_module_is_named(home: Path, layer: int, times: float) -> None:
    (finding,) = findings(DETECTOR, changed(home, f"payload-{layer}-{times:g}", overwrite(layer, "down_proj", times)))
    assert finding.rule_id == JOINT.id
    assert finding.locations[0].tensor == f"model.layers.{layer}.mlp.down_proj.weight"


@pytest.mark.parametrize("role", ["left", "right"])
def test_adapters_keep_the_vectors_of_what_writes(home: Path, role: Literal["left", "right"]) -> None:
    of = evidence_of(home, "honest")
    assert of.drift is not None
    for tensor in of.drift.tensors:
        assert tensor.spectrum is not None
        vector = getattr(tensor.spectrum, role)
        writes = tensor.spec.name.endswith(("o_proj.weight", "down_proj.weight"))
        assert (vector is not None) == writes
        if vector is not None:
            assert float(np.linalg.norm(vector)) == pytest.approx(1.0, rel=1e-5)
