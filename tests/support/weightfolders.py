"""Folders and facts of checkpoints for tests of the weight readers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from scanner.folder import list_folder
from scanner.records import FileEntry, RepoFacts, RepoRef
from scanner.weights.dtypes import storage_dtype
from scanner.weights.source import BlockRequest, WeightSource


def facts_of(folder: Path) -> RepoFacts:
    """What the scanner knows of a folder before it opens the weights."""
    config = folder / "config.json"
    return RepoFacts(
        ref=RepoRef(path=str(folder)),
        files=list_folder(str(folder)),
        config=json.loads(config.read_text()) if config.exists() else None,
    )


def listed(*paths: str, config: Mapping[str, Any] | None = None, folder: str | None = None) -> RepoFacts:
    """Facts of a repository with these files, one byte each."""
    ref = RepoRef(path=folder) if folder else RepoRef(repo_id="org/model", revision="a" * 40)
    return RepoFacts(ref=ref, files=tuple(FileEntry(path=path, size_bytes=1) for path in paths), config=config)


def whole_tensors(source: WeightSource) -> list[BlockRequest]:
    """One request per tensor, all of its rows."""
    return [BlockRequest(name=name, rows=(0, meta.rows_cols[0])) for name, meta in source.table.items()]


def read_all(source: WeightSource, requests: list[BlockRequest] | None = None) -> dict[str, bytes]:
    """Every tensor's bytes, the blocks of one tensor joined in the order asked for."""
    joined: dict[str, bytes] = {}
    for block in source.stream(whole_tensors(source) if requests is None else requests):
        joined[block.name] = joined.get(block.name, b"") + block.values.tobytes()
    return joined


def official_bytes(*files: Path) -> dict[str, bytes]:
    """Every tensor's bytes as the official library reads them."""
    found: dict[str, bytes] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - the handle is no mapping
                tensor = opened.get_tensor(name).contiguous()
                found[name] = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return found


def expected_block(source: WeightSource, raw: bytes, request: BlockRequest) -> np.ndarray:
    """The block that a request should give, from the bytes of the whole tensor."""
    meta = source.table[request.name]
    values = np.frombuffer(raw, storage_dtype(meta.dtype)).reshape(meta.rows_cols)
    block = values[request.rows[0] : request.rows[1]]
    return block if request.columns is None else block[:, request.columns[0] : request.columns[1]]
