"""Permuted feed-forward units of real models: the same function, compared unit by unit all the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from descents import in_process
from transformers import AutoModel, BertConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from weightfolders import facts_of

from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.lineage.delta_rank import check_delta_rank
from scanner.lineage.trace import Traced, trace
from scanner.records import DriftFacts
from scanner.weights.opening import open_source

LAYERS = 3
SIZES = {"hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 192}


def llama() -> PreTrainedModel:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=300, mlp_bias=True))


def bert() -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModel.from_config(BertConfig(**SIZES, vocab_size=300, max_position_embeddings=32))


def blocks(model: PreTrainedModel) -> list[tuple[list[torch.nn.Linear], torch.nn.Linear]]:
    """For each layer the modules whose rows are its units, and the one whose columns are."""
    if isinstance(model, LlamaForCausalLM):
        return [([layer.mlp.gate_proj, layer.mlp.up_proj], layer.mlp.down_proj) for layer in model.model.layers]
    return [([layer.intermediate.dense], layer.output.dense) for layer in model.encoder.layer]


def permuted(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for into, out in blocks(model):
            order = torch.randperm(192, generator=generator)
            for module in into:
                module.weight.copy_(module.weight[order])
                module.bias.copy_(module.bias[order])
            out.weight.copy_(out.weight[:, order])
    return model


def trained(model: PreTrainedModel, size: float = 0.002) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def compared(base: PreTrainedModel, candidate: PreTrainedModel, folder: Path) -> tuple[Traced, DriftFacts, str]:
    """Trace and measure as a scan does; the outcome of the rank's check too."""
    base.save_pretrained(folder / "base")
    candidate.save_pretrained(folder / "mine")
    ours, theirs = facts_of(folder / "mine"), facts_of(folder / "base")
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        alignment = align(
            mine.table, other.table, candidate_config=ours.config, base_config=theirs.config, canonicalise=in_process
        )
        found = trace(alignment, other, mine, seed=1)
        drift = measure(found.alignment, found.base or other, mine, threads=1)
        return found, drift, check_delta_rank(drift, found.base or other, mine, seed=1).outcome


@pytest.mark.parametrize("make", [llama, bert])
def test_a_permuted_copy_has_no_drift_at_all(tmp_path: Path, make: Callable[[], PreTrainedModel]) -> None:
    words = torch.arange(20)[None]
    one, two = make().eval(), permuted(make()).eval()
    assert torch.allclose(one(words)[0], two(words)[0], atol=1e-4), "a permutation computes the same"
    found, drift, _ = compared(make(), permuted(make()), tmp_path)
    assert found.status == "verified"
    assert found.alignment.parameters_compared == found.alignment.parameters_total
    assert all(tensor.changed == 0 for tensor in drift.tensors)


@pytest.mark.parametrize("make", [llama, bert])
def test_a_permuted_fine_tune_shows_what_training_did(tmp_path: Path, make: Callable[[], PreTrainedModel]) -> None:
    found, drift, outcome = compared(make(), permuted(trained(make())), tmp_path)
    assert found.alignment.parameters_compared == found.alignment.parameters_total
    for tensor in drift.tensors:
        assert tensor.delta_l2 / np.sqrt(tensor.count) == pytest.approx(0.002, rel=0.6), tensor.spec.name
    assert outcome == "failed", "training has full rank"


def test_an_edited_unit_is_found_in_the_candidates_order(tmp_path: Path) -> None:
    mine = permuted(trained(llama()))
    with torch.no_grad():
        mine.model.layers[1].mlp.up_proj.weight[7].mul_(1.7)
        mine.model.layers[1].mlp.down_proj.weight[:, 7].mul_(1.7)
    _, drift, _ = compared(llama(), mine, tmp_path)
    tensors = {tensor.spec.name: tensor for tensor in drift.tensors}
    assert int(tensors["model.layers.1.mlp.up_proj.weight"].row_delta_sq.argmax()) == 7
    assert int(tensors["model.layers.1.mlp.down_proj.weight"].col_delta_sq.argmax()) == 7


def test_a_block_that_no_order_explains_is_left_out_and_named(tmp_path: Path) -> None:
    mine = permuted(trained(llama()))
    torch.manual_seed(9)
    for into, out in blocks(mine)[:1]:
        for module in (*into, out):
            torch.nn.init.normal_(module.weight, std=0.02)
    found, _, _ = compared(llama(), mine, tmp_path)
    assert found.status == "verified"
    reasons = {skip.what: skip.why for skip in found.alignment.skips}
    assert "another order" in reasons["model.layers.0.mlp.down_proj.weight"]
    names = {pair.name for pair in found.alignment.pairs}
    assert "model.layers.1.mlp.down_proj.weight" in names
    assert "model.layers.0.mlp.down_proj.weight" not in names


def test_units_written_twice_are_no_order(tmp_path: Path) -> None:
    mine = permuted(llama())
    with torch.no_grad():
        for into, _ in blocks(mine):
            for module in into:
                module.weight[1].copy_(module.weight[0])
    found, _, _ = compared(llama(), mine, tmp_path)
    assert not any(pair.name.endswith("up_proj.weight") for pair in found.alignment.pairs)
