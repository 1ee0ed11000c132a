"""Tensor tables for tests: from shapes, from models on the meta device, from files on disk."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanner.records import TensorMeta

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "F8_E4M3": 1}


def table_of(shapes: Mapping[str, tuple[int, ...]], dtype: str | Mapping[str, str] = "F32") -> dict[str, TensorMeta]:
    """A table of one file, tensors in the order given; ``dtype`` may name some tensors' own."""
    table, offset = {}, 8
    for name, shape in shapes.items():
        kind = dtype if isinstance(dtype, str) else dtype.get(name, "F32")
        count = 1
        for dim in shape:
            count *= dim
        end = offset + count * _ITEM_BYTES[kind]
        table[name] = TensorMeta(name=name, dtype=kind, shape=shape, file="model.safetensors", start=offset, end=end)
        offset = end
    return table


def table_of_model(model: Any, *, drop: tuple[str, ...] = ()) -> dict[str, TensorMeta]:
    """The table that a model's state dict would have on disk, without the names in ``drop``."""
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in drop}
    return table_of(shapes)


def table_of_folder(folder: Path) -> dict[str, TensorMeta]:
    """The table of ``model.safetensors`` in a folder, read without our own reader."""
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return {
        name: TensorMeta(
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            file="model.safetensors",
            start=8 + length + entry["data_offsets"][0],
            end=8 + length + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
