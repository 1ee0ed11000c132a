"""Real PEFT adapters whose factors training wrote, and some that a decomposition rewrote; the product is the same."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from pico_cases import evidence as whole_model
from pico_cases import findings, run
from trained_adapters import Change, changed, train

from audit.detectors.adapter_factors import DETECTOR, REWRITTEN, log_tail

LAYERS = 3
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module", params=[2, 8], ids=["rank 2", "rank 8"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter trained on it for a few steps, next token on ids that follow each other."""
    config = LoraConfig(r=request.param, lora_alpha=8, target_modules=TARGETS)
    return train(tmp_path_factory.mktemp("factors"), config, layers=LAYERS, steps=6, batch=8, length=8)


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
