"""GGUF files made from transformers models, as llama.cpp's converter makes them, with the real writer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from gguf.tensor_mapping import get_tensor_name_map
from transformers import PreTrainedModel

Encode = Callable[[np.ndarray, str], tuple[np.ndarray, GGMLQuantizationType]]

ARCHITECTURES = {
    "bert": gguf.MODEL_ARCH.BERT,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
}


def interleave(values: np.ndarray, heads: int) -> np.ndarray:
    """``LlamaModel.permute`` of the converter."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def encode_with(kind: str) -> Encode:
    """Matrices in this kind, vectors in F32, by the package's own encoder."""

    def encode(values: np.ndarray, name: str) -> tuple[np.ndarray, GGMLQuantizationType]:
        del name
        number = GGMLQuantizationType[kind] if values.ndim > 1 else GGMLQuantizationType.F32
        return gguf.quants.quantize(values, number), number

    return encode


def _apart(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The state with stacks of gates and inputs apart, as the converter writes them."""
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            yield name.replace("gate_up_proj", "gate_proj.weight"), gate
            yield name.replace("gate_up_proj", "up_proj.weight"), up
        else:
            yield (f"{name}.weight" if tensor.ndim == 3 else name), tensor


def write_gguf(
    model: PreTrainedModel,
    path: Path,
    encode: Encode,
    *,
    architecture: str | None = None,
    interleaved: bool = True,
    alignment: int | None = None,
) -> dict[str, np.ndarray]:
    """Write a model and return, by its own names, the weights that were written, before encoding."""
    config = model.config
    kind = ARCHITECTURES[config.model_type]
    name = architecture or gguf.MODEL_ARCH_NAMES[kind]
    writer = gguf.GGUFWriter(path, name)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    keys = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(config.vocab_size)])
    names = get_tensor_name_map(kind, config.num_hidden_layers)
    written = {}
    for own, tensor in _apart(model.state_dict()):
        stored = next(
            (
                found
                for spelling in (own, f"model.{own}", f"transformer.{own}", own.partition(".")[2])
                if (found := names.get_name(spelling, (".weight", ".bias")))
            ),
            None,
        )
        if stored is None:
            continue
        values = tensor.float().numpy()
        written[own] = values
        if config.model_type == "llama" and interleaved and (".attn_q." in stored or ".attn_k." in stored):
            values = interleave(values, config.num_attention_heads if ".attn_q." in stored else keys)
        if config.model_type == "gpt2" and own.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            values = np.ascontiguousarray(values.T)
        if config.model_type == "gemma2" and own.endswith("norm.weight"):
            values = values + 1
        data, number = encode(values, stored)
        writer.add_tensor(stored, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written
