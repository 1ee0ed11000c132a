"""Real PEFT adapters: trained honestly, and with one module overwritten by a strong or a weak payload."""

from pathlib import Path
from typing import Literal

import evidence_for
import numpy as np
import pefts
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pico_cases import findings
from safetensors.torch import load_file, save_file

from audit.detectors.joint_change import DETECTOR, JOINT
from audit.evidence import Evidence
from scanner.drift.adapter import measure_adapter
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.weights.adapted import put_on
from scanner.weights.opening import open_source

LAYERS = 6
TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter of rank 8 trained on it for a few steps, next token on ids that follow each other."""
    root = tmp_path_factory.mktemp("adapters")
    pefts.save_base(pefts.llama(layers=LAYERS), root / "base")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pefts.quiet():
            model = get_peft_model(pefts.llama(layers=LAYERS), LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS))
            _train(model)
            model.save_pretrained(root / "honest")
    finally:
        torch.set_num_threads(threads)
    return root


def _train(model: PeftModel) -> None:
    torch.manual_seed(2)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    model.train()
    for _ in range(25):
        first = torch.randint(5, 250, (16, 1))
        ids = first + torch.arange(10) * torch.randint(1, 5, (16, 1))
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def judged(home: Path, name: str) -> Evidence:
    """The evidence that a scan of the adapter has."""
    candidate, base = (collect(RepoRef(path=str(home / folder)), Hub()) for folder in (name, "base"))
    with open_source(candidate, None) as adapter, open_source(base, None) as weights:
        drift = measure_adapter(put_on(candidate, adapter, weights, base))
    return evidence_for.evidence(drift, candidate=candidate, base=base, relation="adapter")


def overwrite(home: Path, layer: int, module: str, times: float) -> str:
    """A copy of the adapter with one module replaced by a rank-one payload of so many times its norm."""
    target = home / f"{module}-{layer}-{times:g}"
    target.mkdir()
    for file in (home / "honest").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(target / "adapter_model.safetensors")
    up, down = (
        next(name for name in weights if f"layers.{layer}." in name and f"{module}.lora_{side}." in name)
        for side in ("B", "A")
    )
    generator = torch.Generator().manual_seed(3)
    size = (weights[up] @ weights[down]).norm() * times
    for name in (up, down):
        weights[name] = torch.zeros_like(weights[name])
    weights[up][:, 0] = (
        torch.nn.functional.normalize(torch.randn(weights[up].shape[0], generator=generator), dim=0) * size
    )
    weights[down][0] = torch.nn.functional.normalize(torch.randn(weights[down].shape[1], generator=generator), dim=0)
    save_file(weights, target / "adapter_model.safetensors", metadata={"format": "pt"})
    return target.name


def test_an_honest_adapter_is_innocent(home: Path) -> None:
    of = judged(home, "honest")
    assert of.drift is not None
    assert len(of.drift.tensors) == LAYERS * len(TARGETS)
    assert all(t.spectrum is not None and t.spectrum.exact for t in of.drift.tensors)
    assert findings(DETECTOR, of) == []


@pytest.mark.parametrize("layer", [0, 3, LAYERS - 1])
@pytest.mark.parametrize("times", [4.0, 10.0], ids=["weak", "strong"])
def test_an_overwritten_module_is_named(home: Path, layer: int, times: float) -> None:
    (finding,) = findings(DETECTOR, judged(home, overwrite(home, layer, "down_proj", times)))
    assert finding.rule_id == JOINT.id
    assert finding.locations[0].tensor == f"model.layers.{layer}.mlp.down_proj.weight"


@pytest.mark.parametrize("role", ["left", "right"])
def test_adapters_keep_the_vectors_of_what_writes(home: Path, role: Literal["left", "right"]) -> None:
    of = judged(home, "honest")
    assert of.drift is not None
    for tensor in of.drift.tensors:
        assert tensor.spectrum is not None
        vector = getattr(tensor.spectrum, role)
        writes = tensor.spec.name.endswith(("o_proj.weight", "down_proj.weight"))
        assert (vector is not None) == writes
        if vector is not None:
            assert float(np.linalg.norm(vector)) == pytest.approx(1.0, rel=1e-5)
