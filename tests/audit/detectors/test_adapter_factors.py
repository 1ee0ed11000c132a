"""Real PEFT adapters whose factors training wrote, and some that a decomposition rewrote; the product is the same."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import evidence_for
import pefts
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pico_cases import evidence as whole_model
from pico_cases import findings, run
from safetensors.torch import load_file, save_file

from audit.detectors.adapter_factors import DETECTOR, REWRITTEN, log_tail
from audit.evidence import Evidence
from scanner.drift.adapter import measure_adapter
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.weights.adapted import put_on
from scanner.weights.opening import open_source

LAYERS = 3
TARGETS = ["q_proj", "v_proj", "down_proj"]
WEIGHTS = "adapter_model.safetensors"
Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module", params=[2, 8], ids=["rank 2", "rank 8"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter trained on it for a few steps, next token on ids that follow each other."""
    root = tmp_path_factory.mktemp("factors")
    pefts.save_base(pefts.llama(layers=LAYERS), root / "base")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pefts.quiet():
            torch.manual_seed(2)
            config = LoraConfig(r=request.param, lora_alpha=8, target_modules=TARGETS)
            model = get_peft_model(pefts.llama(layers=LAYERS), config)
            optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
            model.train()
            for _ in range(6):
                ids = torch.randint(5, 250, (8, 1)) + torch.arange(8) * torch.randint(1, 5, (8, 1))
                model(input_ids=ids, labels=ids).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            model.save_pretrained(root / "honest")
    finally:
        torch.set_num_threads(threads)
    return root


def changed(home: Path, name: str, change: Change, **config: Any) -> Evidence:
    """The evidence of a copy of the honest adapter after a change of its factors, or of its configuration."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    for file in (home / "honest").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    candidate, base = (collect(RepoRef(path=str(path)), Hub()) for path in (folder, home / "base"))
    with open_source(candidate, None) as adapter, open_source(base, None) as source:
        drift = measure_adapter(put_on(candidate, adapter, source, base))
    assert candidate.adapter_config is not None
    candidate = dataclasses.replace(candidate, adapter_config={**candidate.adapter_config, **config})
    return evidence_for.evidence(drift, candidate=candidate, base=base, relation="adapter")


def decompose(layers: Iterable[int], dtype: torch.dtype = torch.float32) -> Change:
    """Write the same products as their singular value decompositions, in the modules of some layers."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        for up in [n for n in weights if "lora_B" in n and int(n.split("layers.")[1].split(".")[0]) in layers]:
            down = up.replace("lora_B", "lora_A")
            rank = weights[down].shape[0]
            left, values, right = torch.linalg.svd((weights[up] @ weights[down]).double(), full_matrices=False)
            root = values[:rank].sqrt()
            weights[up] = (left[:, :rank] * root).to(dtype).float().contiguous()
            weights[down] = (root[:, None] * right[:rank]).to(dtype).float().contiguous()

    return change


def nothing(_: dict[str, torch.Tensor]) -> None:
    """Leave the factors as they are."""


def test_what_training_wrote_is_innocent(home: Path) -> None:
    of = changed(home, "copy", nothing)
    assert of.drift is not None
    tails = [log_tail(tensor) for tensor in of.drift.tensors]
    assert len(tails) == LAYERS * len(TARGETS)
    assert all(tail is not None and -12 < tail <= 0 for tail in tails)
    hits, skips = run(DETECTOR, of)
    assert [(hit.rule_id, hit.score, hit.finding) for hit in hits] == [(REWRITTEN.id, 0.0, None)]
    assert skips == []


def test_modules_that_were_decomposed_are_named(home: Path) -> None:
    of = changed(home, "rewritten", decompose([1]))
    hits, _ = run(DETECTOR, of)
    (hit,) = hits
    assert hit.score == of.profile.value(f"{REWRITTEN.id}.score") >= 0.5
    assert hit.finding is not None
    assert hit.finding.severity == "medium"
    assert {str(place.tensor).split("layers.")[1][0] for place in hit.finding.locations} == {"1"}
    assert len(hit.finding.locations) == len(TARGETS)
    assert f"{len(TARGETS)} of {LAYERS * len(TARGETS)} modules (layers 1)" in hit.finding.explanation


@pytest.mark.parametrize("home", [8], indirect=True, ids=["rank 8"])  # one pair of directions is too few
def test_rounding_to_half_precision_does_not_hide_a_decomposition(home: Path) -> None:
    assert len(findings(DETECTOR, changed(home, "half", decompose([0, 2], torch.float16)))) == 1


def test_an_adapter_that_was_decomposed_as_a_whole_only_informs(home: Path) -> None:
    hits, _ = run(DETECTOR, changed(home, "whole", decompose(range(LAYERS))))
    (hit,) = hits
    assert hit.score == 0.0
    assert hit.finding is not None
    assert hit.finding.severity == "info"
    assert "extracted, resized or merged" in hit.finding.explanation


@pytest.mark.parametrize("config", [{"init_lora_weights": "pissa"}, {"peft_type": "ADALORA"}], ids=["start", "kind"])
def test_factors_that_did_not_start_at_random_are_not_judged(home: Path, config: dict[str, Any]) -> None:
    hits, skips = run(DETECTOR, changed(home, "other", decompose([1]), **config))
    assert hits == []
    assert [skip.what for skip in skips] == [REWRITTEN.id]


def test_directions_of_zeros_and_ranks_of_one_say_nothing(home: Path) -> None:
    def thin(weights: dict[str, torch.Tensor]) -> None:
        for name, factor in weights.items():
            (factor if "lora_A" in name else factor.T)[1:] = 0.0

    hits, skips = run(DETECTOR, changed(home, "thin", thin))
    assert hits == []
    assert "rank 2 or more" in skips[0].why


def test_a_whole_model_has_no_factors() -> None:
    assert run(DETECTOR, whole_model()) == ([], [])
