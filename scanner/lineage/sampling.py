"""Draws the same few rows from both checkpoints: little to read, spread over roles and depth.

Rows come in contiguous runs, because over the network a run costs one request and single rows one each.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from scanner.records import F64, PairSpec, RepoRef, Role, Rows
from scanner.weights.dtypes import decode, item_bits
from scanner.weights.source import Block, BlockRequest, WeightSource

MAX_TENSORS = 12
MAX_SAMPLE_BYTES = 24 << 20
"""Bytes read from both sides together."""
MIN_ROWS = 8
"""Fewer rows of a tensor say nothing about whether rows have kept their place."""
MIN_COLUMNS = 16
RUNS_PER_TENSOR = 2
_SEED_BYTES = 6
"""So that a report, whose numbers are doubles, states the seed exactly."""
EVIDENT_ROLES: frozenset[Role] = frozenset(
    {"embedding", "unembedding", "query", "key", "value", "attention", "attention_output", "mlp_in", "mlp_gate",
     "mlp_out", "conv"}
)  # fmt: skip
"""Matrices that training fills from a random start. Norms, biases and position tables look alike in models that
share nothing (an uncentred cosine of norm vectors once produced a public false accusation); heads, poolers and
routers are often made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The same rows of one tensor on both sides, float64 ``[rows, cols]``."""

    spec: PairSpec
    base: F64
    candidate: F64


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTensor:
    """A tensor to sample and the runs of rows (half-open, ascending, apart) to read from it."""

    spec: PairSpec
    runs: tuple[Rows, ...]


def plan_samples(
    pairs: Sequence[PairSpec], *, rows_per_tensor: int, seed: int, most_bytes: int = MAX_SAMPLE_BYTES
) -> list[PlannedTensor]:
    """Choose up to ``MAX_TENSORS`` tensors, role by role in turn, at random depth, and runs of rows in each.

    The whole plan reads at most ``most_bytes`` of both sides together, and never more than ``MAX_SAMPLE_BYTES``;
    nothing when that is too little. The same arguments give the same plan.

    Args:
        pairs: all pairs of the alignment.
        rows_per_tensor: rows wanted of each tensor; wide tensors give fewer, but never fewer than ``MIN_ROWS``.
        seed: of the choice of layers and rows.
        most_bytes: of the whole plan.
    """
    share = min(most_bytes, MAX_SAMPLE_BYTES) / MAX_TENSORS
    generator = np.random.default_rng(seed)
    by_role: dict[Role, list[PairSpec]] = defaultdict(list)
    for spec in pairs:
        if _rows_affordable(spec, rows_per_tensor, share) and spec.role in EVIDENT_ROLES:
            by_role[spec.role].append(spec)
    queues = [[specs[i] for i in generator.permutation(len(specs))] for _, specs in sorted(by_role.items())]
    chosen: list[PairSpec] = []
    while len(chosen) < MAX_TENSORS and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return [
        PlannedTensor(spec=spec, runs=_runs(spec, _rows_affordable(spec, rows_per_tensor, share), generator))
        for spec in chosen[:MAX_TENSORS]
    ]


def new_salt() -> int:
    """Return 32 random bits, so that nobody can know beforehand which rows will be looked at."""
    return secrets.randbits(32)


def sampling_seed(base: RepoRef, candidate: RepoRef, salt: int) -> int:
    """Return the seed that the two pinned references and a recorded salt stand for: the same in every repetition."""
    text = f"{base}\x1f{candidate}\x1f{salt}"
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big")


def read_values(source: WeightSource, wanted: Sequence[BlockRequest]) -> list[F64]:
    """Read blocks whole, in order, float64 ``[rows, cols]``; the caller bounds their size.

    Raises:
        CouldNotConclude: the source cannot be read.
    """
    return [_values(block) for block in source.stream(wanted)]


def read_samples(planned: Sequence[PlannedTensor], base: WeightSource, candidate: WeightSource) -> Iterator[Sample]:
    """Read the planned rows from both sides, in step, one tensor at a time.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    runs = [(tensor, run) for tensor in planned for run in tensor.runs]
    ours = candidate.stream(BlockRequest(name=tensor.spec.candidate.name, rows=run) for tensor, run in runs)
    theirs = base.stream(BlockRequest(name=tensor.spec.base.name, rows=run) for tensor, run in runs)
    for tensor in planned:
        parts = [(_values(next(theirs)), _values(next(ours))) for _ in tensor.runs]
        yield Sample(
            spec=tensor.spec,
            base=np.concatenate([part for part, _ in parts]),
            candidate=np.concatenate([part for _, part in parts]),
        )


def _values(block: Block) -> F64:
    """A copy of a block's numbers in float64 (the block's own array lives until the next one only)."""
    return np.array(decode(block.values, block.dtype), dtype=np.float64)


def _rows_affordable(spec: PairSpec, wanted: int, share_bytes: float) -> int:
    """Rows of the tensor to read: at most a fair share of the bytes; 0 when that is too few to mean anything."""
    columns = spec.candidate.rows_cols[1]
    available = spec.rows[1] - spec.rows[0]
    if columns < MIN_COLUMNS or columns != spec.base.rows_cols[1]:
        return 0
    row_bytes = columns * (item_bits(spec.base.dtype) + item_bits(spec.candidate.dtype)) / 8
    rows = min(wanted, available, int(share_bytes / row_bytes))
    return rows if rows >= MIN_ROWS else 0


def _runs(spec: PairSpec, rows: int, generator: np.random.Generator) -> tuple[Rows, ...]:
    """Runs of ``rows`` rows in all: one in each equal part of the tensor, at a random place of it."""
    first, last = spec.rows
    if last - first <= 2 * rows:
        return ((first, first + rows),)
    part = (last - first) // RUNS_PER_TENSOR
    lengths = [rows // RUNS_PER_TENSOR] * RUNS_PER_TENSOR
    lengths[0] += rows - sum(lengths)
    starts = [first + index * part + int(generator.integers(part - length + 1)) for index, length in enumerate(lengths)]
    return tuple((start, start + length) for start, length in zip(starts, lengths, strict=True))
