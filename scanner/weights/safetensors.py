"""Safetensors checkpoints as weight sources: mapped from a folder, or read from the Hub by ranges.

PyTorch checkpoints are read in the same way once ``scanner.weights.pickled`` has found where their tensors lie.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scanner.errors import CorruptWeights, CouldNotConclude
from scanner.hub import Hub
from scanner.paths import shown
from scanner.records import FileEntry, RepoRef, Skip, TensorMeta
from scanner.weights.header import FIRST_READ_BYTES, LENGTH_BYTES, Header, header_bytes, parse_header
from scanner.weights.layout import Layout
from scanner.weights.mapping import MappedFile, file_size, open_weights, unreadable
from scanner.weights.panels import Panel, locate_panel, view_values
from scanner.weights.pickle_names import is_pickled
from scanner.weights.ranges import GAP_BYTES, ByteRange, RangeReader
from scanner.weights.shards import collect_headers, join_tables
from scanner.weights.source import Block, BlockRequest
from scanner.window import Read

MAPPED_FILES: Final = 4
"""Files mapped at once; a checkpoint of hundreds of shards must not use up the file handles."""
LOCATED_AT_ONCE: Final = 8
MAX_BLOCK_BYTES: Final = 512 << 20
"""Largest block fetched in one piece: a remote block is held in memory, and its size is a stranger's choice."""


