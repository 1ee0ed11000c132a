"""What the pickles of a repository would import, found without unpickling any (``picklescan``).

A pickle is a program: opening it calls what it imports. Every pickle of a repository is looked at, also those that
are not the model: loaders and people open them all the same.
"""

import io
import logging
import pickletools
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from scanner.errors import HubAuditError
from scanner.folder import read_span
from scanner.hub import Hub
from scanner.records import FileEntry, PickleImports, RepoFacts, Skip
from scanner.window import Read, Window

SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
MAX_FILES: Final = 64
MAX_PICKLE_BYTES: Final = 4 << 20
"""Most that is looked at of one pickle; the descriptions of public checkpoints have up to 500 KB."""
MAX_DIRECTORY_BYTES: Final = 16 << 20
MAX_MEMBERS: Final = 64
MAX_OPCODES: Final = 1_000_000
MAX_WORK: Final = 50_000_000
"""Imports by name times marks: picklescan walks back over the marks for each import."""
MAX_IMPORTS: Final = 50
MAX_NAME_CHARS: Final = 200
_ARCHIVE: Final = b"PK\x03\x04"
_WEIGHTS: Final = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_meta_tensor_no_storage",
        "torch._utils._rebuild_nested_tensor",
        "torch._tensor._rebuild_from_type_v2",
    }
)
"""Names that picklescan does not list and torch's own loader of weights alone follows."""
_MARKS: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})

_log = logging.getLogger("picklescan")
_log.addHandler(logging.NullHandler())
_log.propagate = False  # it writes names from strangers to the terminal


class _Uninspectable(Exception):  # noqa: N818
    """Why a pickle was not looked at."""


def inspect_pickles(facts: RepoFacts, hub: Hub | None) -> tuple[tuple[PickleImports, ...], tuple[Skip, ...]]:
    """Look at every pickle in the listing.

    Args:
        facts: of the repository.
        hub: the reader; may be None for folders.

    Returns:
        One record for each file that imports anything beyond what weights need, in the order of the listing; and the
        files that could not be looked at. Never raises on what a repository holds.
    """
    found, skips = [], []
    entries = [entry for entry in facts.files if entry.path.lower().endswith(SUFFIXES)]
    for entry in entries[:MAX_FILES]:
        try:
            imports = _inspect(_reader(facts, entry, hub), entry)
        except (HubAuditError, _Uninspectable) as error:
            skips.append(Skip(what=entry.path, why=f"its imports were not looked at: {error}"))
            continue
        if imports is not None:
            found.append(imports)
    if len(entries) > MAX_FILES:
        what = f"{len(entries) - MAX_FILES:,} more pickles"
        skips.append(Skip(what=what, why=f"the imports of {MAX_FILES} files were looked at"))
    return tuple(found), tuple(skips)


def _reader(facts: RepoFacts, entry: FileEntry, hub: Hub | None) -> Read:
    """Reads ranges of a file of the repository."""
    folder = facts.ref.path
    if folder is not None:
        return lambda spans: [read_span(folder, entry.path, start, end) for start, end in spans]
    if hub is None:
        raise ValueError(f"{facts.ref} lies on the Hub and cannot be read without a Hub")

    def read(spans: Sequence[tuple[int, int]]) -> list[bytes]:
        remote = hub.locate(facts.ref, entry.path)
        return [hub.read_range(remote, start, end) for start, end in spans]

    return read


def _inspect(read: Read, entry: FileEntry) -> PickleImports | None:
    """The imports of one file, None when there is nothing to tell.

    Raises:
        _Uninspectable: it is too long or too involved.
        CouldNotConclude: it cannot be read.
    """
    if not entry.size_bytes:
        return None
    (first,) = read([(0, min(len(_ARCHIVE), entry.size_bytes))])
    plain = [(0, min(MAX_PICKLE_BYTES, entry.size_bytes))]
    pickles = _members(read, entry.size_bytes) if first == _ARCHIVE else read(plain)
    found: dict[str, SafetyLevel] = {}
    computed = False
    for raw in pickles:
        _check_work(raw)
        try:
            result = scan_pickle_bytes(io.BytesIO(raw), "")
        except Exception:  # noqa: BLE001  # it gives up at imports whose names stand nowhere
            computed = True
            continue
        found |= {f"{item.module}.{item.name}"[:MAX_NAME_CHARS]: item.safety for item in result.globals}
    dangerous = sorted(name for name, level in found.items() if level is SafetyLevel.Dangerous)
    unknown = sorted(name for name, level in found.items() if level is SafetyLevel.Suspicious and name not in _WEIGHTS)
    if not dangerous and not unknown and not computed:
        return None
    return PickleImports(
        path=entry.path,
        dangerous=tuple(dangerous[:MAX_IMPORTS]),
        unknown=tuple(unknown[:MAX_IMPORTS]),
        computed=computed,
    )


def _members(read: Read, size: int) -> Iterator[bytes]:
    """The pickles inside an archive.

    Raises:
        _Uninspectable: the archive is damaged, or they are too many or too large.
    """
    try:
        with zipfile.ZipFile(Window(read, size, limit_bytes=MAX_DIRECTORY_BYTES)) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith((".pkl", ".pickle"))]
            if len(infos) > MAX_MEMBERS or any(info.file_size > MAX_PICKLE_BYTES for info in infos):
                raise _Uninspectable("it holds too many or too large pickles")
            for info in infos:
                with archive.open(info) as member:
                    yield member.read(MAX_PICKLE_BYTES)
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _Uninspectable("its archive is damaged") from error


def _check_work(raw: bytes) -> None:
    """Hold the opcodes against what picklescan can do in seconds.

    Raises:
        _Uninspectable: it would take too long.
    """
    marks = by_name = 0
    for count, name in enumerate(_opcodes(raw)):
        marks += name in _MARKS
        by_name += name == "STACK_GLOBAL"
        if count > MAX_OPCODES or marks * by_name > MAX_WORK:
            raise _Uninspectable("it is too involved to be followed")


def _opcodes(raw: bytes) -> Iterable[str]:
    """The opcodes of all pickles that follow one another, up to the first that is none."""
    stream = io.BytesIO(raw)
    while stream.tell() < len(raw):
        try:
            for opcode, _, _ in pickletools.genops(stream):
                yield opcode.name
        except Exception:  # noqa: BLE001  # what is no pickle ends the walk
            return
