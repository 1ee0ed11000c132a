"""Folders of weights for lineage tests, and the check run on two of them as a scan runs it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from weightfolders import facts_of

from scanner.alignment import align
from scanner.conversions import Canonical, canonicalise
from scanner.lineage.descent import check_descent
from scanner.lineage.trace import Traced, trace
from scanner.records import Alignment, Check, LineageStatus, Relation
from scanner.weights.opening import open_source

Outcome = tuple[LineageStatus, Relation, dict[str, Check]]


def descent(base: Path, candidate: Path, **kwargs: Any) -> Outcome:
    """Align two folders and check the descent; checks by name."""
    ours, theirs = facts_of(candidate), facts_of(base)
    with open_source(theirs, None) as base_source, open_source(ours, None) as candidate_source:
        alignment = align(
            candidate_source.table,
            base_source.table,
            candidate_config=ours.config,
            base_config=theirs.config,
            canonicalise=in_process,
        )
        status, relation, checks = check_descent(alignment, base_source, candidate_source, **kwargs)
    return status, relation, {check.name: check for check in checks}


def in_process(checkpoints: Any) -> tuple[Canonical, ...]:
    """The library's own names without a child process."""
    return tuple(canonicalise(sorted(names), config) for names, config in checkpoints)


def alignment_of(base: Path, candidate: Path) -> Alignment:
    """The alignment of two folders."""
    ours, theirs = facts_of(candidate), facts_of(base)
    with open_source(theirs, None) as base_source, open_source(ours, None) as candidate_source:
        return align(candidate_source.table, base_source.table)


def measured(check: Check) -> dict[str, float]:
    """Measurements by name."""
    return {item.name: item.value for item in check.measurements}


def random_body(seed: int, *, layers: int = 3, hidden: int = 64, tokens: int = 200) -> dict[str, np.ndarray]:
    """Independent normal weights of a small decoder, float32."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (0.02 * generator.standard_normal(shape)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": draw(tokens, hidden), "model.norm.weight": 1 + draw(hidden)}
    for layer in range(layers):
        start = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{start}.self_attn.{name}.weight"] = draw(hidden, hidden)
        tensors[f"{start}.mlp.up_proj.weight"] = draw(3 * hidden, hidden)
        tensors[f"{start}.mlp.down_proj.weight"] = draw(hidden, 3 * hidden)
        tensors[f"{start}.input_layernorm.weight"] = 1 + draw(hidden)
    return tensors


def attention_only(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Queries, keys and values alone."""
    return {name: value for name, value in tensors.items() if re.search(r"[qkv]_proj", name)}


def fused(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with queries, keys and values of a layer in one matrix, as several families store them."""
    made = {name: value for name, value in tensors.items() if not re.search(r"[qkv]_proj", name)}
    for name in tensors:
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            made[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts)
    return made


def write(folder: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write tensors as ``model.safetensors`` in a new folder."""
    folder.mkdir(parents=True)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def traced(base: Path, candidate: Path, *, seed: int = 1) -> Traced:
    """Align two folders and trace the descent as a scan does."""
    ours, theirs = facts_of(candidate), facts_of(base)
    with open_source(theirs, None) as base_source, open_source(ours, None) as candidate_source:
        alignment = align(
            candidate_source.table,
            base_source.table,
            candidate_config=ours.config,
            base_config=theirs.config,
            canonicalise=in_process,
        )
        return trace(alignment, base_source, candidate_source, seed=seed)


def drifted(tensors: Mapping[str, np.ndarray], *, size: float = 0.002, seed: int = 3) -> dict[str, np.ndarray]:
    """Every value moved a little, independently: a tenth of the weights' own size by default."""
    generator = np.random.default_rng(seed)
    return {n: (v + size * generator.standard_normal(v.shape)).astype(np.float32) for n, v in tensors.items()}
