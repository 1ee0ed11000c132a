"""Roles and layers of every tensor of real architectures, and of the names that checkpoints use on disk."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
from architectures import ARCHITECTURES, tensor_shapes
from hypothesis import given
from hypothesis import strategies as st

from scanner.roles import expert_of, is_constant, layer_of, role_of

GOLDEN = Path(__file__).parents[1] / "goldens" / "roles.json"


def table(name: str) -> dict[str, list[str]]:
    """Role → tensor names of an architecture, indices written as '#'."""
    found = defaultdict(set)
    for key, shape in tensor_shapes(name):
        found[role_of(key, shape)].add(re.sub(r"(?<=\.)\d+(?=\.)", "#", key))
    return {role: sorted(names) for role, names in sorted(found.items())}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tensor_of_the_architecture_has_the_role_that_was_reviewed(name):
    assert table(name) == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_block_tensors_have_a_layer(name):
    for key, _ in tensor_shapes(name):
        inside = re.search(r"\.(layers?|h|blocks?|albert_layer_groups|stages|conv_layers)\.\d", f".{key}")
        assert (layer_of(key) is not None) == bool(inside), key


BLOCK = "model.layers.7"


@pytest.mark.parametrize(
    ("name", "shape", "role", "layer"),
    [
        # names on disk that differ from the library's own
        ("bert.encoder.layer.11.output.LayerNorm.gamma", (32,), "norm", 11),
        ("bert.encoder.layer.11.output.LayerNorm.beta", (32,), "norm", 11),
        ("encoder.layer.3.attention.self.query.weight", (32, 32), "query", 3),
        ("cls.seq_relationship.weight", (2, 32), "head", None),
        ("h.5.attn.c_attn.weight", (32, 96), "attention", 5),
        ("vit.encoder.layer.2.attention.attention.value.weight", (32, 32), "value", 2),
        ("vit.encoder.layer.2.attention.output.dense.weight", (32, 32), "attention_output", 2),
        (f"{BLOCK}.block_sparse_moe.gate.weight", (8, 32), "router", 7),
        (f"{BLOCK}.block_sparse_moe.experts.3.w1.weight", (64, 32), "mlp_gate", 7),
        (f"{BLOCK}.block_sparse_moe.experts.3.w2.weight", (32, 64), "mlp_out", 7),
        (f"{BLOCK}.block_sparse_moe.experts.3.w3.weight", (64, 32), "mlp_in", 7),
        (f"{BLOCK}.mlp.experts.12.down_proj.weight", (32, 8), "mlp_out", 7),
        ("embed_out.weight", (100, 32), "unembedding", None),
        ("transformer.h.0.attn.bias", (1, 1, 16, 16), "bias", 0),
        # torchvision, timm, open_clip
        ("layer2.0.conv1.weight", (8, 4, 3, 3), "conv", 2),
        ("layer2.0.bn1.weight", (8,), "norm", 2),
        ("layer2.0.downsample.1.weight", (8,), "norm", 2),
        ("fc.weight", (10, 32), "head", None),
        ("blocks.4.attn.qkv.weight", (96, 32), "attention", 4),
        ("blocks.4.attn.proj.weight", (32, 32), "attention_output", 4),
        ("blocks.4.mlp.fc1.weight", (64, 32), "mlp_in", 4),
        ("head.weight", (10, 32), "head", None),
        ("patch_embed.proj.weight", (32, 3, 8, 8), "conv", None),
        ("pos_embed", (1, 5, 32), "position", None),
        ("transformer.resblocks.3.attn.in_proj_weight", (96, 32), "attention", 3),
        ("transformer.resblocks.3.attn.in_proj_bias", (96,), "bias", 3),
        ("transformer.resblocks.3.ln_1.weight", (32,), "norm", 3),
        # adapters
        ("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", (8, 32), "query", 7),
        ("base_model.model.model.layers.7.mlp.down_proj.lora_B.default.weight", (32, 8), "mlp_out", 7),
        ("base_model.model.model.layers.7.self_attn.v_proj.base_layer.weight", (32, 32), "value", 7),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (8, 100), "embedding", None),
        ("base_model.model.score.modules_to_save.default.weight", (2, 32), "head", None),
    ],
)
def test_names_on_disk(name, shape, role, layer):
    assert role_of(name, shape) == role
    assert layer_of(name) == layer


def test_config_settles_a_silent_name():
    assert role_of("tokens.emb", (100, 32), {"vocab_size": 100}) == "embedding"
    assert role_of("final", (100, 32), {"vocab_size": 100}) == "unembedding"
    assert role_of("final", (100, 32), {"vocab_size": 99}) == "other"
    assert role_of("final", (100, 32), {"vocab_size": "100"}) == "other"


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("model.layers.0.mlp.experts.17.up_proj.weight", 17),
        ("encoder.block.1.layer.1.mlp.experts.expert_3.wi.weight", 3),
        ("model.layers.0.mlp.experts.up_proj", None),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", None),
        ("model.layers.0.mlp.up_proj.weight", None),
    ],
)
def test_expert_index(name, expert):
    assert expert_of(name) == expert


@pytest.mark.parametrize(
    ("name", "shape", "constant"),
    [
        ("embeddings.position_ids", (1, 512), True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,), True),
        ("h.0.attn.bias", (1, 1, 16, 16), True),
        ("h.0.attn.masked_bias", (), True),
        ("bn1.num_batches_tracked", (), True),
        ("bn1.running_mean", (8,), False),
        ("h.0.attn.c_attn.bias", (96,), False),
        ("h.0.attn.bias", (96,), False),
    ],
)
def test_constants(name, shape, constant):
    assert is_constant(name, shape) is constant


@given(st.text(max_size=60), st.lists(st.integers(0, 5), max_size=5))
def test_any_name_gets_an_answer(name, dims):
    assert isinstance(role_of(name, tuple(dims)), str)
    assert layer_of(name) is None or layer_of(name) >= 0


@pytest.mark.parametrize("name", ["layers." + "9" * 5000, "layers.²", "layers.-1", "layers.٣", "layers.", "layers"])
def test_indices_that_are_no_indices(name):
    assert layer_of(name) is None


def test_long_names_are_cheap():
    name = "attention." * 20_000 + "weight"
    assert role_of(name, (2, 2)) in {"other", "attention"}


@pytest.mark.parametrize(
    ("name", "role"),
    {
        "blk.3.attn_q.weight": "query",
        "blk.3.attn_qkv.weight": "attention",
        "blk.3.attn_output.weight": "attention_output",
        "blk.3.attn_norm.weight": "norm",
        "blk.3.ffn_gate.weight": "mlp_gate",
        "blk.3.ffn_up_exps.weight[7]": "mlp_in",
        "blk.3.ffn_down_exps.weight[0]": "mlp_out",
        "blk.3.ffn_gate_inp.weight": "router",
        "token_embd.weight": "embedding",
    }.items(),
)
def test_names_of_gguf_files(name: str, role: str) -> None:
    assert role_of(name, (8, 4)) == role
    assert layer_of(name) == (3 if name.startswith("blk.") else None)
