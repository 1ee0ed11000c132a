"""Read the header of a GGUF file as a stranger's word: nothing in it is believed before it adds up.

A file is a magic, a version, two counts, that many key-value pairs (the vocabulary among them, which makes headers of
several megabytes), that many tensor descriptions, padding, and the tensors, each padded to the alignment (the format's
description in ggml, ``docs/gguf.md``). Everything is little endian; versions 2 and 3 differ in nothing else.
Only a few facts are kept of the pairs; the rest is stepped over without being built.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Never

from scanner.errors import CorruptWeights
from scanner.paths import shown
from scanner.records import Skip
from scanner.weights.ggml import SIZES
from scanner.weights.header import MAX_NAME_CHARS, MAX_TENSORS
from scanner.weights.strict_json import name_some

MAGIC: Final = b"GGUF"
FIRST_READ_BYTES: Final = 1 << 20
GROWTH: Final = 4
"""How much more is read each time the header turns out to be longer."""
MAX_HEADER_BYTES: Final = 256 << 20
"""Ten times the header of the largest public vocabularies."""
MAX_PAIRS: Final = 65_536
MAX_KEY_CHARS: Final = 65_535
"""The format's own limit."""
MAX_FACT_CHARS: Final = 256
KEPT_WHOLE: Final = "tokenizer.chat_template"
"""Beginning of the keys whose texts are kept whole, up to ``MAX_TEXT_BYTES``."""
MAX_TEXT_BYTES: Final = 256 << 10
MAX_TEXTS: Final = 16
MAX_AXES: Final = 4
"""What ggml allows."""
MAX_ALIGNMENT: Final = 1 << 20
DEFAULT_ALIGNMENT: Final = 32
VERSIONS: Final = (2, 3)

