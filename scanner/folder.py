"""A local folder seen as a repository: its listing and its small files. Nothing is followed out of regular files."""

import os
import stat
from pathlib import Path

from scanner.errors import CouldNotConclude, FileNotFound, FileTooLarge, RepoUnavailable
from scanner.paths import is_plain_path, shown
from scanner.records import FileEntry

MAX_FILES = 50_000
_NOT_MODEL = frozenset({".git", ".cache", "__pycache__"})
"""Folders that git and the download client leave behind."""


def list_folder(folder: str) -> tuple[FileEntry, ...]:
    """List the regular files below a folder, in byte order of their paths.

    Links to files are followed (the Hub cache is made of them), links to folders are not. Devices, pipes and broken
    links are left out. No hashes: they would cost a read of everything.

    Raises:
        CouldNotConclude: the folder cannot be read, or holds more than ``MAX_FILES`` files.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CouldNotConclude(f"The folder {shown(folder)} is gone; check the path and run again.")
    found: list[FileEntry] = []
    for here, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NOT_MODEL)
        for name in names:
            path = Path(here, name)
            size = _regular_size(path)
            if size is not None:
                found.append(FileEntry(path=path.relative_to(root).as_posix(), size_bytes=size))
        if len(found) > MAX_FILES:
            raise CouldNotConclude(f"{shown(folder)} holds more than {MAX_FILES:,} files; give the model's own folder.")
    return tuple(sorted(found, key=lambda entry: os.fsencode(entry.path)))


def read_file(folder: str, path: str, *, limit_bytes: int) -> bytes:
    """Read one small file.

    Raises:
        FileNotFound: there is no such regular file, or the name leaves the folder.
        FileTooLarge: it has more than ``limit_bytes`` bytes.
        RepoUnavailable: it cannot be read.
    """
    target = Path(folder, path)
    if not is_plain_path(path) or _regular_size(target) is None:
        raise FileNotFound(f"{shown(folder)} has no file {shown(path)}.")
    try:
        with target.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise RepoUnavailable(f"{shown(path)} cannot be read: {reason}; check its permissions.") from error
    if len(content) > limit_bytes:
        raise FileTooLarge(f"{shown(path)} is larger than the {limit_bytes:,} bytes that are read of such a file.")
    return content


def read_span(folder: str, path: str, start: int, end: int) -> bytes:
    """Read the bytes ``start`` (included) to ``end`` (excluded) of a file, fewer where it ends before.

    Raises:
        FileNotFound: there is no such regular file, or the name leaves the folder.
        RepoUnavailable: it cannot be read.
    """
    target = Path(folder, path)
    if not is_plain_path(path) or _regular_size(target) is None:
        raise FileNotFound(f"{shown(folder)} has no file {shown(path)}.")
    try:
        with target.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise RepoUnavailable(f"{shown(path)} cannot be read: {reason}; check its permissions.") from error


def _regular_size(path: Path) -> int | None:
    """The size in bytes, or None when it is not a regular file: opening a pipe would block for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
