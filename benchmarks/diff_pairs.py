"""Pairs of checkpoints for the diff benchmark: a base and a fine-tune of a decoder, made up, in any size."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

HIDDEN = 2048
INNER = 5632
KEY_VALUE = 512
VOCABULARY = 32_000
POOL_ELEMENTS = 1 << 24
NUMBERS: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
VERSION = 1
"""Part of the folder's name: a change of what is written makes new files."""

Shapes = dict[str, tuple[int, ...]]


def shapes(
    layers: int, *, vocabulary: int = VOCABULARY, hidden: int = HIDDEN, key_value: int = KEY_VALUE, inner: int = INNER
) -> Shapes:
    """Names and shapes of a decoder, in file order: the Llama layout; 45 million parameters a layer by default."""
    found: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        parts: Shapes = {
            "self_attn.q_proj.weight": (hidden, hidden),
            "self_attn.k_proj.weight": (key_value, hidden),
            "self_attn.v_proj.weight": (key_value, hidden),
            "self_attn.o_proj.weight": (hidden, hidden),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    return found | {"model.norm.weight": (hidden,)}


def make_pair(root: Path, dtype: str, layers: int) -> Path:
    """Write ``bench/base`` and ``bench/candidate`` below a folder of their own, unless they are there; return it."""
    folder = root / f"v{VERSION}-{dtype.lower()}-{layers}"
    done = folder / "done"
    if done.exists():
        return folder
    rng = np.random.default_rng(0)
    base = rng.standard_normal(POOL_ELEMENTS, dtype=np.float32) * np.float32(0.02)
    update = rng.standard_normal(POOL_ELEMENTS, dtype=np.float32) * np.float32(0.001)
    for name, values in (("base", base), ("candidate", base + update)):
        target = folder / "bench" / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}\n')
        _write(target / "model.safetensors", values.astype(NUMBERS[dtype]).view(np.uint8), dtype, shapes(layers))
    done.touch()
    return folder


def _write(path: Path, pool: npt.NDArray[np.uint8], dtype: str, tensors: Shapes) -> None:
    """Write a checkpoint whose tensors are runs of the pool, each from another place."""
    width = np.dtype(NUMBERS[dtype]).itemsize
    header: dict[str, Any] = {}
    position = 0
    for name, shape in tensors.items():
        end = position + int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 64 + 56)  # the data then begin at a multiple of 64 bytes
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for number, shape in enumerate(tensors.values()):
            for part in _runs(pool, number * 7919 * 64 * width, int(np.prod(shape)) * width):
                file.write(part)


def _runs(pool: npt.NDArray[np.uint8], start: int, length: int) -> Iterator[memoryview]:
    """``length`` bytes of the pool from ``start`` on, over and over."""
    start %= pool.size
    while length:
        part = pool[start : start + length]
        yield part.data
        length -= part.size
        start = 0
