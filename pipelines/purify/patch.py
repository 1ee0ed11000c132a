"""The reversible patch: what the changed dimensions of a checkpoint held before, and the hashes of every file.

One safetensors file. For each changed panel (a run of rows of one tensor) it holds ``<n>.before``, the old values in
the stored dtype, and where they belong in one of three forms, whichever is smallest:

``dimensions``  ``<n>.at`` int64 ``[k]``, places within the panel in row-major order, and values ``[k]``
``rows``        ``<n>.at`` int64 ``[k]``, row numbers in the tensor, and values ``[k, cols]``
``whole``       no ``<n>.at``, and values ``[rows, cols]``

The metadata holds ``hubaudit`` (``patch/v1``), ``entries`` and ``files`` as JSON texts.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from pipelines.purify.rewriting import PIECE_BYTES, Hashes
from scanner.errors import CouldNotConclude
from scanner.paths import is_plain_path, shown
from scanner.records import Rows, TensorMeta
from scanner.weights.dtypes import storage_dtype
from scanner.weights.layout import PURIFICATION_PATCH

PATCH_FILE: Final = PURIFICATION_PATCH
FORMAT: Final = "patch/v1"
MAX_HEADER_BYTES: Final = 256 << 20
_INDEX_BYTES: Final = 8

Form = Literal["dimensions", "rows", "whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One changed panel: ``start`` and ``end`` are its bytes in ``file`` (half-open), ``rows`` its rows."""

    number: int
    file: str
    tensor: str
    dtype: str
    rows: Rows
    columns: int
    start: int
    end: int
    form: Form
    changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch that was read: its entries by file, in file order, and the hashes of every file of the model.

    ``left_out`` are files of the original that were not taken along, with their hashes.
    """

    entries: Mapping[str, tuple[Entry, ...]]
    files: Mapping[str, Hashes]
    left_out: Mapping[str, str]
    arrays: "Mapping[str, tuple[str, int, int]]"
    """Name in the patch → dtype, first byte, end."""


class PatchWriter:
    """Collects panels as they change and writes the patch at the end; values wait in a spool file, not in memory."""

    def __init__(self, spool: BinaryIO) -> None:
        """Prepare.

        Args:
            spool: a writable, readable, empty file.
        """
        self._spool = spool
        self._arrays: list[tuple[str, str, tuple[int, ...], int]] = []
        self.entries: list[Entry] = []

    def add(self, meta: TensorMeta, rows: Rows, start: int, before: bytearray, after: Any) -> int:
        """Note what changed in a panel and return the number of changed dimensions, bit for bit.

        Args:
            meta: the tensor.
            rows: the panel's rows, half-open.
            start: the panel's first byte in the file.
            before: its old bytes.
            after: its new bytes.
        """
        columns = meta.rows_cols[1]
        item = storage_dtype(meta.dtype).itemsize
        old = np.frombuffer(before, np.dtype(f"u{item}")).reshape(rows[1] - rows[0], columns)
        new = np.frombuffer(after, np.dtype(f"u{item}")).reshape(old.shape)
        differs = old != new
        changed = int(differs.sum())
        if not changed:
            return 0
        form, at, values = _smallest(old, differs, changed, rows[0], item)
        number = len(self.entries)
        if at is not None:
            self._put(f"{number}.at", "I64", at.shape, at.astype("<i8").tobytes())
        self._put(f"{number}.before", meta.dtype, values.shape, values.tobytes())
        self.entries.append(
            Entry(
                number=number,
                file=meta.file,
                tensor=meta.name,
                dtype=meta.dtype,
                rows=rows,
                columns=columns,
                start=start,
                end=start + len(before),
                form=form,
                changed=changed,
            )
        )
        return changed

    def finish(self, target: Path, files: Mapping[str, Hashes], left_out: Mapping[str, str]) -> None:
        """Write the patch."""
        header: dict[str, Any] = {
            "__metadata__": {
                "hubaudit": FORMAT,
                "entries": json.dumps([asdict(entry) for entry in self.entries]),
                "files": json.dumps({path: asdict(hashes) for path, hashes in files.items()}),
                "left_out": json.dumps(dict(left_out)),
            }
        }
        offset = 0
        for name, dtype, shape, size in self._arrays:
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        self._spool.seek(0)
        with target.open("xb") as writer:
            writer.write(struct.pack("<Q", len(raw)) + raw)
            while piece := self._spool.read(PIECE_BYTES):
                writer.write(piece)

    def _put(self, name: str, dtype: str, shape: tuple[int, ...], raw: bytes) -> None:
        self._spool.write(raw)
        self._arrays.append((name, dtype, shape, len(raw)))


def _smallest(
    old: npt.NDArray[Any], differs: npt.NDArray[np.bool_], changed: int, first_row: int, item: int
) -> tuple[Form, npt.NDArray[np.int64] | None, npt.NDArray[Any]]:
    """The form that takes the fewest bytes: its places (None for the whole panel) and the old values."""
    height, columns = old.shape
    touched = np.flatnonzero(differs.any(axis=1))
    sizes: dict[Form, int] = {
        "dimensions": changed * (_INDEX_BYTES + item),
        "rows": len(touched) * (_INDEX_BYTES + columns * item),
        "whole": height * columns * item,
    }
    match min(sizes, key=lambda form: sizes[form]):
        case "dimensions":
            places = np.flatnonzero(differs)
            return "dimensions", places.astype(np.int64), old.reshape(-1)[places]
        case "rows":
            return "rows", (touched + first_row).astype(np.int64), old[touched]
        case _:
            return "whole", None, old


def read_patch(path: Path) -> Patch:
    """Read the header of a patch and check it: it comes with a folder that somebody else may have made.

    Raises:
        CouldNotConclude: it is none, or contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError("a header longer than the file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__")
        if metadata["hubaudit"] != FORMAT:
            raise ValueError("another version")
        entries = TypeAdapter(tuple[Entry, ...]).validate_json(metadata["entries"])
        files = TypeAdapter(dict[str, Hashes]).validate_json(metadata["files"])
        left_out = TypeAdapter(dict[str, str]).validate_json(metadata["left_out"])
        arrays = {name: _array(described, 8 + length, size) for name, described in header.items()}
    except OSError as error:
        raise CouldNotConclude(f"{PATCH_FILE} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError, ValidationError) as error:
        raise CouldNotConclude(
            f"{shown(str(path))} is no patch that this version can read; take the folder that `hubaudit purify` wrote."
        ) from error
    by_file: dict[str, list[Entry]] = {}
    for entry in entries:
        _check_entry(entry, files, arrays)
        by_file.setdefault(entry.file, []).append(entry)
    ordered = {file: tuple(sorted(found, key=lambda entry: entry.start)) for file, found in by_file.items()}
    for found in ordered.values():
        if any(one.end > other.start for one, other in pairwise(found)):
            raise CouldNotConclude("The patch changes the same bytes twice; it is damaged.")
    for name in (*files, *left_out):
        if not is_plain_path(name):
            raise CouldNotConclude(f"The patch names the file {shown(name)}, which is not a plain relative path.")
    return Patch(entries=ordered, files=files, left_out=left_out, arrays=arrays)


def _array(described: Any, data_start: int, size: int) -> tuple[str, int, int]:
    start, end = described["data_offsets"]
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= size - data_start:
        raise ValueError("offsets outside of the file")
    return str(described["dtype"]), data_start + start, data_start + end


def _check_entry(entry: Entry, files: Mapping[str, Hashes], arrays: Mapping[str, tuple[str, int, int]]) -> None:
    """Hold an entry against the arrays that it needs.

    Raises:
        CouldNotConclude: they contradict each other.
    """
    try:
        item = storage_dtype(entry.dtype).itemsize
        _, start, end = arrays[f"{entry.number}.before"]
        values = (end - start) // item
        elements = (entry.rows[1] - entry.rows[0]) * entry.columns
        units = {"dimensions": values, "rows": values // max(1, entry.columns), "whole": 0}[entry.form]
        fits = entry.file in files and elements * item == entry.end - entry.start and entry.start >= 0
        fits = fits and values * item == end - start and (entry.form != "whole" or values == elements)
        fits = fits and (entry.form != "rows" or units * entry.columns == values)
        if entry.form != "whole":
            dtype, first, last = arrays[f"{entry.number}.at"]
            fits = fits and dtype == "I64" and last - first == units * _INDEX_BYTES
    except KeyError:
        fits = False
    if not fits:
        raise CouldNotConclude(f"The patch contradicts itself about {shown(entry.tensor)}; it is damaged.")


def undo(file: BinaryIO, patch: Patch, entry: Entry, now: bytearray) -> bytearray:
    """Put the old values of one panel back into its present bytes.

    Args:
        file: the patch, open.
        patch: its header.
        entry: the panel.
        now: the panel's bytes; changed in place and returned.

    Raises:
        CouldNotConclude: a place lies outside of the panel.
    """
    item = storage_dtype(entry.dtype).itemsize
    unit = np.dtype(f"u{item}")
    before = np.frombuffer(_read(file, patch.arrays[f"{entry.number}.before"]), unit)
    panel = np.frombuffer(now, unit)
    if entry.form == "whole":
        panel[:] = before
        return now
    at = np.frombuffer(_read(file, patch.arrays[f"{entry.number}.at"]), "<i8")
    low, high = (0, len(panel)) if entry.form == "dimensions" else entry.rows
    if len(at) and not (low <= int(at.min()) and int(at.max()) < high):
        raise CouldNotConclude(f"The patch names places outside of {shown(entry.tensor)}; it is damaged.")
    if entry.form == "dimensions":
        panel[at] = before
    else:
        panel.reshape(-1, entry.columns)[at - entry.rows[0]] = before.reshape(-1, entry.columns)
    return now


def _read(file: BinaryIO, array: tuple[str, int, int]) -> bytes:
    _, start, end = array
    file.seek(start)
    return file.read(end - start)


def changed_by_tensor(entries: Iterator[Entry] | list[Entry]) -> dict[str, int]:
    """Tensor → number of changed dimensions."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.tensor] = counts.get(entry.tensor, 0) + entry.changed
    return counts