class LocalSafetensors:
    """A ``WeightSource`` over the safetensors files of a folder.

    Blocks are read-only views of the page cache (copies where a tensor is misaligned). Pages behind the reader are
    let go, so that the resident size does not grow with the checkpoint.
    """

    remote: Final = False
    requests: Final = 0

    def __init__(self, ref: RepoRef, layout: Layout) -> None:
        """Read all headers.

        Args:
            ref: the folder.
            layout: which of its files to read.

        Raises:
            CorruptWeights: a header lies.
            CouldNotConclude: a file cannot be read.
        """
        self.ref = ref
        self.bytes_read = 0
        self._folder = Path(ref.name)
        self._mapped: dict[str, MappedFile] = {}
        self._sizes: dict[str, int] = {}
        table, skips = join_tables(collect_headers(self._read_headers(layout.files)), layout.shard_of)
        self.table: Mapping[str, TensorMeta] = table
        self.skips: tuple[Skip, ...] = (*layout.skips, *skips)
        self.bytes_total = sum(self._sizes.values())

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        """Yield one block per request, in order; see ``WeightSource.stream``."""
        for request in wanted:
            panel = locate_panel(self.table, request)
            if panel.start == panel.end:
                yield panel.empty_block()
                continue
            mapped = self._map(panel.file)
            self.bytes_read += panel.end - panel.start
            yield panel.block(mapped.values(panel))
            mapped.leave(panel)

    def _read_headers(self, files: Iterable[FileEntry]) -> Iterator[tuple[str, Header]]:
        for entry in files:
            file = entry.path
            with open_weights(self._folder, file) as handle:
                size = self._sizes[file] = file_size(handle)
                if is_pickled(file):
                    yield file, _pickled_header(partial(_read_spans, handle), file, size)
                    continue
                try:
                    length = header_bytes(read_exactly(handle, LENGTH_BYTES), file, size)
                    raw = read_exactly(handle, length)
                except OSError as error:
                    raise unreadable(file, error) from error
            yield file, parse_header(raw, file, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Dropped, not closed: a block that somebody still holds keeps its mapping alive.
        self._mapped.clear()

    def _map(self, file: str) -> MappedFile:
        mapped = self._mapped.pop(file, None) or MappedFile(self._folder, file, self._sizes[file])
        self._mapped[file] = mapped  # the order of the entries is the order of use
        while len(self._mapped) > MAPPED_FILES:
            del self._mapped[next(iter(self._mapped))]
        return mapped


class RemoteSafetensors:
    """A ``WeightSource`` over the safetensors files of a Hub repository, read by ranges; nothing touches the disk."""

    remote: Final = True

    def __init__(self, ref: RepoRef, layout: Layout, hub: Hub, *, gap_bytes: int = GAP_BYTES) -> None:
        """Read all headers, several files at a time.

        Args:
            ref: the repository at a commit.
            layout: which of its files to read.
            hub: the reader.
            gap_bytes: unwanted bytes between two ranges that are worth one request less.

        Raises:
            CorruptWeights: a header lies.
            CouldNotConclude: a file cannot be read.
        """
        self.ref = ref
        self.bytes_read = 0
        self._hub = hub
        self._gap_bytes = gap_bytes
        self._readers: list[RangeReader] = []
        self._finished_requests = 0
        table, skips = join_tables(collect_headers(self._read_headers(layout.files)), layout.shard_of)
        self.table: Mapping[str, TensorMeta] = table
        self.skips: tuple[Skip, ...] = (*layout.skips, *skips)
        self.bytes_total = sum(entry.size_bytes for entry in layout.files)

    @property
    def requests(self) -> int:
        """HTTP requests made so far, for headers and tensors."""
        return self._finished_requests + sum(reader.requests for reader in self._readers)

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        """Yield one block per request, in order, with several ranges in flight; see ``WeightSource.stream``.

        Raises:
            CouldNotConclude: also when one request asks for more than ``MAX_BLOCK_BYTES``.
        """
        asked: deque[Panel] = deque()
        with closing(self._fetch(self._ranges(wanted, asked))) as views:
            for view in views:
                while asked[0].start == asked[0].end:
                    yield asked.popleft().empty_block()
                panel = asked.popleft()
                self.bytes_read += panel.end - panel.start
                yield panel.block(view_values(view, panel, 0))
        for panel in asked:
            yield panel.empty_block()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._readers:
            self._finish(self._readers[-1])

    def _ranges(self, wanted: Iterable[BlockRequest], asked: deque[Panel]) -> Iterator[ByteRange]:
        """The byte range of every request that covers any; all requests are noted in ``asked``."""
        for request in wanted:
            panel = locate_panel(self.table, request)
            n_bytes = panel.end - panel.start
            if n_bytes > MAX_BLOCK_BYTES:
                raise CouldNotConclude(
                    f"A part of {shown(request.name)} with {n_bytes:,} bytes cannot be fetched in one piece; ask for "
                    f"fewer rows or columns than {MAX_BLOCK_BYTES:,} bytes hold."
                )
            asked.append(panel)
            if n_bytes:
                yield ByteRange(file=panel.file, start=panel.start, end=panel.end)

    def _fetch(self, ranges: Iterable[ByteRange]) -> Generator[memoryview]:
        reader = RangeReader(self._hub, self.ref, gap_bytes=self._gap_bytes)
        self._readers.append(reader)
        try:
            yield from reader.read(ranges)
        finally:
            self._finish(reader)

    def _finish(self, reader: RangeReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            reader.close()
            self._finished_requests += reader.requests

    def _read_headers(self, files: Sequence[FileEntry]) -> Iterator[tuple[str, Header]]:
        """The header of every file, with a second request where the first bytes do not hold it all."""
        self._check_sizes(files)
        sizes = {entry.path: entry.size_bytes for entry in files if not is_pickled(entry.path)}
        first = [ByteRange(file=file, start=0, end=min(FIRST_READ_BYTES, size)) for file, size in sizes.items()]
        longer = []
        with closing(self._fetch(first)) as heads:
            for part, head in zip(first, heads, strict=True):
                end = LENGTH_BYTES + header_bytes(bytes(head[:LENGTH_BYTES]), part.file, sizes[part.file])
                if end > len(head):
                    longer.append(ByteRange(file=part.file, start=LENGTH_BYTES, end=end))
                else:
                    yield part.file, parse_header(bytes(head[LENGTH_BYTES:end]), part.file, sizes[part.file])
        with closing(self._fetch(longer)) as rests:
            for part, raw in zip(longer, rests, strict=True):
                yield part.file, parse_header(bytes(raw), part.file, sizes[part.file])
        for entry in files:
            if is_pickled(entry.path):
                yield entry.path, _pickled_header(self._spans_of(entry.path), entry.path, entry.size_bytes)

    def _spans_of(self, file: str) -> Read:
        """Reads ranges of one file, several at a time."""

        def read(spans: Sequence[tuple[int, int]]) -> list[bytes]:
            with closing(self._fetch(ByteRange(file=file, start=start, end=end) for start, end in spans)) as views:
                return [bytes(view) for view in views]

        return read

    def _check_sizes(self, files: Sequence[FileEntry]) -> None:
        """Locate every file, several at a time, and hold its size against the listing: offsets are checked with it.

        Raises:
            CorruptWeights: they differ.
        """
        with ThreadPoolExecutor(LOCATED_AT_ONCE, thread_name_prefix="locate") as pool:
            located = pool.map(lambda entry: self._hub.locate(self.ref, entry.path), files)
            for entry, remote in zip(files, located, strict=True):
                if entry.size_bytes != remote.size_bytes:
                    raise CorruptWeights(
                        f"The weights file {shown(entry.path)} is listed with {entry.size_bytes:,} bytes and offered "
                        f"with {remote.size_bytes:,}; scan again, and tell the Hub if that stays."
                    )


def _pickled_header(read: Read, file: str, size: int) -> Header:
    """The table of a PyTorch checkpoint."""
    from scanner.weights.pickled import read_pickled_header  # noqa: PLC0415  # torch takes a second to import

    return read_pickled_header(read, file, size)


def _read_spans(handle: FileIO, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Ranges of an open file.

    Raises:
        CouldNotConclude: it cannot be read.
    """
    parts = []
    try:
        for start, end in spans:
            handle.seek(start)
            parts.append(read_exactly(handle, end - start))
    except OSError as error:
        raise unreadable(str(handle.name), error) from error
    return parts


def read_exactly(handle: FileIO, length: int) -> bytes:
    """The next bytes of the file, fewer only at its end; one read may return less than asked for."""
    parts = bytearray()
    while len(parts) < length and (part := handle.read(length - len(parts))):
        parts += part
    return bytes(parts)
