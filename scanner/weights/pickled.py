"""The table of a PyTorch checkpoint (``.bin``, ``.pt``, ``.pth``) without running anything that it contains.

Since PyTorch 1.6 such a file is a zip archive: a pickled description (``data.pkl``) and one uncompressed member per
storage. Only the description is unpickled, by ``torch.load(weights_only=True)`` out of a hollow copy of the archive,
whose storages are one byte each, onto the meta device: nothing is allocated, and nothing but the tensors' places
comes back. The bytes themselves are then read by ranges, as those of a safetensors file are. Whatever asks for
imports beyond torch's own list is refused. See docs/decisions/0005.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from scanner.errors import CorruptWeights, CouldNotConclude, HubAuditError, UnsafeWeights
from scanner.paths import shown
from scanner.records import Skip, TensorMeta
from scanner.weights.header import MAX_AXES, MAX_NAME_CHARS, MAX_TENSORS, Header
from scanner.weights.strict_json import name_some
from scanner.window import Read, Window

MAX_DESCRIPTION_BYTES: Final = 64 << 20
"""Largest ``data.pkl``; the largest public shards have some 100 KB."""
MAX_DIRECTORY_BYTES: Final = 64 << 20
"""Most that is read of the archive's table of contents."""
_LOCAL_HEADER_BYTES: Final = 30
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_PICKLE_MAGIC: Final = b"\x80"
_POINTER_PREFIX: Final = b"version "  # the first line of a Git LFS pointer file
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training loops put the weights in a larger checkpoint."""
_DTYPES: Final[Mapping[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.complex64: "C64",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """Where a storage's bytes lie in the file (half-open)."""

    start: int
    end: int


def read_pickled_header(read: Read, file: str, file_size: int) -> Header:
    """Find the tensors of a PyTorch checkpoint.

    Args:
        read: reads ranges of the file.
        file: path in the repository, for the tensors and for messages.
        file_size: bytes of the whole file.

    Raises:
        UnsafeWeights: the description asks for imports that only running code could serve.
        CorruptWeights: the archive contradicts itself.
        CouldNotConclude: an older format, or the other byte order.
    """
    _check_form(read, file, file_size)
    try:
        archive = zipfile.ZipFile(Window(read, file_size, limit_bytes=MAX_DIRECTORY_BYTES))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeError) as error:
        raise _broken(file, "has no readable table of contents; it is cut short or damaged") from error
    members = _members(archive, file)
    places = _places(members, read, file, file_size)
    small = {name: place for name, place in places.items() if name in ("data.pkl", "byteorder")}
    raw = dict(zip(small, read([(place.start, place.end) for place in small.values()]), strict=True))
    if raw.get("byteorder", b"little") != b"little":
        raise CouldNotConclude(
            f"The weights file {shown(file)} is stored in big-endian order, which is not read yet; save it again on a "
            "little-endian computer."
        )
    storages = {name.removeprefix("data/"): place for name, place in places.items() if name.startswith("data/")}
    return _header(*_load(raw["data.pkl"], storages, file), file)


def _broken(file: str, why: str) -> CorruptWeights:
    return CorruptWeights(f"The weights file {shown(file)} {why}; download or publish it again.")


def _check_form(read: Read, file: str, file_size: int) -> None:
    """Tell the archives from what else bears such names.

    Raises:
        CorruptWeights, CouldNotConclude: it is no archive.
    """
    (first,) = read([(0, min(8, file_size))])
    if first.startswith(_POINTER_PREFIX):
        raise CorruptWeights(
            f"The weights file {shown(file)} is a Git LFS pointer and not the weights; fetch them with `git lfs pull`."
        )
    if first.startswith(_PICKLE_MAGIC):
        raise CouldNotConclude(
            f"The weights file {shown(file)} is a plain pickle, the format before PyTorch 1.6, which is not read; save "
            "it again as safetensors on a computer where you trust it."
        )
    if not first.startswith(_LOCAL_MAGIC):
        raise _broken(file, "is no PyTorch archive")


