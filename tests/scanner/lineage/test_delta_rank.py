"""The rank of real changes: adapters merged by peft in every dtype against training, edits and rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from descents import traced
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
from weightfolders import facts_of

from scanner.drift.measure import measure
from scanner.lineage.delta_rank import check_delta_rank, delta_rank
from scanner.lineage.relation import measure_relation
from scanner.records import Check, Relation
from scanner.weights.opening import open_source

# peft asks transformers 5 for a name that will be gone in 6.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG = LlamaConfig(hidden_size=192, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384, vocab_size=200)


def body(dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG).to(dtype)


def merged(dtype: torch.dtype, rank: int, size: float) -> torch.nn.Module:
    """An adapter on every linear layer, its delta ``size`` of the weights, merged by peft."""
    model = get_peft_model(body(dtype), LoraConfig(r=rank, target_modules="all-linear", lora_alpha=2 * rank))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, up in model.named_parameters():
            if "lora_B" in name:
                layer = model.get_submodule(name.split(".lora_B")[0])
                drawn = torch.randn(up.shape, generator=generator) * torch.linspace(1, 0.2, rank)
                delta = 2 * drawn @ layer.lora_A["default"].weight.float()
                up.copy_(drawn * (size * layer.weight.float().norm() / delta.norm()))
    return model.merge_and_unload()


def trained(dtype: torch.dtype, size: float = 0.01, *, cut: int | None = None, only: int | None = None):
    """Changes whose singular values fall as those of training do; cut down to a rank, or in one matrix only."""
    model = body(dtype)
    generator = torch.Generator().manual_seed(7)
    matrices = [p for n, p in model.named_parameters() if ".layers." in n and p.ndim > 1]
    with torch.no_grad():
        for place, weight in enumerate(matrices):
            left, values, right = torch.linalg.svd(torch.randn(weight.shape, generator=generator), full_matrices=False)
            values = (1.0 + torch.arange(len(values))) ** -0.7
            values[cut:] = 0 if cut else values[cut:]
            delta = left @ torch.diag(values) @ right
            if only is None or only == place:
                weight.copy_(weight.float() + delta * (size * weight.float().norm() / delta.norm()))
    return model


def shown(base: torch.nn.Module, candidate: torch.nn.Module, folder: Path) -> tuple[Relation, str, Check]:
    base.save_pretrained(folder / "base")
    candidate.save_pretrained(folder / "mine")
    found = traced(folder / "base", folder / "mine")
    ours, theirs = (facts_of(folder / name) for name in ("mine", "base"))
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        drift = measure(found.alignment, other, mine, threads=1)
        check = check_delta_rank(drift, other, mine, seed=1)
    measured = measure_relation((*found.checks, check), drift)
    return measured.relation, measured.check.note, check


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [8, 64])
def test_a_merged_adapter_is_recognised_in_every_dtype(tmp_path: Path, dtype: torch.dtype, rank: int) -> None:
    relation, words, check = shown(body(dtype), merged(dtype, rank, 0.02), tmp_path)
    assert relation == "adapter"
    assert "adapter merged in" in words
    assert check.outcome == "passed"
    highest = next(m.value for m in check.measurements if m.name == "rank_highest")
    assert rank * 0.9 <= highest <= rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_is_not_called_so_although_its_strongest_directions_hold_most(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    relation, words, check = shown(body(dtype), trained(dtype), tmp_path)
    assert relation == "finetune"
    assert "in full rank" in words
    assert check.outcome == "failed"


def test_one_edited_matrix_is_no_adapter(tmp_path: Path) -> None:
    relation, words, _ = shown(body(torch.float32), trained(torch.float32, cut=1, only=3), tmp_path)
    assert relation == "finetune"
    assert "adapter" not in words
    assert "full rank" not in words


def test_a_change_cut_down_to_a_high_rank_is_no_adapter(tmp_path: Path) -> None:
    relation, _, check = shown(body(torch.float32), trained(torch.float32, cut=150), tmp_path)
    assert (relation, check.outcome) == ("finetune", "failed")


def test_a_change_cut_down_to_a_low_rank_is_said_to_look_like_an_adapter(tmp_path: Path) -> None:
    _, words, _ = shown(body(torch.float32), trained(torch.float32, cut=12), tmp_path)
    assert "or a change cut down to that rank" in words


def test_rounding_that_hides_the_rank_is_said_and_nothing_is_claimed(tmp_path: Path) -> None:
    relation, words, check = shown(body(torch.bfloat16), merged(torch.bfloat16, 8, 0.002), tmp_path)
    assert relation == "finetune"
    assert check.outcome == "not_run"
    assert "rounding hides" in words
    assert "full rank" not in words


def test_nothing_changed_is_not_run(tmp_path: Path) -> None:
    relation, _, check = shown(body(torch.float32), body(torch.float32), tmp_path)
    assert (relation, check.outcome) == ("identical", "not_run")


def drawn(rows: int = 64, columns: int = 128) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, columns)).astype(np.float32).astype(np.float64)


def test_weights_merged_in_bfloat16_and_stored_as_float32_are_rounded_as_the_former() -> None:
    base = torch.tensor(drawn()).bfloat16()
    generator = torch.Generator().manual_seed(2)
    delta = 0.05 * torch.randn(64, 3, generator=generator) @ torch.randn(3, 128, generator=generator)
    mine = (base.float() + delta).bfloat16().double().numpy()
    assert delta_rank(base.double().numpy(), mine, "F32") == 3


def test_a_cast_alone_has_no_rank() -> None:
    base = drawn()
    assert delta_rank(base, torch.tensor(base).bfloat16().double().numpy(), "BF16") == 0
    assert delta_rank(base, base, "F32") == 0
    assert delta_rank(base, base + 1, "I8") is None


def test_a_read_that_fails_is_a_note(tmp_path: Path) -> None:
    body(torch.float32).save_pretrained(tmp_path / "base")
    trained(torch.float32).save_pretrained(tmp_path / "mine")
    found = traced(tmp_path / "base", tmp_path / "mine")
    ours, theirs = (facts_of(tmp_path / name) for name in ("mine", "base"))
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        drift = measure(found.alignment, other, mine, threads=1)
    path = tmp_path / "mine" / "model.safetensors"
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        head = path.read_bytes()[:2000]
        path.unlink()
        path.write_bytes(head)
        check = check_delta_rank(drift, other, mine, seed=1)
    assert check.outcome == "not_run"
    assert "changed while it was read" in check.note
