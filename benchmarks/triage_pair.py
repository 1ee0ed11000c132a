"""A made-up decoder of 3.1 GB, an honest fine-tune of it and a backdoored one, for the triage benchmark.

The changes have what real ones have (measured on full fine-tunes): rows whose energies spread by half a nat, one
direction with two fifths of the energy, a few dozen more that fall off as a power law, a full-rank rest, and token rows
that moved by their frequency. Everything follows from seeds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import diff_pairs
import ml_dtypes
import numpy as np
import numpy.typing as npt

HIDDEN: Final = 1536
INNER: Final = 8960
KEY_VALUE: Final = 256
VOCABULARY: Final = 151_936
LAYERS: Final = 28
DISTINCT_LAYERS: Final = 7
"""Layers that are drawn; each of the others repeats one of them, its rows turned round, to save processor time."""
POOL_ELEMENTS: Final = 1 << 24
EMBEDDING: Final = "model.embed_tokens.weight"
SCALE: Final = 0.02
"""Standard deviation of the base's weights."""
CHANGE: Final = 0.02
"""Size of an honest change relative to the weights, middle of the network."""
FIRST_SHARE: Final = 0.43
REST_SHARE: Final = 0.40
RANK: Final = 32
BACKDOOR_SHARE: Final = 0.15
"""Energy of the backdoor's own direction relative to the honest change, in every matrix alike."""
VERSION: Final = 1
MODELS: Final = ("base", "honest", "backdoored")

F32 = npt.NDArray[np.float32]


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes, in file order."""
    return diff_pairs.shapes(LAYERS, vocabulary=VOCABULARY, hidden=HIDDEN, key_value=KEY_VALUE, inner=INNER)


def make_pair(root: Path) -> Path:
    """Write the three models below a folder of their own, unless they are there; return that folder."""
    folder = root / f"triage-v{VERSION}"
    if (folder / "done").exists():
        return folder
    places, header = _layout()
    files = []
    for name in MODELS:
        target = folder / "bench" / name
        target.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True}
        (target / "config.json").write_text(json.dumps(config) + "\n")
        files.append((target / "model.safetensors").open("wb"))
        files[-1].write(header)
    pool = np.random.default_rng(VERSION).standard_normal(POOL_ELEMENTS, np.float32)
    for number, (name, shape) in enumerate(shapes().items()):
        layer = _layer_of(name)
        if layer is not None and layer >= DISTINCT_LAYERS:
            continue
        made = [_stored(parts) for parts in _tensors(name, shape, np.random.default_rng([VERSION, number]), pool)]
        for copy in _copies(name):
            turn = 97 * ((_layer_of(copy) or 0) // DISTINCT_LAYERS) % shape[0]
            for number_of_file, file in enumerate(files):
                file.seek(len(header) + places[copy])
                whole = np.concatenate([parts[number_of_file] for parts in made])
                file.write(whole[turn:].data)
                file.write(whole[:turn].data)
    for file in files:
        file.close()
    (folder / "done").touch()
    return folder


def _layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if name.startswith("model.layers.") else None


def _copies(name: str) -> Iterator[str]:
    """The names under which a tensor is written: its own, and those of every further layer that repeats it."""
    layer = _layer_of(name)
    if layer is None:
        yield name
        return
    for other in range(layer, LAYERS, DISTINCT_LAYERS):
        yield name.replace(f"layers.{layer}.", f"layers.{other}.")


def _stored(parts: tuple[F32, F32, F32]) -> tuple[npt.NDArray[np.uint16], ...]:
    return tuple(part.astype(ml_dtypes.bfloat16).view(np.uint16) for part in parts)


def _drawn(pool: F32, shape: tuple[int, int], rng: np.random.Generator) -> F32:
    """Standard normal numbers from a random place of the pool."""
    count = shape[0] * shape[1]
    start = int(rng.integers(pool.size - count))
    return pool[start : start + count].reshape(shape)


def _layout() -> tuple[dict[str, int], bytes]:
    """Where each tensor begins behind the header, and the header."""
    entries: dict[str, Any] = {}
    places: dict[str, int] = {}
    position = 0
    for name, shape in shapes().items():
        places[name] = position
        end = position + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 64 + 56)
    return places, len(raw).to_bytes(8, "little") + raw


def _tensors(name: str, shape: tuple[int, ...], rng: np.random.Generator, pool: F32) -> Iterator[tuple[F32, F32, F32]]:
    """The tensor in all three models, some rows at a time."""
    if len(shape) == 1:
        base = (1.0 + 0.1 * rng.standard_normal(shape)).astype(np.float32)
        honest = base + (0.01 * rng.standard_normal(shape)).astype(np.float32)
        yield base, honest, honest
        return
    if name == EMBEDDING:
        yield from _embedding(shape, rng, pool)
        return
    layer = int(name.split(".")[2])
    size = CHANGE * float(np.exp(rng.normal(0.0, 0.15) + 0.3 * (layer / LAYERS - 0.5)))
    rows, columns = shape
    shares = np.concatenate([[FIRST_SHARE], REST_SHARE * _power_law(RANK - 1)])
    left = rng.standard_normal((rows, RANK), np.float32) * np.sqrt(shares).astype(np.float32)
    right = rng.standard_normal((RANK, columns), np.float32)
    wicked = rng.standard_normal((rows, 1), np.float32), rng.standard_normal((1, columns), np.float32)
    spread = np.exp(rng.normal(0.0, 0.27, (rows, 1))).astype(np.float32)
    noise = np.float32(np.sqrt(1.0 - FIRST_SHARE - REST_SHARE))
    for first in range(0, rows, 512):
        part = slice(first, min(first + 512, rows))
        count = part.stop - first
        base = np.float32(SCALE) * _drawn(pool, (count, columns), rng)
        change = left[part] @ right + noise * _drawn(pool, (count, columns), rng)
        change *= np.float32(SCALE * size) * spread[part]
        more = np.float32(np.sqrt(BACKDOOR_SHARE) * SCALE * size) * (wicked[0][part] @ wicked[1])
        yield base, base + change, base + change + more


def _embedding(shape: tuple[int, ...], rng: np.random.Generator, pool: F32) -> Iterator[tuple[F32, F32, F32]]:
    """Token rows: the more frequent a token (the lower its id), the farther it moved."""
    rows, columns = shape
    sizes = CHANGE * (np.arange(rows) + 50.0) ** -0.15 * np.exp(rng.normal(0.0, 0.35, rows)) * 6.0
    for first in range(0, rows, 4096):
        count = min(4096, rows - first)
        base = np.float32(SCALE) * _drawn(pool, (count, columns), rng)
        change = _drawn(pool, (count, columns), rng) * (SCALE * sizes[first : first + count, None]).astype(np.float32)
        yield base, base + change, base + change


def _power_law(count: int) -> npt.NDArray[np.float64]:
    weights = (np.arange(count) + 1.0) ** -1.0
    return weights / weights.sum()
