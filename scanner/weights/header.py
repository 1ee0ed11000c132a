"""Read the header of a safetensors file as a stranger's word: nothing in it is believed before it adds up.

A file is eight bytes (the header's length, little endian), the header (UTF-8 JSON), and the tensors without gaps.
What this parser accepts the official one accepts as well, with the same table; it is stricter on duplicate keys,
lengths of names and sizes. Tensor names are kept verbatim, control characters included.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Never

from scanner.errors import CorruptWeights
from scanner.paths import shown
from scanner.records import Skip, TensorMeta
from scanner.weights.dtypes import ELEMENT_TYPES, is_readable
from scanner.weights.strict_json import JsonError, JsonLimits, check_text, load_object, name_some

LENGTH_BYTES: Final = 8
FIRST_READ_BYTES: Final = 64 << 10
"""How much to ask for before the length is known: covers some 600 tensors, and costs less than a round trip."""

MAX_HEADER_BYTES: Final = 100_000_000
"""The format's own limit (safetensors 0.8, MAX_HEADER_SIZE)."""
MAX_TENSORS: Final = 400_000
"""Four times the largest public checkpoint (about 92,000 tensors in 163 files), here in one file."""
MAX_NAME_CHARS: Final = 1_024
MAX_AXES: Final = 64
"""What torch allows."""
MAX_EMPTY_EXTENT: Final = 1 << 20
"""Largest product of the other axes of a tensor without elements; such a shape is backed by no bytes."""

