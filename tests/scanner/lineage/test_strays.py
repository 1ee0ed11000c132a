"""A few layers whose units or heads trade places: the same function, found by the rows that resemble no neighbour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from descents import in_process, measured
from torch import nn
from transformers import AutoModel, BertConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from weightfolders import facts_of

from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.lineage.heads import heads_of
from scanner.lineage.strays import Followed, follow_strays, stray_tensors
from scanner.lineage.trace import trace
from scanner.records import DriftFacts
from scanner.weights.opening import open_source

LAYERS, HIDDEN, HEADS, SHARED = 8, 64, 8, 4
WIDTH = HIDDEN // HEADS
SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 96,
    "vocab_size": 300,
}


def llama() -> PreTrainedModel:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=SHARED, attention_bias=True))


def bert() -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModel.from_config(BertConfig(**SIZES, max_position_embeddings=32))


def trained(model: PreTrainedModel, size: float = 0.002) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def picked(module: nn.Linear, rows: torch.Tensor) -> None:
    with torch.no_grad():
        module.weight.copy_(module.weight[rows])
        if module.bias is not None:
            module.bias.copy_(module.bias[rows])


def with_columns(module: nn.Linear, columns: torch.Tensor) -> None:
    with torch.no_grad():
        module.weight.copy_(module.weight[:, columns])


def spread(heads: Sequence[int]) -> torch.Tensor:
    return torch.tensor([head * WIDTH + i for head in heads for i in range(WIDTH)])


def swapped_units(model: PreTrainedModel, layer: int = 3) -> PreTrainedModel:
    order = torch.randperm(96, generator=torch.Generator().manual_seed(4))
    if isinstance(model, LlamaForCausalLM):
        block = model.model.layers[layer].mlp
        into, out = [block.gate_proj, block.up_proj], block.down_proj
    else:
        block = model.encoder.layer[layer]
        into, out = [block.intermediate.dense], block.output.dense
    for module in into:
        picked(module, order)
    with_columns(out, order)
    return model


def swapped_heads(model: PreTrainedModel, layer: int = 5) -> PreTrainedModel:
    """Whole groups of heads elsewhere, and in one group the two heads exchanged, where heads share keys."""
    if isinstance(model, LlamaForCausalLM):
        block, groups = model.model.layers[layer].self_attn, [2, 0, 3, 1]
        queries = spread([5, 4, 0, 1, 6, 7, 2, 3])
        picked(block.q_proj, queries)
        picked(block.k_proj, spread(groups))
        picked(block.v_proj, spread(groups))
        with_columns(block.o_proj, queries)
    else:
        block, order = model.encoder.layer[layer].attention, spread([1, 0, 2, 3, 7, 5, 6, 4])
        for module in (block.self.query, block.self.key, block.self.value):
            picked(module, order)
        with_columns(block.output.dense, order)
    return model


@dataclass(frozen=True)
class Found:
    """The drift as it was compared first, and after the strays were followed."""

    before: DriftFacts
    followed: Followed | None
    after: DriftFacts | None
    read: int


def looked(base: PreTrainedModel, candidate: PreTrainedModel, folder: Path) -> Found:
    """Trace, measure, and follow the strays, as a scan does."""
    base.save_pretrained(folder / "base")
    candidate.save_pretrained(folder / "mine")
    ours, theirs = facts_of(folder / "mine"), facts_of(folder / "base")
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        alignment = align(
            mine.table, other.table, candidate_config=ours.config, base_config=theirs.config, canonicalise=in_process
        )
        found = trace(alignment, other, mine, seed=1)
        assert found.status == "verified"
        assert found.base is None, "a few layers pass the check of descent as they stand"
        drift = measure(found.alignment, other, mine, threads=1)
        before = mine.bytes_read
        followed = follow_strays(drift, found.alignment, other, mine, config=ours.config, seed=1)
        read = mine.bytes_read - before
        after = measure(followed.again, followed.base, mine, threads=1) if followed else None
    return Found(before=drift, followed=followed, after=after, read=read)


@pytest.mark.parametrize("make", [llama, bert])
@pytest.mark.parametrize("swap", [swapped_units, swapped_heads])
def test_one_layer_in_another_order_has_no_drift(
    tmp_path: Path, make: Callable[[], PreTrainedModel], swap: Callable[[PreTrainedModel], PreTrainedModel]
) -> None:
    words = torch.arange(20)[None]
    one, two = make().eval(), swap(make()).eval()
    assert torch.allclose(one(words)[0], two(words)[0], atol=1e-4), "the order changes nothing"
    found = looked(make(), swap(make()), tmp_path)
    assert found.followed is not None
    assert found.after is not None
    moved = {t.spec.name for t in found.before.tensors if t.changed}
    assert {t.spec.name for t in found.after.tensors} >= moved, "biases that were zero may come along"
    assert all(t.changed == 0 for t in found.after.tensors)


@pytest.mark.parametrize("make", [llama, bert])
def test_training_on_top_shows_as_what_it_is(tmp_path: Path, make: Callable[[], PreTrainedModel]) -> None:
    found = looked(make(), swapped_heads(swapped_units(trained(make()))), tmp_path)
    assert found.followed is not None
    assert found.after is not None
    assert measured(found.followed.check) == {"feed_forward_blocks": 1, "attention_blocks": 1}
    for tensor in found.after.tensors:
        assert tensor.delta_l2 / np.sqrt(tensor.count) == pytest.approx(0.002, rel=0.6), tensor.spec.name


def test_an_ordinary_fine_tune_costs_nothing(tmp_path: Path) -> None:
    found = looked(llama(), trained(llama()), tmp_path)
    assert stray_tensors(found.before) == frozenset()
    assert (found.followed, found.read) == (None, 0)


def test_an_edit_among_reordered_heads_stays_visible(tmp_path: Path) -> None:
    mine = swapped_heads(llama())
    with torch.no_grad():
        mine.model.layers[5].self_attn.q_proj.weight[9].mul_(1.8)
        mine.model.layers[5].self_attn.o_proj.weight[:, 9].mul_(3)
    found = looked(llama(), mine, tmp_path)
    assert found.after is not None
    tensors = {tensor.spec.name: tensor for tensor in found.after.tensors}
    query = tensors["model.layers.5.self_attn.q_proj.weight"]
    assert int(query.row_delta_sq.argmax()) == 9
    assert np.count_nonzero(query.row_delta_sq) == 1
    output = tensors["model.layers.5.self_attn.o_proj.weight"]
    assert np.count_nonzero(output.col_delta_sq) == 1


def scrambled_keys(model: PreTrainedModel) -> None:
    """Keys and values in another order, their queries not."""
    block = model.model.layers[5].self_attn
    picked(block.k_proj, spread([1, 0, 2, 3]))
    picked(block.v_proj, spread([1, 0, 2, 3]))


def parted_heads(model: PreTrainedModel) -> None:
    """Rows that trade places between heads."""
    order = torch.arange(HIDDEN)
    order[[0, 20, 1, 33]] = order[[20, 0, 33, 1]]
    picked(model.model.layers[5].self_attn.q_proj, order)


def one_sided_units(model: PreTrainedModel) -> None:
    """The gates in another order, the other half of the block not."""
    picked(model.model.layers[5].mlp.gate_proj, torch.arange(96).flip(0))


@pytest.mark.parametrize("change", [scrambled_keys, parted_heads, one_sided_units])
def test_an_order_that_changes_the_function_is_no_order(
    tmp_path: Path, change: Callable[[PreTrainedModel], None]
) -> None:
    mine = llama()
    change(mine)
    found = looked(llama(), mine, tmp_path)
    assert stray_tensors(found.before)
    assert found.followed is None


def test_units_in_another_order_whose_outputs_stay_are_a_change(tmp_path: Path) -> None:
    mine = swapped_units(llama())
    with torch.no_grad():
        mine.model.layers[3].mlp.down_proj.weight.copy_(llama().model.layers[3].mlp.down_proj.weight)
    found = looked(llama(), mine, tmp_path)
    assert found.after is not None
    changed = [tensor.spec.name for tensor in found.after.tensors if tensor.changed]
    assert changed == ["model.layers.3.mlp.down_proj.weight"]


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 8, "num_key_value_heads": 2}, (8, 2)),
        ({"n_head": 12}, (12, 12)),
        ({"text_config": {"num_attention_heads": 4}}, (4, 4)),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, None),
        ({"num_attention_heads": 8, "num_key_value_heads": 0}, None),
        ({"num_attention_heads": -8}, None),
        ({"num_attention_heads": "8"}, None),
        ({"num_attention_heads": True}, None),
        ({"num_attention_heads": 10**9}, None),
        ({"text_config": [1]}, None),
        (None, None),
    ],
)
def test_heads_are_taken_from_what_a_configuration_states(
    config: dict[str, object] | None, heads: tuple[int, int] | None
) -> None:
    assert heads_of(config) == heads
