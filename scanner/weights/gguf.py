"""GGUF files as weight sources: read like any other file of tensors, and decoded block by block."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from typing import Final

from scanner.hub import Hub
from scanner.records import FileEntry, RepoRef, Rows, Skip, TensorMeta
from scanner.weights.derived import MAX_ROW_ELEMENTS, DerivedSource, Made
from scanner.weights.ggml import PLAIN, SIZES, can_decode, coding_of, decode_rows
from scanner.weights.gguf_header import Fact, GgufHeader, GgufTensor, read_gguf_header
from scanner.weights.header import Header
from scanner.weights.layout import Layout
from scanner.weights.mapping import file_size, open_weights, unreadable
from scanner.weights.ranges import ByteRange
from scanner.weights.rearranged import Part, Place
from scanner.weights.safetensors import LocalSafetensors, RemoteSafetensors, read_exactly
from scanner.weights.source import Block, BlockRequest, WeightSource
from scanner.weights.strict_json import name_some

MAX_EXPERTS: Final = 1024
_BLOCK_OF: Final[Mapping[str, tuple[int, int]]] = {kind: (count, size) for kind, count, size in SIZES.values()}
"""Elements and bytes of a block by the name of the kind."""


class LocalGgufBytes(LocalSafetensors):
    """The stored bytes of the GGUF files of a folder, ``[rows, bytes per row]`` where they hold codes."""

    def __init__(self, ref: RepoRef, layout: Layout) -> None:
        """Read all headers; see ``LocalSafetensors``."""
        self.headers: dict[str, GgufHeader] = {}
        super().__init__(ref, layout)

    def _read_headers(self, files: Iterable[FileEntry]) -> Iterator[tuple[str, Header]]:
        for entry in files:
            with open_weights(self._folder, entry.path) as handle:
                size = self._sizes[entry.path] = file_size(handle)
                found = read_gguf_header(_LocalReader(handle, entry.path), entry.path, size)
            self.headers[entry.path] = found
            yield entry.path, _stored(found, entry.path)


class RemoteGgufBytes(RemoteSafetensors):
    """The stored bytes of the GGUF files of a Hub repository, read by ranges."""

    def __init__(self, ref: RepoRef, layout: Layout, hub: Hub) -> None:
        """Read all headers; see ``RemoteSafetensors``."""
        self.headers: dict[str, GgufHeader] = {}
        super().__init__(ref, layout, hub)

    def _read_headers(self, files: Sequence[FileEntry]) -> Iterator[tuple[str, Header]]:
        self._check_sizes(files)
        for entry in files:
            found = read_gguf_header(_RemoteReader(self, entry.path), entry.path, entry.size_bytes)
            self.headers[entry.path] = found
            yield entry.path, _stored(found, entry.path)

    def read_range(self, file: str, start: int, end: int) -> bytes:
        """The bytes ``start`` to ``end`` (excluded) of a file."""
        with closing(self._fetch([ByteRange(file=file, start=start, end=end)])) as views:
            return b"".join(bytes(view) for view in views)


@dataclass(frozen=True, slots=True)
class _RemoteReader:
    source: RemoteGgufBytes
    file: str

    def __call__(self, start: int, end: int) -> bytes:
        return self.source.read_range(self.file, start, end) if start < end else b""


@dataclass(frozen=True, slots=True)
class _LocalReader:
    handle: FileIO
    file: str

    def __call__(self, start: int, end: int) -> bytes:
        try:
            self.handle.seek(start)
            return read_exactly(self.handle, end - start)
        except OSError as error:
            raise unreadable(self.file, error) from error


class GgufSource(DerivedSource):
    """A ``WeightSource`` over GGUF files, under the names that stand in them.

    A stack of experts is taken apart, since its rows are whole experts: ``blk.0.ffn_up_exps.weight[3]`` is the fourth.
    ``facts`` are the single values of the key-value pairs of all files, the first file's first.
    """

    def __init__(self, stored: LocalGgufBytes | RemoteGgufBytes) -> None:
        """Plan the decoding of every tensor.

        Args:
            stored: the open files.
        """
        self.facts: Mapping[str, Fact] = {
            key: value for header in reversed(stored.headers.values()) for key, value in header.facts.items()
        }
        tensors = [tensor for header in stored.headers.values() for tensor in header.tensors]
        left_out = {tensor.name: why for tensor in tensors if (why := _why_not(tensor))}
        stacks = {tensor.name for tensor in tensors if _is_stack(tensor)}
        present = [tensor for tensor in tensors if tensor.name in stored.table and tensor.name not in left_out]
        by_reason: dict[str, list[str]] = {}
        for name, why in left_out.items():
            by_reason.setdefault(why, []).append(name)
        whole = [tensor for tensor in present if tensor.name not in stacks]
        experts = [
            _expert(tensor, stored.table[tensor.name], expert)
            for tensor in present
            if tensor.name in stacks
            for expert in range(tensor.shape[0])
        ]
        decoded = [_Decoded(tensor, stored.table[tensor.name]) for tensor in whole if tensor.kind not in PLAIN]
        super().__init__(
            stored,
            recipes=[*decoded, *experts],
            kept=[tensor.name for tensor in whole if tensor.kind in PLAIN],
            skips=tuple(Skip(what=name_some(names), why=why) for why, names in by_reason.items()),
        )


def open_gguf(ref: RepoRef, layout: Layout, hub: Hub | None) -> WeightSource:
    """Read the headers of the chosen GGUF files.

    Args:
        ref: a folder, or a repository at a commit.
        layout: which of its files to read.
        hub: the reader; needed for repositories.

    Raises:
        CorruptWeights: a header lies.
        CouldNotConclude: a file cannot be read.
    """
    if ref.path is not None or hub is None:
        return GgufSource(LocalGgufBytes(ref, layout))
    return GgufSource(RemoteGgufBytes(ref, layout, hub))


def expert_name(stack: str, expert: int) -> str:
    """What one expert of a stack is called."""
    return f"{stack}[{expert}]"


def _is_stack(tensor: GgufTensor) -> bool:
    return len(tensor.shape) == 3 and "_exps." in tensor.name and 0 < tensor.shape[0] <= MAX_EXPERTS


def _expert(tensor: GgufTensor, stored: TensorMeta, expert: int) -> "Part | _DecodedExpert":
    name = expert_name(tensor.name, expert)
    if tensor.kind in PLAIN:
        return Part(stored, name, tensor.shape[1:], Place(rows=tensor.shape[1], expert=expert))
    return _DecodedExpert(tensor, stored, name, expert)


def _why_not(tensor: GgufTensor) -> str | None:
    if tensor.kind in PLAIN:
        return None
    if not can_decode(tensor.kind):
        return f"ggml storage {tensor.kind} cannot be decoded by the gguf package"
    if tensor.shape[-1] > MAX_ROW_ELEMENTS:
        return f"a row of more than {MAX_ROW_ELEMENTS:,} elements is not decoded"
    return None


def _stored(header: GgufHeader, file: str) -> Header:
    """The header as a table of bytes."""
    return Header(
        tensors=tuple(
            TensorMeta(
                name=tensor.name,
                dtype=PLAIN.get(tensor.kind, "U8"),
                shape=(*tensor.shape[:-1], _row_bytes(tensor)) if tensor.kind not in PLAIN else tensor.shape,
                file=file,
                start=tensor.start,
                end=tensor.end,
            )
            for tensor in header.tensors
        ),
        unread=header.unread,
        skips=header.skips,
        data_start=header.data_start,
    )


def _row_bytes(tensor: GgufTensor) -> int:
    block, size = _BLOCK_OF[tensor.kind]
    return tensor.shape[-1] // block * size


class _Decoded:
    """The recipe of a tensor in codes: its own rows, decoded."""

    whole: tuple[BlockRequest, ...] = ()

    def __init__(self, tensor: GgufTensor, stored: TensorMeta) -> None:
        self._kind = tensor.kind
        self._row_bytes = _row_bytes(tensor)
        self.meta = TensorMeta(
            name=tensor.name,
            dtype="F32",
            shape=tensor.shape,
            file=stored.file,
            start=stored.start,
            end=stored.end,
            scheme=f"GGUF {tensor.kind}",
        )

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The same rows."""
        return (BlockRequest(name=self.meta.name, rows=rows),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Decode them."""
        del whole
        # A row of a tensor with more than two axes is several of ggml's.
        raw = parts[0].values.reshape(-1, self._row_bytes)
        shape = rows[1] - rows[0], self.meta.rows_cols[1]
        return decode_rows(raw, self._kind).reshape(shape), coding_of(raw, self._kind, shape)


class _DecodedExpert:
    """The recipe of one expert of a stack in codes."""

    whole: tuple[BlockRequest, ...] = ()

    def __init__(self, tensor: GgufTensor, stored: TensorMeta, name: str, expert: int) -> None:
        self._kind = tensor.kind
        self._row_bytes = _row_bytes(tensor)
        self._stack = tensor.name
        self._expert = expert
        size = (stored.end - stored.start) // tensor.shape[0]
        self.meta = TensorMeta(
            name=name,
            dtype="F32",
            shape=tensor.shape[1:],
            file=stored.file,
            start=stored.start + expert * size,
            end=stored.start + (expert + 1) * size,
            scheme=f"GGUF {tensor.kind}",
        )

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The codes of these rows: a run of the expert's bytes, which are one row of the stack."""
        run = rows[0] * self._row_bytes, rows[1] * self._row_bytes
        return (BlockRequest(name=self._stack, rows=(self._expert, self._expert + 1), columns=run),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Decode them."""
        del whole
        raw = parts[0].values.reshape(-1, self._row_bytes)
        shape = rows[1] - rows[0], self.meta.shape[1]
        return decode_rows(raw, self._kind).reshape(shape), coding_of(raw, self._kind, shape)