_LIMITS: Final = JsonLimits(objects=MAX_TENSORS, lists=2 * MAX_TENSORS, commas=5_000_000)
_NAMED_DTYPES: Final = 10
_REMAINING_DTYPES: Final = "(many more)"
_POINTER_PREFIX: Final = b"version "  # the first line of a Git LFS pointer file


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one file holds.

    ``tensors`` are the readable ones by rising offset. ``skips`` name those whose dtype is unknown or shares bytes
    between elements, and ``unread`` are their names. ``data_start`` is the offset of the first tensor byte.
    """

    tensors: tuple[TensorMeta, ...]
    unread: tuple[str, ...]
    skips: tuple[Skip, ...]
    data_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One tensor as declared; offsets in bytes, counted from the first tensor byte of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_bytes(prefix: bytes, file: str, file_size: int) -> int:
    """Length of the header in bytes, without the eight bytes that state it.

    Args:
        prefix: the first bytes of the file, at least eight if the file has them.
        file: path in the repository, for messages.
        file_size: bytes of the whole file.

    Raises:
        CorruptWeights: the file is too short, or the length is over 100 MB or past the end of the file.
    """
    if prefix.startswith(_POINTER_PREFIX):
        _corrupt(file, "is a Git LFS pointer and not the weights", advice="fetch them with `git lfs pull`")
    if file_size < LENGTH_BYTES or len(prefix) < LENGTH_BYTES:
        _corrupt(file, f"has {file_size} bytes, too few for a header")
    (length,) = struct.unpack_from("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        _corrupt(file, f"declares a header of {length:,} bytes, over the format's limit of {MAX_HEADER_BYTES:,}")
    if length > file_size - LENGTH_BYTES:
        _corrupt(
            file,
            f"declares a header of {length:,} bytes but has only {file_size:,}: it is cut short or no safetensors file",
        )
    return int(length)


def parse_header(raw: bytes, file: str, file_size: int) -> Header:
    """Parse and check the header of one file.

    Args:
        raw: the header's JSON bytes, without the eight bytes before it.
        file: path in the repository; goes into the tensors' ``file`` and into messages.
        file_size: bytes of the whole file.

    Raises:
        CorruptWeights: not UTF-8 or JSON, duplicate keys, sizes that do not match shapes, offsets that are reversed,
            overlap, leave holes or pass the end, or more of anything than a real file has.
    """
    data_start = LENGTH_BYTES + len(raw)
    try:
        declared = load_object(raw, _LIMITS, sizes_only=True)
        _check_metadata(declared.pop("__metadata__", None))
        entries = sorted(
            (_read_entry(name, value, file_size) for name, value in declared.items()),
            key=lambda entry: (entry.start, entry.end),
        )
        _check_coverage(entries, file_size - data_start)
    except JsonError as lie:
        _corrupt(file, str(lie), cause=lie)
    tensors = tuple(
        TensorMeta(
            name=entry.name,
            dtype=entry.dtype,
            shape=entry.shape,
            file=file,
            start=data_start + entry.start,
            end=data_start + entry.end,
        )
        for entry in entries
        if is_readable(entry.dtype)
    )
    unread = tuple(entry.name for entry in entries if not is_readable(entry.dtype))
    return Header(tensors=tensors, unread=unread, skips=_skips(entries, file), data_start=data_start)


def _corrupt(
    file: str, why: str, *, advice: str = "download or publish it again", cause: Exception | None = None
) -> Never:
    raise CorruptWeights(f"The weights file {shown(file)} {why}; {advice}.") from cause


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise JsonError("has a __metadata__ entry that is not a map of texts")
    for text in (*metadata.keys(), *metadata.values()):
        check_text(text)


def _read_entry(name: str, declared: object, file_size: int) -> _Entry:
    check_text(name)
    if len(name) > MAX_NAME_CHARS:
        raise JsonError(f"names a tensor with {len(name):,} characters; at most {MAX_NAME_CHARS:,} are read")
    if not isinstance(declared, dict):
        raise JsonError(f"does not describe the tensor {shown(name)}")
    dtype = declared.get("dtype")
    if not isinstance(dtype, str):
        raise JsonError(f"gives the tensor {shown(name)} no dtype")
    check_text(dtype)
    shape = _integers(declared.get("shape"))
    offsets = _integers(declared.get("data_offsets"))
    if shape is None or len(shape) > MAX_AXES:
        raise JsonError(f"gives the tensor {shown(name)} no usable shape")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise JsonError(f"gives the tensor {shown(name)} offsets that are not a start and an end")
    entry = _Entry(name=name, dtype=dtype, shape=shape, start=offsets[0], end=offsets[1])
    _check_size(entry, file_size)
    return entry


def _integers(value: object) -> tuple[int, ...] | None:
    """The list as integers, or None; true and false are not integers here."""
    if isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    return None


def _check_size(entry: _Entry, file_size: int) -> None:
    """Hold the shape against the bytes.

    The shape of an unknown dtype is only bounded, since its width is unknown; its offsets are checked as all others.
    """
    limit = max(file_size * 8, MAX_EMPTY_EXTENT)  # elements of one bit each: more than any dtype packs
    extent = 1
    for axis in entry.shape:
        extent *= max(axis, 1)
        if extent > limit:
            raise JsonError(f"gives the tensor {shown(entry.name)} a shape larger than the file")
    if entry.dtype not in ELEMENT_TYPES:
        return
    count = 0 if 0 in entry.shape else extent
    declared_bytes = entry.end - entry.start
    if count * ELEMENT_TYPES[entry.dtype].bits != declared_bytes * 8:
        raise JsonError(
            f"gives the tensor {shown(entry.name)} {declared_bytes:,} bytes, which its dtype and shape contradict"
        )


def _check_coverage(entries: Iterable[_Entry], data_bytes: int) -> None:
    """Tensors follow one another from the first byte to the last: no overlap, no hole, nothing behind them."""
    position = 0
    for entry in entries:
        if entry.start < position:
            raise JsonError(f"lets the tensor {shown(entry.name)} overlap another one")
        if entry.start > position:
            raise JsonError(f"has {entry.start - position:,} bytes before the tensor {shown(entry.name)} in no tensor")
        position = entry.end
        if position > data_bytes:
            raise JsonError(
                f"is cut short: the tensor {shown(entry.name)} ends {position - data_bytes:,} bytes past the end of "
                "the file"
            )
    if position != data_bytes:
        raise JsonError(f"has {data_bytes - position:,} bytes at its end that belong to no tensor")


def _skips(entries: Iterable[_Entry], file: str) -> tuple[Skip, ...]:
    """One skip per dtype that is not read, however many tensors have it; strange dtypes beyond a few in one."""
    by_dtype: dict[str, list[str]] = {}
    for entry in entries:
        if not is_readable(entry.dtype):
            known = entry.dtype in by_dtype or len(by_dtype) < _NAMED_DTYPES
            by_dtype.setdefault(entry.dtype if known else _REMAINING_DTYPES, []).append(entry.name)
    return tuple(
        Skip(
            what=f"{name_some(names)} in {shown(file)}",
            why=f"dtype {shown(dtype)} packs several values into a byte, which is not read yet"
            if dtype in ELEMENT_TYPES
            else f"dtype {shown(dtype)} is not understood",
            unread=True,
        )
        for dtype, names in by_dtype.items()
    )
