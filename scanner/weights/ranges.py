"""Byte ranges of remote files, read ahead in large requests and handed out in order.

Many small neighbouring ranges become one request; one large range becomes several that are in flight together. What
has been fetched but not yet handed out is bounded, so memory stays flat however much is asked for.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from scanner.hub import Hub
from scanner.records import RepoRef

CHUNK_BYTES = 8 << 20
IN_FLIGHT = 8
GAP_BYTES = 256 << 10
SAMPLE_GAP_BYTES = 4 << 10
"""Gap for the few rows of a scan with a budget: unwanted bytes between two runs that are worth one request less there;
a full scan, which has few gaps, allows ``GAP_BYTES``."""
AHEAD_BYTES = 128 << 20


class ByteRange(NamedTuple):
    """The bytes ``start`` (included) to ``end`` (excluded) of a file of the repository."""

    file: str
    start: int
    end: int


@dataclass(slots=True)
class _Span:
    """A run of one file that holds the wanted ranges, all inside ``[start, end)``, in the order asked for."""

    file: str
    start: int
    end: int
    wanted: list[ByteRange]

    def take(self, item: ByteRange, chunk_bytes: int, gap_bytes: int) -> bool:
        """Include a further range if it lies close behind and the run stays one request; say whether it does."""
        near = item.file == self.file and self.start <= item.start <= self.end + gap_bytes
        end = max(self.end, item.end)
        if not near or end - self.start > chunk_bytes:
            return False
        self.end = end
        self.wanted.append(item)
        return True


@dataclass(slots=True)
class _Pending:
    """A run on its way: the buffer that its requests fill."""

    span: _Span
    buffer: memoryview
    parts: list[Future[None]] = field(default_factory=list)


class RangeReader:
    """Reads ranges of the files of one pinned repository over HTTP. Use as a context manager.

    ``bytes_read`` counts the bytes of finished requests (the gaps between coalesced ranges included) and
    ``requests`` those requests; redirects and repetitions are counted by the hub alone.
    """

    def __init__(
        self,
        hub: Hub,
        ref: RepoRef,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        in_flight: int = IN_FLIGHT,
        gap_bytes: int = GAP_BYTES,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        """Prepare a reader; no request is made yet.

        Args:
            hub: who reads.
            ref: the repository, on the Hub.
            chunk_bytes: the size of one request at most.
            in_flight: requests at a time.
            gap_bytes: unwanted bytes between two ranges that are worth one request less.
            ahead_bytes: what may be fetched or under way before it is handed out. A single range larger than this
                is read alone, into a buffer of its own size.
        """
        self.bytes_read = 0
        self.requests = 0
        self._hub = hub
        self._ref = ref
        self._chunk_bytes = chunk_bytes
        self._gap_bytes = gap_bytes
        self._ahead_bytes = ahead_bytes
        self._pool = ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="range")
        self._lock = threading.Lock()
        self._stops: set[threading.Event] = set()

    def read(self, ranges: Iterable[ByteRange]) -> Iterator[memoryview]:
        """Yield one read-only buffer per range, in the order asked for.

        Ranges may touch, overlap and go backwards; only neighbours in the order asked for are coalesced. ``ranges``
        is drawn from as reading proceeds. A buffer stays valid for as long as it is referenced.

        Raises:
            CouldNotConclude: a range could not be read in spite of all retries; the rest is cancelled.
            ValueError: a range is reversed, or not inside its file.
        """
        stop = threading.Event()
        self._stops.add(stop)
        pending: deque[_Pending] = deque()
        spans = self._spans(ranges)
        following = next(spans, None)
        ahead = 0
        try:
            while following is not None or pending:
                while following is not None and (
                    ahead == 0 or ahead + following.end - following.start <= self._ahead_bytes
                ):
                    pending.append(self._begin(following, stop))
                    ahead += len(pending[-1].buffer)
                    following = next(spans, None)
                current = pending.popleft()
                for part in current.parts:
                    part.result()
                for item in current.span.wanted:
                    at = item.start - current.span.start
                    yield current.buffer[at : at + item.end - item.start].toreadonly()
                ahead -= len(current.buffer)
                del current
        finally:
            # Reached on errors and when the caller stops early: what is under way ends within a piece or a wait.
            stop.set()
            self._stops.discard(stop)
            for late in pending:
                for part in late.parts:
                    part.cancel()

    def close(self) -> None:
        """Stop what is under way and give the threads back. Buffers already handed out stay valid."""
        for stop in tuple(self._stops):
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spans(self, ranges: Iterable[ByteRange]) -> Iterator[_Span]:
        """Group neighbours into runs of at most ``chunk_bytes``; a larger range is a run of its own."""
        current: _Span | None = None
        for item in ranges:
            if not 0 <= item.start <= item.end:
                raise ValueError(f"bytes {item.start} to {item.end} are not a range")
            if current is not None and current.take(item, self._chunk_bytes, self._gap_bytes):
                continue
            if current is not None:
                yield current
            current = _Span(item.file, item.start, item.end, [item])
        if current is not None:
            yield current

    def _begin(self, span: _Span, stop: threading.Event) -> _Pending:
        """Send off the requests of a run; none for an empty one."""
        pending = _Pending(span, np.empty(span.end - span.start, dtype=np.uint8).data)
        for at in range(0, len(pending.buffer), self._chunk_bytes):
            piece = pending.buffer[at : at + self._chunk_bytes]
            pending.parts.append(self._pool.submit(self._fetch, span.file, span.start + at, piece, stop))
        return pending

    def _fetch(self, file: str, start: int, buffer: memoryview, stop: threading.Event) -> None:
        self._hub.read_into(self._hub.locate(self._ref, file), start, buffer, stop=stop)
        with self._lock:
            self.requests += 1
            self.bytes_read += len(buffer)
