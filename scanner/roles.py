"""Says what a tensor does in its network, from its name and shape alone.

The *leaf* is the module that owns a parameter: ``query`` in ``layer.0.attention.self.query.weight``; a parameter
that hangs bare in its module (``experts.down_proj``) is its own leaf. Names are data from strangers: nothing here
can fail on them, and every pass over a name is linear.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from scanner.records import Role


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PARAMETERS = _words(
    "weight bias gamma beta kernel scale running_mean running_var num_batches_tracked lora_a lora_b "
    "lora_embedding_a lora_embedding_b lora_magnitude_vector original0 original1 weight_g weight_v weights"
)
_WRAPPERS = frozenset(("base_layer", "modules_to_save", "default", "parametrizations", "original_module"))
_LAYER_LISTS = _words(
    "layer layers h block blocks albert_layer_groups stages conv_layers resblocks encoder_layers "
    "decoder_layers transformer_layers blk"
)
_MAX_INDEX_DIGITS = 5

_EMBEDDINGS = _words(
    "word_embeddings word_embedding embed_tokens tok_embeddings token_embeddings token_embedding wte shared "
    "embed_in embedding embeddings embed lm_embedding token_embd"
)
_UNEMBEDDINGS = _words("lm_head embed_out vocab_projector generator_lm_head output_projection unembed decoder")
_POSITIONS = (
    "position", "pos_embed", "pos_emb", "token_type", "relative_attention_bias", "relative_position_bias",
    "rel_embeddings", "seg_embed", "cls_token", "mask_token", "class_embedding", "register_tokens",
)  # fmt: skip
_POSITION_LEAVES = frozenset(("wpe", "segment_embeddings", "query_tokens", "mask_emb"))
_HEADS = _words(
    "classifier pre_classifier score qa_outputs cls predictions lm_head logits_proj vocab_transform summary "
    "sequence_summary seq_relationship classification_head discriminator_predictions generator_predictions "
    "vocab_layer_norm vocab_projector visual_projection text_projection fc head heads cls_classifier "
    "generator_lm_head embed_out distillation_classifier span_classifier qa_classifier projector"
)
_ROUTERS = frozenset(("router", "gate", "shared_expert_gate", "ffn_gate_inp"))
_FUSED_ATTENTION = _words(
    "query_key_value c_attn qkv_proj qkv wqkv in_proj in_proj_weight in_proj_bias kv_a_proj_with_mqa "
    "kv_b_proj kv_a_proj kv_proj kv q_attn attn_qkv"
)
_QUERY = _words("query q_proj q_lin query_proj queries q wq to_q linear_q q_a_proj q_b_proj query_global attn_q")
_KEY = _words("key k_proj k_lin key_proj keys k wk to_k linear_k key_global attn_k")
_VALUE = _words("value v_proj v_lin value_proj values v wv to_v linear_v value_global attn_v")
_ATTENTION_OUT = _words("dense c_proj proj wo o o_proj out_proj out_lin to_out linear_out out output attn_output")
_MLP_GATE = frozenset(("gate_proj", "wi_0", "w1", "gate_lin", "linear_gate", "ffn_gate", "ffn_gate_exps"))
_MLP_IN = _words(
    "up_proj gate_up_proj lin1 fc1 c_fc fc_in dense_h_to_4h wi wi_1 w3 v1 w12 layer_1 linear1 pwconv1 "
    "intermediate_dense ffn ffn_up ffn_up_exps"
)
_MLP_OUT = _words(
    "down_proj lin2 fc2 c_proj fc_out dense_4h_to_h wo w2 layer_2 linear2 pwconv2 output_dense ffn_output ffn_down "
    "ffn_down_exps"
)
_MLP_MODULES = _words(
    "mlp ffn ff feed_forward densereludense experts intermediate output block_sparse_moe moe expert "
    "shared_expert shared_experts"
)


def role_of(name: str, shape: tuple[int, ...], config: Mapping[str, Any] | None = None) -> Role:
    """Return what the tensor does.

    Norms, poolers and task heads keep their biases; every other bias vector is ``bias``. Routers are the gates that
    choose experts. A projection that fuses gate and input is ``mlp_in``, one that fuses query, key and value is
    ``attention``. A LoRA factor has the role of the module it adapts. ``config`` (of either side) only helps with
    names that say nothing: a matrix with ``vocab_size`` rows is a token table.
    """
    parts = _parts(name)
    leaf = parts[-1] if parts else ""
    layer = layer_of(name)
    is_bias = _is_bias(name)
    if _is_norm(leaf):
        return "norm"
    if layer is None and "pooler" in parts:
        return "pooler"
    if layer is None and leaf in _UNEMBEDDINGS:
        return "unembedding" if len(shape) == 2 and not is_bias else "head"
    if _is_position(parts, leaf, shape):
        return "position"
    if leaf in _EMBEDDINGS and len(shape) == 2 and layer is None:
        return "embedding"
    if _has_head(parts, layer):
        return "head"
    inner = _layer_role(parts, leaf, shape, layer)
    if is_bias and inner != "router":
        return "bias"
    return _by_shape(name, shape, config) if inner == "other" else inner


def layer_of(name: str) -> int | None:
    """Return the index of the outermost repeated block that owns the tensor, or None outside of blocks.

    Encoder and decoder blocks both count from 0; a convolutional network's block is its stage.
    """
    parts = name.split(".")
    for before, part in pairwise(parts):
        if before.lower() in _LAYER_LISTS and _is_index(part):
            return int(part)
    first = next((part for part in parts[:2] if part.startswith("layer") and _is_index(part[5:])), None)
    return int(first[5:]) if first else None


def expert_of(name: str) -> int | None:
    """Return the index of the expert that owns the tensor; None for shared, stacked and absent experts."""
    parts = name.split(".")
    for before, part in pairwise(parts):
        if before.lower() in {"experts", "local_experts"} and _is_index(part.removeprefix("expert_")):
            return int(part.removeprefix("expert_"))
    return None


def is_head_part(name: str) -> bool:
    """True when a module on the way to the tensor is a head; its norms count, whose role is ``norm``."""
    return _has_head(_parts(name), layer_of(name))


def is_constant(name: str, shape: tuple[int, ...]) -> bool:
    """True for buffers that a model computes for itself and ignores in a checkpoint.

    Positions to count, rotary frequencies, causal masks and batch counters; running means and variances are learned
    and do not belong here.
    """
    leaf = name.rpartition(".")[2].lower()
    if leaf in {"position_ids", "token_type_ids", "inv_freq", "num_batches_tracked", "masked_bias",
                "relative_position_index", "relative_coords_table", "original_inv_freq"}:  # fmt: skip
        return True
    is_mask = leaf == "bias" and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return is_mask or (leaf == "freqs" and "rope" in name.lower())


def _parts(name: str) -> list[str]:
    """Lower-case modules on the way to the tensor, wrappers of adapters left out; the last one is the leaf.

    What stands in brackets says which expert of a stack is meant.
    """
    parts = [part for part in name.lower().partition("[")[0].split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[-1] in _PARAMETERS:
        parts.pop()
    return parts


def _has_head(parts: list[str], layer: int | None) -> bool:
    return layer is None and any(part in _HEADS or part.endswith("_head") for part in parts)


def _is_bias(name: str) -> bool:
    last = name.rpartition(".")[2].lower()
    return last in {"bias", "beta"} or last.endswith("_bias")


def _is_norm(leaf: str) -> bool:
    stem = leaf.rstrip("0123456789_")
    return "norm" in leaf or stem in {"ln", "bn", "ln_f", "ln_pre", "ln_post", "ln_final"}


def _is_index(text: str) -> bool:
    return 0 < len(text) <= _MAX_INDEX_DIGITS and text.isascii() and text.isdecimal()


def _is_attention(part: str) -> bool:
    return "attn" in part or "attention" in part


def _is_position(parts: list[str], leaf: str, shape: tuple[int, ...]) -> bool:
    if any("conv" in part for part in parts):
        return False
    return len(shape) > 0 and (leaf in _POSITION_LEAVES or any(mark in leaf for mark in _POSITIONS))


def _layer_role(parts: list[str], leaf: str, shape: tuple[int, ...], layer: int | None) -> Role:
    """The role of a matrix inside a block, by its leaf and the modules around it."""
    if any(part in _ROUTERS for part in parts):
        return "router"
    if ("conv" in leaf and not leaf.startswith("pw")) or (len(shape) in {4, 5} and "experts" not in parts):
        return "conv"
    attention = any(map(_is_attention, parts[:-1])) or _is_attention(leaf)
    if attention or layer is not None:
        role = _attention_role(leaf, attention=attention)
        if role is not None:
            return role
    return _mlp_role(parts, leaf)


def _attention_role(leaf: str, *, attention: bool) -> Role | None:
    """The part that a leaf plays in attention; one-letter and generic names need attention around them."""
    if not attention and (len(leaf) <= 2 or leaf in _ATTENTION_OUT or leaf in {"in_proj", "key", "value", "out"}):
        return None
    if leaf in _FUSED_ATTENTION:
        return "attention"
    if leaf in _QUERY:
        return "query"
    if leaf in _KEY:
        return "key"
    if leaf in _VALUE:
        return "value"
    return "attention_output" if leaf in _ATTENTION_OUT else None


def _mlp_role(parts: list[str], leaf: str) -> Role:
    around = set(parts[:-1])
    if leaf == "dense" and "intermediate" in around:
        return "mlp_in"
    if leaf == "dense" and "output" in around:
        return "mlp_out"
    if leaf in _MLP_GATE:
        return "mlp_gate"
    if leaf in _MLP_IN:
        return "mlp_in"
    if leaf in _MLP_OUT and (len(leaf) > 2 or around & _MLP_MODULES):
        return "mlp_out"
    return "other"


def _by_shape(name: str, shape: tuple[int, ...], config: Mapping[str, Any] | None) -> Role:
    if len(shape) == 1 and name.lower().endswith(".weight"):
        return "norm"
    vocabulary = (config or {}).get("vocab_size")
    if len(shape) == 2 and isinstance(vocabulary, int) and shape[0] == vocabulary > 0:
        return "embedding" if "emb" in name.lower() else "unembedding"
    return "other"
