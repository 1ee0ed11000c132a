"""Stream two aligned checkpoints side by side and measure what moved.

Blocks of bounded size come in lockstep from both sources; each is folded into the sums of its tensor and let go.
Memory therefore depends on the block size and on the number of rows and columns, not on the number of weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from scanner.drift.kernels import STRIP_ROWS
from scanner.drift.moments import MAX_COLUMNS
from scanner.drift.pair import Depth, PairMeasurement
from scanner.drift.stored import DriftStore
from scanner.drift.workers import Workers, usable_cores
from scanner.errors import CorruptWeights, CouldNotConclude, FileNotFound
from scanner.records import Alignment, Coverage, DriftFacts, PairSpec, Rows, Skip, TensorDrift
from scanner.weights.dtypes import item_bits
from scanner.weights.source import Block, BlockRequest, WeightSource

Progress = Callable[[int, int], None]
"""Told the bytes of both sides that are done with, and all there are."""

BLOCK_BYTES: Final = 16 << 20
"""Bytes per block and side."""
_BITS_PER_BYTE: Final = 8
_FAILURES_IN_A_ROW: Final = 2
"""A source that fails so often without a tensor in between is given up; each failure has outlasted its retries."""


def measure(
    alignment: Alignment,
    base: WeightSource,
    candidate: WeightSource,
    *,
    depth: Depth = "spectrum",
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
    threads: int | None = None,
    seed: int = 0,
    store: DriftStore | None = None,
) -> DriftFacts:
    """Measure the drift of every aligned pair.

    A tensor that cannot be read to its end becomes a skip and leaves no other trace. Only rows that are compared
    are read. The figures do not depend on ``block_bytes`` or ``threads`` beyond the rounding of sums.

    Args:
        alignment: the pairs, whose rows lie within both tensors.
        base: the declared base, open.
        candidate: the fine-tune, open.
        depth: how much to measure.
        progress: called after each block, and for what is skipped.
        block_bytes: aim per block and side; a block holds at least one row of up to ``MAX_COLUMNS`` elements.
        threads: at most this many; the usable cores, at most eight, when None.
        seed: of the sketch behind the spectrum of large tensors.
        store: takes every finished tensor, and gives those that an interrupted scan had finished; they are not read
            again, and count as read.

    Returns:
        One ``TensorDrift`` per pair that was read, in the order of the alignment, and the coverage, whose skips
        join those of the alignment, of both sources and of the reading.
    """
    known = {pair.name: found for pair in alignment.pairs if store and (found := store.load(pair, depth, seed))}
    with Workers(threads or usable_cores()) as workers:
        walk = _Walk(
            sources=(("base", base), ("candidate", candidate)),
            begin=lambda spec: PairMeasurement(spec, workers, depth=depth, seed=seed),
            progress=progress or (lambda _done, _total: None),
            finished=(lambda drift: store.keep(drift, depth, seed)) if store else (lambda _drift: None),
        )
        walk.over([step for pair in alignment.pairs if pair.name not in known for step in _steps(pair, block_bytes)])
    fresh = {tensor.spec.name: tensor for tensor in walk.tensors}
    tensors = tuple(t for pair in alignment.pairs if (t := known.get(pair.name) or fresh.get(pair.name)))
    restored = sum(step.bytes for pair in alignment.pairs if pair.name in known for step in _steps(pair, block_bytes))
    empty = (Skip(what=pair.name, why="It has no elements to compare.") for pair in alignment.pairs if _is_empty(pair))
    skips = (*alignment.skips, *base.skips, *candidate.skips, *empty, *walk.skips)
    return DriftFacts(
        tensors=tensors,
        coverage=Coverage(
            parameters_compared=sum(tensor.count for tensor in tensors),
            parameters_total=alignment.parameters_total,
            bytes_read=base.bytes_read + candidate.bytes_read + restored,
            bytes_total=base.bytes_total + candidate.bytes_total,
            skipped=tuple(dict.fromkeys(skips)),
        ),
        added_rows=alignment.added_rows,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One block pair to read; the last of its tensor says so. ``columns`` is None for whole rows."""

    spec: PairSpec
    rows: Rows
    columns: Rows | None
    last: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        left, right = self.columns or (0, self.spec.candidate.rows_cols[1])
        return self.rows[1] - self.rows[0], right - left

    @property
    def bytes(self) -> int:
        """Bytes of both sides."""
        rows, columns = self.shape
        return rows * columns * (item_bits(self.spec.base.dtype) + item_bits(self.spec.candidate.dtype)) // 8


