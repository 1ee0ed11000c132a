"""Files that a computer could run, and archives: by name, and by the first bytes where a name is silent.

A model needs neither. Nothing is run or unpacked; of archives only the table of contents is read.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from scanner.errors import HubAuditError
from scanner.folder import read_span
from scanner.hub import Hub
from scanner.records import FileEntry, RepoFacts, Skip
from scanner.side.reading import inherited
from scanner.side.records import Program
from scanner.window import Read, Window

RUNNABLE: Final[Mapping[str, str]] = {
    ".exe": "Windows program", ".dll": "Windows library", ".scr": "Windows program", ".com": "Windows program",
    ".msi": "Windows installer", ".bat": "Windows script", ".cmd": "Windows script", ".ps1": "PowerShell script",
    ".vbs": "Windows script", ".wsf": "Windows script", ".hta": "Windows script", ".lnk": "Windows shortcut",
    ".so": "Linux library", ".dylib": "macOS library", ".pyd": "Python library", ".node": "Node library",
    ".sh": "shell script", ".bash": "shell script", ".command": "macOS script", ".jar": "Java program",
    ".apk": "Android program", ".dmg": "macOS image", ".deb": "Debian package", ".rpm": "RPM package",
    ".whl": "Python package", ".egg": "Python package", ".pyc": "compiled Python", ".desktop": "Linux shortcut",
    ".js": "JavaScript", ".wasm": "WebAssembly program", ".ipynb": "notebook",
}  # fmt: skip
ARCHIVES: Final = (
    ".zip",
    ".tar",
    ".tgz",
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".7z",
    ".rar",
    ".gz",
    ".xz",
    ".bz2",
    ".iso",
)
SILENT: Final = frozenset({"", ".bin", ".dat", ".data", ".raw", ".blob", ".img"})
"""Suffixes behind which anything may stand; such files are looked at when they are no weights."""
_KNOWN_NAMES: Final = frozenset(
    {"LICENSE", "README", "NOTICE", "COPYING", "Makefile", "Dockerfile", ".gitattributes", ".gitignore"}
)
MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x7fELF", "Linux program"),
    (b"MZ", "Windows program"),
    (b"\xcf\xfa\xed\xfe", "macOS program"),
    (b"\xce\xfa\xed\xfe", "macOS program"),
    (b"\xca\xfe\xba\xbe", "macOS or Java program"),
    (b"#!", "script"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!", "archive"),
)
MAX_LOOKED_AT: Final = 6
MAX_LISTED: Final = 100
MAX_MEMBERS: Final = 20
MAX_CONTENTS_BYTES: Final = 2 << 20
_TAR_HEAD_BYTES: Final = 256 << 10


def find_programs(
    candidate: RepoFacts, base: RepoFacts | None, hub: Hub | None, skips: list[Skip]
) -> tuple[Program, ...]:
    """List runnable files and archives; the base's own, by hash, are marked and not looked into.

    Requests: one or two for each of at most ``MAX_LOOKED_AT`` archives and files with a silent name; none else.
    """
    found: list[Program] = []
    looked_at = 0
    for entry in candidate.files:
        name = PurePosixPath(entry.path).name
        suffix = PurePosixPath(name.lower()).suffix
        same = inherited(entry.path, candidate, base)
        if suffix in RUNNABLE and not (suffix == ".ipynb" and same):
            found.append(Program(path=entry.path, kind=RUNNABLE[suffix], inherited=same))
        elif name.lower().endswith(ARCHIVES):
            members: tuple[str, ...] = ()
            if not same and looked_at < MAX_LOOKED_AT:
                looked_at += 1
                members = _members(entry, candidate, hub, skips)
            elif not same:
                skips.append(Skip(what=entry.path, why="The archive was not looked into: there are too many."))
            found.append(Program(path=entry.path, kind="archive", inherited=same, archive=True, members=members))
        elif _is_silent(name, suffix, entry) and not same:
            if looked_at >= MAX_LOOKED_AT:
                skips.append(
                    Skip(what=entry.path, why="What kind of file it is was not looked at: there are too many.")
                )
                continue
            looked_at += 1
            kind = _kind(entry, candidate, hub, skips)
            if kind is not None:
                found.append(Program(path=entry.path, kind=kind, inherited=False, archive=kind == "archive"))
    return tuple(found[:MAX_LISTED])


def _is_silent(name: str, suffix: str, entry: FileEntry) -> bool:
    """Whether only the first bytes can tell. Pickled weights (``.bin``) are looked at elsewhere."""
    if suffix == ".bin" or name in _KNOWN_NAMES or (name.startswith(".") and not suffix):
        return False
    return suffix in SILENT and entry.size_bytes > 0


def _reader(entry: FileEntry, facts: RepoFacts, hub: Hub | None) -> Read:
    folder = facts.ref.path
    if folder is not None:
        return lambda spans: [read_span(folder, entry.path, start, end) for start, end in spans]
    assert hub is not None

    def read(spans: Sequence[tuple[int, int]]) -> list[bytes]:
        remote = hub.locate(facts.ref, entry.path)
        return [hub.read_range(remote, start, end) for start, end in spans]

    return read


def _kind(entry: FileEntry, facts: RepoFacts, hub: Hub | None, skips: list[Skip]) -> str | None:
    try:
        (head,) = _reader(entry, facts, hub)([(0, min(8, entry.size_bytes))])
    except HubAuditError as error:
        skips.append(Skip(what=entry.path, why=f"What kind of file it is could not be read: {error}"))
        return None
    return next((kind for magic, kind in MAGIC if head.startswith(magic)), None)


def _members(entry: FileEntry, facts: RepoFacts, hub: Hub | None, skips: list[Skip]) -> tuple[str, ...]:
    """The runnable files inside an archive, or a skip when its contents cannot be listed by ranges."""
    lower = entry.path.lower()
    listing: Callable[[Read, int], list[str]]
    if lower.endswith(".zip"):
        listing = _zip_names
    elif lower.endswith(".tar"):
        listing = _tar_names
    else:
        skips.append(Skip(what=entry.path, why="The archive was not looked into: its kind has to be unpacked whole."))
        return ()
    try:
        names = listing(_reader(entry, facts, hub), entry.size_bytes)
    except HubAuditError as error:
        skips.append(Skip(what=entry.path, why=f"The archive was not looked into: {error}"))
        return ()
    except (zipfile.BadZipFile, tarfile.TarError, ValueError, NotImplementedError, RuntimeError, EOFError, OSError):
        skips.append(Skip(what=entry.path, why="The archive was not looked into: it is damaged or its table too long."))
        return ()
    endings = (*RUNNABLE, ".py", ".pyw", ".pkl", ".pickle", ".pth", ".pt")
    return tuple(name[:200] for name in names if name.lower().endswith(endings))[:MAX_MEMBERS]


def _zip_names(read: Read, size: int) -> list[str]:
    with zipfile.ZipFile(Window(read, size, limit_bytes=MAX_CONTENTS_BYTES)) as archive:
        return [info.filename for info in archive.infolist()]


def _tar_names(read: Read, size: int) -> list[str]:
    """What stands at the beginning; the rest of a tar can only be found by reading all of it."""
    (head,) = read([(0, min(size, _TAR_HEAD_BYTES))])
    names: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as archive:
        try:
            names.extend(member.name for member in archive)
        except (tarfile.TarError, EOFError, OSError):
            return names
    return names
