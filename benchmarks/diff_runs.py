"""What the diff benchmark times, each kind in a process of its own: reading, measuring and two ways with torch."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numba import njit

from scanner.drift.measure import BLOCK_BYTES, measure
from scanner.facts import collect
from scanner.folder import list_folder
from scanner.hub import Hub
from scanner.records import Alignment, PairSpec, RepoFacts, RepoRef
from scanner.refs import parse_spec
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest, WeightSource

ROUNDS = 12
"""Rounds of the quick ways, of which the best counts: other work on the machine only ever makes them slower."""
SLOW_ROUNDS = 2
"""Rounds of the ways that take seconds."""
TORCH_BLOCK_ELEMENTS = 1 << 18
"""The size at which torch in blocks is fastest here; larger blocks get fresh memory from the system each time."""


def speed(folder: Path, cores: int) -> dict[str, float]:
    """Best seconds of each way over one pair in the page cache, the ways taking turns."""
    quick: dict[str, Callable[[], object]] = {
        "read": lambda: _read(folder, cores),
        "moments": lambda: _measure(folder, "moments", cores),
        "residual": lambda: _measure(folder, "residual", cores),
    }
    slow: dict[str, Callable[[], object]] = {
        "spectrum": lambda: _measure(folder, "spectrum", cores),
        "torch": lambda: _torch(folder, cores, 0),
        "torch_blocks": lambda: _torch(folder, cores, TORCH_BLOCK_ELEMENTS),
    }
    _load(folder)
    for way in quick.values():  # loads the compiled loops
        way()
    best = dict.fromkeys((*quick, *slow), np.inf)
    for turn in range(ROUNDS):
        for name, way in (quick | slow if turn % (ROUNDS // SLOW_ROUNDS) == 0 else quick).items():
            best[name] = min(best[name], _seconds(way))
    return best | {"bytes": _bytes(folder)}


def _load(folder: Path) -> None:
    """Read the files into the page cache anew, in order, so that the system can keep them in large pages.

    Files that were written bit by bit while memory was scarce lie in small pages, which halves every figure.
    """
    buffer = bytearray(32 << 20)
    for path in folder.glob("bench/*/*.safetensors"):
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.readinto(buffer):
                pass


def memory(folder: Path) -> dict[str, float]:
    """Peak resident bytes of a process that measures one pair, mapped pages included, and before it began."""
    before = _peak_bytes()
    seconds = _seconds(lambda: _measure(folder, "spectrum", os.cpu_count() or 1))
    return {"bytes": _bytes(folder), "before": before, "peak": _peak_bytes(), "seconds": seconds}


def remote(folder: Path, endpoint: str) -> dict[str, float]:
    """Seconds to open and measure one pair over HTTP, and what the process wrote to disk meanwhile."""
    _warm_up()
    hub = Hub(endpoint)
    process = psutil.Process()
    written = process.io_counters().write_bytes
    begun, cpu = time.perf_counter(), time.process_time()
    sources = [_open_remote(hub, name) for name in ("bench/base", "bench/candidate")]
    with sources[0] as base, sources[1] as candidate:
        facts = measure(_aligned(base, candidate), base, candidate)
    seconds = time.perf_counter() - begun
    assert not facts.coverage.skipped, facts.coverage.skipped
    return {
        "bytes": _bytes(folder),
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "written": process.io_counters().write_bytes - written,
        "peak": _peak_bytes(),
        "requests": hub.requests,
    }


def _open_remote(hub: Hub, name: str) -> WeightSource:
    return open_source(collect(hub.resolve(parse_spec(name, endpoint=hub.endpoint)), hub), hub)


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[WeightSource, WeightSource]]:
    paths = [str(folder / "bench" / name) for name in ("base", "candidate")]
    facts = [RepoFacts(ref=RepoRef(path=path), files=list_folder(path)) for path in paths]
    with open_source(facts[0], None) as base, open_source(facts[1], None) as candidate:
        yield base, candidate


def _aligned(base: WeightSource, candidate: WeightSource) -> Alignment:
    pairs = tuple(
        PairSpec(
            name=name, base=base.table[name], candidate=meta, role="other", layer=None, rows=(0, meta.rows_cols[0])
        )
        for name, meta in candidate.table.items()
    )
    return Alignment(pairs=pairs, skips=(), parameters_total=sum(pair.candidate.count for pair in pairs))


def _measure(folder: Path, depth: Any, cores: int) -> None:
    with _opened(folder) as (base, candidate):
        facts = measure(_aligned(base, candidate), base, candidate, depth=depth, threads=cores)
    assert facts.coverage.fraction == 1


@njit(nogil=True)
def _sum(words: Any) -> Any:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


def _read(folder: Path, cores: int) -> int:
    """Add up all bytes of both files, 8 at a time, through the mapping and in the blocks that the measurement uses."""
    total = 0
    with _opened(folder) as (base, candidate), ThreadPoolExecutor(cores) as pool:
        streams = [source.stream(_requests(source)) for source in (base, candidate)]
        for blocks in zip(*streams, strict=True):
            for block in blocks:
                words = block.values.reshape(-1).view(np.uint64)
                parts = np.array_split(words, cores)
                total ^= sum(int(part) for part in (pool.map(_sum, parts) if cores > 1 else map(_sum, parts)))
    return total


def _requests(source: WeightSource) -> Iterator[BlockRequest]:
    for name, meta in source.table.items():
        rows, columns = meta.rows_cols
        step = max(1, BLOCK_BYTES // (columns * (meta.end - meta.start) // meta.count))
        for start in range(0, rows, step):
            yield BlockRequest(name=name, rows=(start, min(start + step, rows)))


def _torch(folder: Path, cores: int, block_elements: int) -> None:
    """The same moments in plain torch, on whole tensors (0) or in blocks of rows of about so many elements."""
    import torch
    from safetensors import safe_open

    torch.set_num_threads(cores)
    files = [folder / "bench" / name / "model.safetensors" for name in ("base", "candidate")]
    with safe_open(files[0], "pt") as base, safe_open(files[1], "pt") as candidate:
        for name in base.keys():  # noqa: SIM118 - the handle is no mapping
            pair = [side.get_tensor(name) for side in (base, candidate)]
            left, right = (tensor.reshape(1, -1) if tensor.ndim < 2 else tensor for tensor in pair)
            step = block_elements // left.shape[1] if block_elements else left.shape[0]
            columns = torch.zeros(left.shape[1], dtype=torch.float64)
            for start in range(0, left.shape[0], max(1, step)):
                rows = slice(start, start + max(1, step))
                _torch_moments(left[rows], right[rows], columns)


def _torch_moments(left: Any, right: Any, columns: Any) -> tuple[Any, ...]:
    """Row, column and cross moments and the count of changes, as one would write them, in float32 throughout."""
    base, candidate = left.float(), right.float()
    delta = candidate - base
    energy = delta.square()
    columns += energy.sum(0)
    return (
        energy.sum(1),
        base.square().sum(1),
        candidate.square().sum(1),
        (base * delta).sum(1),
        (delta != 0).sum(),
    )


def _warm_up() -> None:
    """Load the compiled loops, which a first scan on a machine compiles for some seconds."""
    from scanner.drift import kernels

    for dtype in (np.uint16, np.int16, np.float32):
        values = np.zeros((2, 2), dtype)
        values.flags.writeable = False
        sums = np.zeros((kernels.SUMS, 2))
        work = np.zeros((2, 2), np.float32)
        columns = np.zeros(2), np.zeros(2), np.zeros(2, np.float32), np.zeros(2, np.int32)
        kernels.fold_panel(values, values, sums, *columns, work, 0, True)
        kernels.write_delta(values, values, np.float32(1), work)


def _bytes(folder: Path) -> int:
    """Bytes of both sides."""
    return sum(path.stat().st_size for path in folder.glob("bench/*/*.safetensors"))


def _seconds(way: Callable[[], object]) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


def _peak_bytes() -> int:
    """The highest resident size so far, file pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
