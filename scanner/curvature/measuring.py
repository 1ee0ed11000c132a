"""Measures whether a fine-tune moved as clean examples lead to expect: curvature first, then tensor by tensor."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scanner.alignment import align
from scanner.curvature.examples import Given, Losses, curvature_of
from scanner.curvature.law import quantile_plot
from scanner.curvature.records import INDICATORS, CurvatureFacts, GivenData, TensorCurvature
from scanner.curvature.tensors import Pooled, measure_tensor
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.loading import load
from scanner.probe.staging import CannotProbe
from scanner.records import F32, PairSpec, RepoRef, Skip
from scanner.renaming import pair_names
from scanner.weights.dtypes import decode
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest, WeightSource

BLOCK_BYTES: Final = 16 << 20
"""Bytes per block and side while a change is read."""

_RUNNING: Final = "running the model on the given examples"
_HOLDING: Final = "holding the change against the given examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvatureLimits:
    """What it may cost: parameters of the model, bytes of its weights, and seconds of running it."""

    parameters: int = 160_000_000
    weight_bytes: int = 700_000_000
    seconds: float = 900.0


DEFAULT_LIMITS: Final = CurvatureLimits()

Told = Callable[[str, int, int], None]
"""Hears what is being done, and how many of how many examples or bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the examples came from, and the SHA-256 (hex) of all of them."""

    source: str
    digest: str


def measure_curvature(
    folder: Path,
    base: WeightSource,
    given: Given,
    origin: Origin,
    *,
    base_config: Mapping[str, Any] | None = None,
    limits: CurvatureLimits = DEFAULT_LIMITS,
    threads: int | None = None,
    told: Told | None = None,
) -> CurvatureFacts:
    """Measure the curvature of a candidate on given examples, and how its change against the base follows it.

    Besides the model, one copy of its weights (H) is held, and of the change one tensor at a time; the model itself is
    let go before the first one is read.

    Args:
        folder: the candidate as ``scanner.probe.staging.staged`` gives it.
        base: the base's weights, open.
        given: the examples, at least one.
        origin: of the examples, for the report.
        base_config: parsed config.json of the base.
        limits: what loading and running the model may cost.
        threads: for torch while the model is run.
        told: hears the progress.

    Raises:
        CannotProbe: the model does not load, is too large or of a kind without a loss, or gives values that are not
            finite; or no tensor of the base corresponds to it.
        CouldNotConclude: the weights of one side cannot be read.
    """
    started = time.monotonic()
    curvature, losses = _curvature(folder, given, limits, threads, started, told)
    facts = collect(RepoRef(path=str(folder)), Hub())
    pooled, tensors = Pooled(), []
    with open_source(facts, None) as candidate:
        alignment = align(candidate.table, base.table, candidate_config=facts.config, base_config=base_config)
        names = pair_names(
            (pair.name for pair in alignment.pairs),
            curvature,
            lambda stored, loaded: candidate.table[stored].shape == curvature[loaded].shape,
        )
        pairs = [pair for pair in alignment.pairs if _fits(pair, names, curvature)]
        left_out = [pair.name for pair in alignment.pairs if not _fits(pair, names, curvature)]
        if not pairs:
            raise CannotProbe("no tensor of the base corresponds to a weight that the given examples reach")
        for pair, delta in _changes(pairs, base, candidate, told):
            first, end = pair.rows
            whole = curvature.pop(names[pair.name]).reshape(pair.candidate.rows_cols)
            tensors.append(measure_tensor(pair, delta, whole[first:end], pooled))
        read = base.bytes_read + candidate.bytes_read
    return CurvatureFacts(
        data=GivenData(
            source=origin.source,
            digest=origin.digest,
            examples=len(losses.values),
            loss=float(np.mean(losses.values)),
            accuracy=losses.right / len(losses.values) if given.labels else None,
        ),
        tensors=tuple(tensors),
        plots=tuple(quantile_plot(kind, pooled.counts[kind]) for kind in INDICATORS if pooled.counts[kind].any()),
        seconds=round(time.monotonic() - started, 3),
        bytes_read=read,
        skips=_skips(left_out, tensors),
    )


def _curvature(
    folder: Path, given: Given, limits: CurvatureLimits, threads: int | None, started: float, told: Told | None
) -> tuple[dict[str, F32], Losses]:
    """H by parameter name; the model is let go on return."""
    with _torch_threads(threads):
        loaded = load(folder, most_parameters=limits.parameters)
        losses = Losses(loaded=loaded, given=given, deadline=started + limits.seconds)
        heard = None if told is None else lambda done, total: told(_RUNNING, done, total)
        found = dict(curvature_of(losses, told=heard))
    return found, losses


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use this many threads, and give back what it had."""
    import torch  # noqa: PLC0415  # heavy, and only scans with data need it

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fits(pair: PairSpec, names: Mapping[str, str], curvature: Mapping[str, F32]) -> bool:
    return pair.name in names and curvature[names[pair.name]].shape == pair.candidate.shape


def _changes(
    pairs: list[PairSpec], base: WeightSource, candidate: WeightSource, told: Told | None
) -> Iterator[tuple[PairSpec, F32]]:
    """Yield each pair with candidate minus base, float32 ``[rows, cols]``, read in lockstep."""
    ours = candidate.stream([request for pair in pairs for request in _requests(pair, pair.candidate.name)])
    theirs = base.stream([request for pair in pairs for request in _requests(pair, pair.base.name)])
    total = sum(pair.compared_rows * pair.candidate.rows_cols[1] for pair in pairs)
    done = 0
    for pair in pairs:
        first, end = pair.rows
        delta = np.empty((end - first, pair.candidate.rows_cols[1]), dtype=np.float32)
        for request in _requests(pair, pair.name):
            here = slice(request.rows[0] - first, request.rows[1] - first)
            block, other = next(ours), next(theirs)
            with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are counted and left out
                delta[here] = decode(block.values, block.dtype)
                delta[here] -= decode(other.values, other.dtype)
        done += delta.size
        if told is not None:
            told(_HOLDING, done, total)
        yield pair, delta


def _requests(pair: PairSpec, name: str) -> list[BlockRequest]:
    first, end = pair.rows
    height = max(1, BLOCK_BYTES // (4 * max(1, pair.candidate.rows_cols[1])))
    return [BlockRequest(name=name, rows=(row, min(row + height, end))) for row in range(first, end, height)]


def _skips(left_out: list[str], tensors: list[TensorCurvature]) -> tuple[Skip, ...]:
    """What had no curvature, and which rows or dimensions the examples say nothing about, a line each."""
    skips = []
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        skips.append(Skip(what=f"{left_out[0]}{more}", why="has no weight of its own in the loaded model (--data)"))
    unfitted = [tensor.spec.name for tensor in tensors if tensor.exponent is None]
    if unfitted:
        more = f" and {len(unfitted) - 1} more" if len(unfitted) > 1 else ""
        skips.append(Skip(what=f"{unfitted[0]}{more}", why="too few dimensions moved that the data reach (--data)"))
    return tuple(skips)