class _BlockFailed(Exception):  # noqa: N818
    """A block could not be had."""

    def __init__(self, step: _Step, side: str, cause: Exception) -> None:
        super().__init__(step, side, cause)
        self.step = step
        self.side = side
        self.cause = cause

    @property
    def why(self) -> str:
        """The reason for a person."""
        return f"The {self.side} could not be read: {self.cause}"

    @property
    def lasting(self) -> bool:
        """Whether the next tensor will probably fail as well: network and access, not one bad file."""
        return not isinstance(self.cause, CorruptWeights | FileNotFound | ValueError)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One walk over the pairs: what came of it, and what was stepped over."""

    sources: tuple[tuple[str, WeightSource], ...]
    begin: Callable[[PairSpec], PairMeasurement]
    progress: Callable[[int, int], None]
    finished: Callable[[TensorDrift], None]
    tensors: list[TensorDrift] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    done_bytes: int = 0
    total_bytes: int = 0

    def over(self, steps: Sequence[_Step]) -> None:
        """Measure the tensors of all steps, stepping over those that cannot be read."""
        self.total_bytes = sum(step.bytes for step in steps)
        failures = 0
        while steps:
            measured = len(self.tensors)
            failed = self._read(steps)
            if failed is None:
                return
            self.skips.append(Skip(what=failed.step.spec.name, why=failed.why, unread=True))
            failures = (failures if len(self.tensors) == measured else 0) + 1 if failed.lasting else 0
            steps = self._beyond(steps, failed.step.spec)
            if steps and failures >= _FAILURES_IN_A_ROW:
                self.skips.append(_all_of(steps, failed.why))
                return

    def _read(self, steps: Sequence[_Step]) -> _BlockFailed | None:
        """Measure until the end or until a block cannot be had, which is then returned."""
        try:
            self._fold_all(steps)
        except _BlockFailed as failed:
            return failed
        return None

    def _fold_all(self, steps: Sequence[_Step]) -> None:
        measurement: PairMeasurement | None = None
        for step, (base, candidate) in self._blocks(steps):
            measurement = measurement or self.begin(step.spec)
            try:
                measurement.fold(base, candidate)
            except ValueError as error:
                raise _BlockFailed(step, "pair", error) from error
            if step.last:
                self.tensors.append(measurement.finish())
                self.finished(self.tensors[-1])
                measurement = None
            self.done_bytes += step.bytes
            self.progress(self.done_bytes, self.total_bytes)

    def _blocks(self, steps: Sequence[_Step]) -> Iterator[tuple[_Step, tuple[Block, Block]]]:
        with ExitStack() as stack:
            streams = []
            for side, source in self.sources:
                stream = source.stream(_requests(steps, side))
                stack.callback(getattr(stream, "close", lambda: None))
                streams.append((side, stream))
            for step in steps:
                base, candidate = (_next_block(step, side, stream) for side, stream in streams)
                yield step, (base, candidate)

    def _beyond(self, steps: Sequence[_Step], spec: PairSpec) -> Sequence[_Step]:
        """The steps after those of a tensor; everything up to there counts as done with."""
        end = next(i for i, step in enumerate(steps) if step.spec is spec and step.last) + 1
        rest = steps[end:]
        self.done_bytes = self.total_bytes - sum(step.bytes for step in rest)
        self.progress(self.done_bytes, self.total_bytes)
        return rest


def _next_block(step: _Step, side: str, stream: Iterator[Block]) -> Block:
    """The block of a step. Its shape is checked here, since compiled loops check no bounds."""
    try:
        block = next(stream, None)
    except CouldNotConclude as error:
        raise _BlockFailed(step, side, error) from error
    if block is None or block.values.shape != step.shape:
        got = "nothing" if block is None else f"{block.values.shape}"
        raise _BlockFailed(step, side, CorruptWeights(f"The reader gave {got} in place of {step.shape}; report this."))
    return block


def _steps(spec: PairSpec, block_bytes: int) -> Iterator[_Step]:
    """Cut the compared rows of a pair into blocks: strips of rows, or runs of columns where rows are very long."""
    if _is_empty(spec):
        return
    columns = spec.candidate.rows_cols[1]
    bits = max(item_bits(spec.base.dtype), item_bits(spec.candidate.dtype))
    runs = spec.runs or (spec.rows,)
    final = runs[-1][1]
    room = max(1, block_bytes * 8 // bits)
    if columns > MAX_COLUMNS:
        width = max(1, min(room, columns))
        for row in (row for first, end in runs for row in range(first, end)):
            for left in range(0, columns, width):
                right = min(left + width, columns)
                last = row + 1 == final and right == columns
                yield _Step(spec=spec, rows=(row, row + 1), columns=(left, right), last=last)
        return
    height = max(1, room // columns)
    height = max(1, height // STRIP_ROWS) * STRIP_ROWS if height >= STRIP_ROWS else height
    for first, end in runs:
        for row in range(first, end, height):
            below = min(row + height, end)
            yield _Step(spec=spec, rows=(row, below), columns=None, last=below == final)


def _is_empty(spec: PairSpec) -> bool:
    return spec.compared_rows <= 0 or spec.candidate.rows_cols[1] == 0


def _requests(steps: Sequence[_Step], side: str) -> Iterator[BlockRequest]:
    for step in steps:
        meta = step.spec.base if side == "base" else step.spec.candidate
        yield BlockRequest(name=meta.name, rows=step.rows, columns=step.columns)


def _all_of(steps: Sequence[_Step], why: str) -> Skip:
    names = dict.fromkeys(step.spec.name for step in steps)
    first = next(iter(names))
    what = first if len(names) == 1 else f"{first} and {len(names) - 1} more tensors"
    return Skip(what=what, why=why, unread=True)