def _members(archive: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """The members without the folder that they all lie in.

    Raises:
        CorruptWeights: too many, twice the same, compressed, or several folders: loaders may disagree on such files.
    """
    infos = archive.infolist()
    if len(infos) > MAX_TENSORS:
        raise _broken(file, f"has more than {MAX_TENSORS:,} members")
    folders = {info.filename.partition("/")[0] for info in infos}
    members = {info.filename.partition("/")[2]: info for info in infos}
    if len(folders) != 1 or len(members) != len(infos) or "data.pkl" not in members:
        raise _broken(file, "is an archive, but not one as PyTorch writes it")
    if min(info.header_offset for info in infos) != 0 or archive.comment:
        raise _broken(file, "has something before or behind its archive, so that loaders may see different contents")
    for name, info in members.items():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise _broken(file, f"holds the compressed member {shown(name)}, which PyTorch never writes")
    if members["data.pkl"].file_size > MAX_DESCRIPTION_BYTES:
        raise _broken(file, f"has a description of more than {MAX_DESCRIPTION_BYTES:,} bytes")
    return members


def _places(members: Mapping[str, zipfile.ZipInfo], read: Read, file: str, file_size: int) -> dict[str, _Storage]:
    """Where the bytes of the members that matter begin: behind local headers of varying length.

    Raises:
        CorruptWeights: a header is not where the table of contents puts it, or a member passes the end.
    """
    wanted = [name for name in members if name in ("data.pkl", "byteorder") or name.startswith("data/")]
    spans = [(members[name].header_offset, members[name].header_offset + _LOCAL_HEADER_BYTES) for name in wanted]
    if any(end > file_size for _, end in spans):
        raise _broken(file, "is cut short")
    places = {}
    for name, (start, _), head in zip(wanted, spans, read(spans), strict=True):
        length = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        first = start + _LOCAL_HEADER_BYTES + length
        if not head.startswith(_LOCAL_MAGIC) or first + members[name].file_size > file_size:
            raise _broken(file, f"does not hold {shown(name)} where its table of contents says")
        places[name] = _Storage(first, first + members[name].file_size)
    return places


def _load(
    description: bytes, storages: Mapping[str, _Storage], file: str
) -> tuple[dict[str, Any], dict[int, _Storage]]:
    """Unpickle the description with torch's restricted unpickler.

    Returns:
        What it holds by name, and the storage behind each offset of the hollow archive.
    """
    hollow = _hollow(description, storages)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(hollow))
    except Exception as error:  # a stranger's pickle may break the reader in any way
        raise _broken(file, "has a description that cannot be followed") from error
    if foreign:
        raise UnsafeWeights(
            f"The weights file {shown(file)} can only be opened by running code: it imports "
            f"{name_some(sorted(foreign))}; ask its author for safetensors."
        )
    try:
        loaded = torch.load(io.BytesIO(hollow), map_location="meta", weights_only=True)  # noqa: TID251  # the one place
        reader: Any = torch._C.PyTorchFileReader(io.BytesIO(hollow))  # noqa: SLF001  # nothing else tells offsets
        by_offset = {reader.get_record_offset(f"data/{key}"): place for key, place in storages.items()}
    except HubAuditError:
        raise
    except Exception as error:
        raise _broken(file, "has a description that PyTorch refuses to load as weights alone") from error
    return _weights_in(loaded, file), by_offset


def _hollow(description: bytes, storages: Mapping[str, _Storage]) -> bytes:
    """The same archive with one byte in place of each storage."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as copy:
        copy.writestr("archive/data.pkl", description)
        copy.writestr("archive/version", b"3\n")
        for key in storages:
            copy.writestr(f"archive/data/{key}", b"\0")
    return buffer.getvalue()


def _weights_in(loaded: object, file: str) -> dict[str, Any]:
    """The tensors by name, from a plain state dict or one level below a usual key."""
    for _ in range(2):
        if isinstance(loaded, Mapping) and any(isinstance(value, torch.Tensor) for value in loaded.values()):
            return {name: value for name, value in loaded.items() if isinstance(name, str)}
        inner = [loaded[key] for key in _WRAPPERS if key in loaded] if isinstance(loaded, Mapping) else []
        loaded = inner[0] if inner else None
    raise CouldNotConclude(
        f"The weights file {shown(file)} holds no named tensors that are recognised; save the state dict alone."
    )


def _header(found: Mapping[str, Any], by_offset: Mapping[int, _Storage], file: str) -> Header:
    tensors, refused = [], dict[str, list[str]]()
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            continue
        place = _place(name, value, by_offset, file)
        if isinstance(place, str):
            refused.setdefault(place, []).append(name)
        else:
            tensors.append(place)
    tensors.sort(key=lambda meta: (meta.start, meta.end))
    skips = tuple(
        Skip(what=f"{name_some(names)} in {shown(file)}", why=why, unread=True) for why, names in refused.items()
    )
    unread = tuple(name for names in refused.values() for name in names)
    return Header(tensors=tuple(tensors), unread=unread, skips=skips, data_start=0)


def _place(name: str, tensor: torch.Tensor, by_offset: Mapping[int, _Storage], file: str) -> TensorMeta | str:
    """The tensor with its bytes, or why it is not read.

    Raises:
        CorruptWeights: it passes the end of its storage.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "sparse or quantised by PyTorch, which is not read yet"
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        return f"dtype {shown(str(tensor.dtype))} is not understood"
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return "not stored row by row, which is not read yet"
    if len(name) > MAX_NAME_CHARS or tensor.dim() > MAX_AXES:
        return "a name or a shape longer than any real model has"
    storage = by_offset.get(getattr(tensor.untyped_storage(), "_checkpoint_offset", -1))
    shape = tuple(int(axis) for axis in tensor.shape)
    if storage is None:
        return "holds no values of its own in the file"
    start = storage.start + int(tensor.storage_offset()) * tensor.element_size()
    end = start + tensor.numel() * tensor.element_size()
    if tensor.storage_offset() < 0 or end > storage.end:
        raise _broken(file, f"gives the tensor {shown(name)} more values than its storage holds")
    return TensorMeta(name=name, dtype=dtype, shape=shape, file=file, start=start, end=end)