_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Value types of fixed size by their number in the file."""
_TEXT: Final = 8
_LIST: Final = 9
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")

Fact = int | float | str | bool

ReadRange = Callable[[int, int], bytes]
"""Start and end (excluded) of bytes of the file → these bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One tensor as declared.

    ``kind`` is ggml's name of the storage ("Q4_K"), ``shape`` has the rows first (ggml writes it the other way round),
    ``start`` and ``end`` count from the beginning of the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What one file holds: its tensors in file order, and the single values among its key-value pairs.

    Lists (the vocabulary and the like) are not kept. ``texts`` are the chat templates by key, whole. ``unread`` names
    tensors of a kind that is not known.
    """

    facts: Mapping[str, Fact]
    tensors: tuple[GgufTensor, ...]
    unread: tuple[str, ...]
    skips: tuple[Skip, ...]
    data_start: int
    texts: Mapping[str, str] = field(default_factory=dict)


def read_gguf_header(read: ReadRange, file: str, file_size: int) -> GgufHeader:
    """Read and check the header of one file, asking for more of it until it is complete.

    Args:
        read: reads the file.
        file: path in the repository, for messages.
        file_size: bytes of the whole file.

    Raises:
        CorruptWeights: no GGUF file, an unknown version, counts and lengths that the file cannot hold, tensors that
            overlap, leave holes, pass the end or leave a rest behind them, or more of anything than a real file has.
        CouldNotConclude: the file cannot be read.
    """
    raw = b""
    wanted = FIRST_READ_BYTES
    while True:
        end = min(wanted, file_size, MAX_HEADER_BYTES)
        raw += read(len(raw), end)
        try:
            return _Parser(raw, file, file_size).header()
        except _Short:
            if end == file_size:
                _corrupt(file, "is cut short: it ends within its header")
            if end == MAX_HEADER_BYTES:
                _corrupt(file, f"has a header of more than {MAX_HEADER_BYTES:,} bytes, which no real model has")
        wanted = end * GROWTH


class _Short(Exception):  # noqa: N818
    """The header goes on behind the bytes at hand."""


def _corrupt(file: str, why: str, advice: str = "download or publish it again") -> Never:
    raise CorruptWeights(f"The weights file {shown(file)} {why}; {advice}.")


@dataclass(slots=True)
class _Parser:
    """A cursor over the first bytes of a file."""

    raw: bytes
    file: str
    file_size: int
    at: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def header(self) -> GgufHeader:
        """Parse everything from the start."""
        if self._take(4) != MAGIC:
            _corrupt(self.file, "is no GGUF file")
        version = self._number(_U32)
        if version not in VERSIONS:
            turned = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            why = "is written for big-endian machines" if turned else f"has version {version} of the GGUF format"
            _corrupt(self.file, f"{why}, which is not read", "convert it again with a current converter")
        tensors, pairs = self._number(_U64), self._number(_U64)
        if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
            _corrupt(self.file, f"declares {tensors:,} tensors and {pairs:,} key-value pairs, which no real model has")
        seen: set[str] = set()
        for _ in range(pairs):
            key = self._text(MAX_KEY_CHARS, "a key")
            if key in seen:
                _corrupt(self.file, f"declares the key {shown(key)} twice")
            seen.add(key)
            self._value(key)
        declared = [self._tensor() for _ in range(tensors)]
        return self._placed(declared)

    def _placed(self, declared: list[tuple[str, tuple[int, ...], int, int]]) -> GgufHeader:
        """Hold the tensors' sizes and offsets against the file.

        As ggml does, each tensor has to begin where the one before it ends, rounded up to the alignment.
        """
        alignment = self._alignment()
        data_start = -(-self.at // alignment) * alignment
        found: list[GgufTensor] = []
        unread: dict[str, list[str]] = {}
        names: set[str] = set()
        position: int | None = 0
        for name, shape, kind, offset in declared:
            if name in names:
                _corrupt(self.file, f"describes the tensor {shown(name)} twice")
            names.add(name)
            # Behind a tensor of unknown size only the order can be checked.
            if (offset != position if position is not None else offset % alignment) or offset > self.file_size:
                _corrupt(self.file, f"places the tensor {shown(name)} over or apart from the one before it")
            known = SIZES.get(kind)
            if known is None:
                unread.setdefault(f"number {kind}", []).append(name)
                position = None
                continue
            label, block, block_bytes = known
            count = _count(shape)
            if shape[-1] % block:
                _corrupt(self.file, f"gives the tensor {shown(name)} rows that are no whole {label} blocks")
            size = count // block * block_bytes
            start, end = data_start + offset, data_start + offset + size
            if end > self.file_size:
                _corrupt(self.file, f"is cut short: the tensor {shown(name)} ends past the end of the file")
            found.append(GgufTensor(name=name, kind=label, shape=shape, start=start, end=end))
            position = -(-(offset + size) // alignment) * alignment
        rest = self.file_size - data_start - (position or 0)
        if position is not None and rest > 0:
            _corrupt(self.file, f"holds {rest:,} bytes behind the last tensor that it describes")
        return GgufHeader(
            facts=self.facts,
            tensors=tuple(found),
            unread=tuple(name for lost in unread.values() for name in lost),
            skips=tuple(
                Skip(what=f"{name_some(lost)} in {shown(self.file)}", why=f"ggml storage {kind} is not understood")
                for kind, lost in unread.items()
            ),
            data_start=data_start,
            texts=self.texts,
        )

    def _alignment(self) -> int:
        value = self.facts.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(value) is not int or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
            _corrupt(self.file, "declares an alignment that is no power of two")
        return value

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape with the rows first, storage number and offset."""
        name = self._text(MAX_NAME_CHARS, "a tensor")
        axes = self._number(_U32)
        if not 1 <= axes <= MAX_AXES:
            _corrupt(self.file, f"gives the tensor {shown(name)} {axes} axes")
        shape = tuple(self._number(_U64) for _ in range(axes))[::-1]
        # The smallest storage packs one element into an eighth of a byte.
        if any(axis == 0 for axis in shape) or _count(shape) > self.file_size * 8:
            _corrupt(self.file, f"gives the tensor {shown(name)} a shape larger than the file, or an empty one")
        return name, shape, self._number(_U32), self._number(_U64)

    def _value(self, key: str) -> None:
        """Keep a single value, step over a list."""
        kind = self._number(_U32)
        if kind in _SCALARS:
            self.facts[key] = self._scalar(kind)
        elif kind == _TEXT:
            start = self.at + _U64.size
            length = self._skip_text()
            self.facts[key] = self.raw[start : start + min(length, MAX_FACT_CHARS)].decode("utf-8", "replace")
            if key.startswith(KEPT_WHOLE) and len(self.texts) < MAX_TEXTS:
                self.texts[key] = self.raw[start : start + min(length, MAX_TEXT_BYTES)].decode("utf-8", "replace")
        elif kind == _LIST:
            self._skip_list(key)
        else:
            _corrupt(self.file, f"gives the key {shown(key)} a value of unknown type")

    def _skip_list(self, key: str) -> None:
        kind, count = self._number(_U32), self._number(_U64)
        if kind in _SCALARS:
            self._skip(count * _SCALARS[kind].size)
        elif kind == _TEXT:
            if count * _U64.size > self.file_size:
                _corrupt(self.file, f"gives the key {shown(key)} a list longer than the file")
            for _ in range(count):
                self._skip_text()
        else:
            _corrupt(self.file, f"gives the key {shown(key)} a list of unknown or nested type")

    def _skip_text(self) -> int:
        if len(self.raw) - self.at < _U64.size:
            raise _Short
        (length,) = _U64.unpack_from(self.raw, self.at)
        self.at += _U64.size
        self._skip(length)
        return int(length)

    def _text(self, limit: int, what: str) -> str:
        length = self._number(_U64)
        if length > limit:
            _corrupt(self.file, f"names {what} with {length:,} characters; at most {limit:,} are read")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            _corrupt(self.file, f"names {what} in bytes that are no text")

    def _scalar(self, kind: int) -> Fact:
        layout = _SCALARS[kind]
        value: Fact = layout.unpack(self._take(layout.size))[0]
        return value

    def _number(self, layout: struct.Struct) -> int:
        return int(layout.unpack(self._take(layout.size))[0])

    def _skip(self, count: int) -> None:
        if count > self.file_size - self.at:
            _corrupt(self.file, "declares a value that is longer than the file")
        if count > len(self.raw) - self.at:
            raise _Short
        self.at += count

    def _take(self, count: int) -> bytes:
        start = self.at
        self._skip(count)
        return self.raw[start : self.at]


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count
