"""Pairs of arrays as real checkpoint files, opened as weight sources, and the plain float64 truth about them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from weightfolders import facts_of

from scanner.records import Alignment, PairSpec, RepoFacts, Rows, TensorMeta
from scanner.weights.opening import open_source
from scanner.weights.source import Block, WeightSource

NUMBERS = {
    "F64": (np.float64, "float64"),
    "F32": (np.float32, "float32"),
    "F16": (np.float16, "float16"),
    "BF16": (ml_dtypes.bfloat16, "bfloat16"),
    "F8_E4M3": (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
    "F8_E5M2": (ml_dtypes.float8_e5m2, "float8_e5m2"),
}
STORAGE = {"F64": "<f8", "F32": "<f4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}

Array = npt.NDArray[Any]
Typed = tuple[Array, str]


def stored(values: Array, dtype: str) -> Array:
    """The values rounded to the dtype, as their storage."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values).astype(NUMBERS[dtype][0]).view(STORAGE[dtype])


def exact(storage: Array, dtype: str) -> npt.NDArray[np.float64]:
    """The numbers behind a storage, in float64."""
    return storage.view(NUMBERS[dtype][0]).astype(np.float64)


def spec_of(
    name: str, shape: tuple[int, ...], base: str, candidate: str, rows: Rows | None = None, other_rows: int = 0
) -> PairSpec:
    """A pair of these dtypes; ``other_rows`` is the number of rows of the base when it differs."""

    def meta(dtype: str, shape: tuple[int, ...]) -> TensorMeta:
        return TensorMeta(name=name, dtype=dtype, shape=shape, file="model.safetensors", start=0, end=0)

    theirs = (other_rows, *shape[1:]) if other_rows else shape
    ours = meta(candidate, shape)
    return PairSpec(
        name=name,
        base=meta(base, theirs),
        candidate=ours,
        role="other",
        layer=None,
        rows=rows or (0, min(ours.rows_cols[0], meta(base, theirs).rows_cols[0])),
    )


def block_of(storage: Array, dtype: str, first: int = 0) -> Block:
    """All rows of a two-dimensional storage as one block."""
    return Block(name="w", rows=(first, first + storage.shape[0]), dtype=dtype, values=storage)


def write_model(folder: Path, tensors: Mapping[str, Typed]) -> RepoFacts:
    """Write ``model.safetensors`` with the arrays rounded to their dtypes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    save_file(
        {name: torch.tensor(array).to(getattr(torch, NUMBERS[dtype][1])) for name, (array, dtype) in tensors.items()},
        path,
    )
    return facts_of(folder)


def same_names(base: WeightSource, candidate: WeightSource) -> Alignment:
    """Pair tensors of equal names over their common rows."""
    pairs = []
    for name, meta in candidate.table.items():
        other = base.table[name]
        rows = min(meta.rows_cols[0], other.rows_cols[0])
        pairs.append(PairSpec(name=name, base=other, candidate=meta, role="other", layer=None, rows=(0, rows)))
    total = sum(meta.count for meta in candidate.table.values())
    return Alignment(pairs=tuple(pairs), skips=(), parameters_total=total)


@contextmanager
def opened(base: RepoFacts, candidate: RepoFacts) -> Iterator[tuple[Alignment, WeightSource, WeightSource]]:
    """Both folders as open sources, aligned by name."""
    with open_source(base, None) as left, open_source(candidate, None) as right:
        yield same_names(left, right), left, right
