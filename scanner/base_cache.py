"""Bytes of base models on disk, read from the Hub once and shared by all workers of a machine.

A thousand fine-tunes have one base. Each scan needs all of the base's bytes, in the order of its own tensors, so the
cache keeps **granules**: aligned runs of ``GRANULE_BYTES`` of one file at one commit. A file at a commit never
changes, so a granule never has to be checked against the Hub again; it is written whole (a temporary file, renamed)
behind a CRC-32, and one that does not match its checksum is thrown away and read anew. Whoever needs a granule that
is missing holds a lock on its block of granules while reading it; everybody else waits for the lock and then finds
it. The locks are the kernel's and die with their process, so a killed worker leaves nothing to clean up.

Small **documents** (listings, cards, configurations) are kept the same way. The folder is bounded: when it has grown
beyond its limit, the bases that were used longest ago go first. Nothing that a stranger wrote becomes part of a path:
folders and files are named by hashes.

A full disk or an unwritable folder is no error: the bytes are then read from the Hub each time.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from scanner.patience import ReadStopped

GRANULE_BYTES: Final = 1 << 20
"""Small enough that sampling a few rows does not read the whole base, large enough that opening files costs little."""
BLOCK_GRANULES: Final = 8
"""Granules under one lock; with 1 MiB granules a block is as large as the requests of ``scanner.weights.ranges``."""
KEPT_SHARE: Final = 0.85
"""Share of the limit that remains after making room."""
LARGEST_SHARE: Final = 0.6
"""A file larger than this share of the limit is not kept: it would only push out everything else."""
_POLL_SECONDS: Final = 0.01
_CHECKSUM: Final = struct.Struct("<I")

Fetch = Callable[[int, memoryview], None]
"""Reads from an offset of the file (bytes) into a buffer, whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """One file of a pinned repository. ``endpoint`` says on which Hub."""

    endpoint: str
    repo_id: str
    revision: str
    path: str
    size_bytes: int


class BaseCache:
    """A bounded folder of granules and documents. Any number of threads and processes may use one folder."""

    def __init__(self, folder: Path, limit_bytes: int, *, granule_bytes: int = GRANULE_BYTES) -> None:
        """Use a folder, made when missing; it belongs to the cache alone, with one size of granules for all.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._granule_bytes = granule_bytes
        self._block_bytes = BLOCK_GRANULES * granule_bytes
        self.hits_bytes = 0
        self.fetched_bytes = 0
        self._count_lock = threading.Lock()

    def fill(
        self, file: SharedFile, start: int, buffer: memoryview, fetch: Fetch, *, stop: threading.Event | None = None
    ) -> None:
        """Fill a buffer with the bytes of a file from ``start`` on, from the cache where it has them.

        What is missing is read by ``fetch`` in runs of whole granules (the last one ends with the file) and kept.

        Raises:
            ReadStopped: ``stop`` was set while waiting for another reader.
            Exception: whatever ``fetch`` raises; nothing half-read is kept.
        """
        if file.size_bytes > LARGEST_SHARE * self.limit_bytes:
            fetch(start, buffer)
            return
        home = self._home(file.endpoint, file.repo_id, file.revision) / _digest(file.path)
        end = start + len(buffer)
        for block in range(start // self._block_bytes, -(-end // self._block_bytes)):
            low, high = max(start, block * self._block_bytes), min(end, (block + 1) * self._block_bytes)
            part = buffer[low - start : high - start]
            if not self._read_all(home, low, part, file.size_bytes):
                with self._locked(home, f"{block}.lock", stop) as usable:
                    self._complete(file, home, low, part, fetch, keep=usable)

    def document(self, owner: tuple[str, ...], name: str, make: Callable[[], bytes]) -> bytes:
        """Return a small document of an owner (for example endpoint, repository and commit), made at most once.

        Raises:
            Exception: whatever ``make`` raises; nothing is kept then.
        """
        home = self._home(*owner)
        path = home / f"{_digest(name)}.document"
        kept = _read_checked(path)
        if kept is not None:
            return kept
        with self._locked(home, f"{path.name}.lock", None) as usable:
            kept = _read_checked(path)
            if kept is None:
                kept = make()
                if usable:
                    self._write(path, kept)
        return kept

    def touch(self, endpoint: str, repo_id: str, revision: str) -> None:
        """Note that a base is in use, so that others go first."""
        home = self._home(endpoint, repo_id, revision)
        with contextlib.suppress(OSError):
            os.utime(home)

    def used_bytes(self) -> int:
        """Return how many bytes the files of the cache have, by looking at each."""
        return sum(size for _, size, _ in self._homes())

    def make_room(self) -> int:
        """Remove the bases used longest ago until ``KEPT_SHARE`` of the limit is left; return the bytes removed."""
        homes = sorted(self._homes())
        total = sum(size for _, size, _ in homes)
        removed = 0
        for _, size, home in homes[:-1]:
            if total - removed <= KEPT_SHARE * self.limit_bytes:
                break
            shutil.rmtree(home, ignore_errors=True)
            removed += size
        _set_counter(self.folder, total - removed)
        return removed

    def _complete(
        self, file: SharedFile, home: Path, start: int, buffer: memoryview, fetch: Fetch, *, keep: bool
    ) -> None:
        """Fill a buffer that lies within one block, holding the block's lock: read what is missing, and keep it."""
        first, last = start // self._granule_bytes, -(-(start + len(buffer)) // self._granule_bytes)
        missing = [i for i in range(first, last) if not (home / str(i)).exists()]
        for low, high in _runs(missing):
            at = low * self._granule_bytes
            content = bytearray(min(high * self._granule_bytes, file.size_bytes) - at)
            fetch(at, memoryview(content))
            with self._count_lock:
                self.fetched_bytes += len(content)
            _copy(content, at, start, buffer)
            view = memoryview(content)
            for i in range(low, high) if keep else ():
                offset = (i - low) * self._granule_bytes
                self._write(home / str(i), view[offset : offset + self._granule_bytes])
        for i in sorted(set(range(first, last)) - set(missing)):
            sound: bytes | bytearray | None = self._granule(home, i, file.size_bytes)
            if sound is None:
                sound = bytearray(min(self._granule_bytes, file.size_bytes - i * self._granule_bytes))
                fetch(i * self._granule_bytes, memoryview(sound))
                if keep:
                    self._write(home / str(i), sound)
            _copy(sound, i * self._granule_bytes, start, buffer)

    def _read_all(self, home: Path, start: int, buffer: memoryview, size_bytes: int) -> bool:
        """Fill a buffer from granules alone; say whether all of them were there and sound."""
        for i in range(start // self._granule_bytes, -(-(start + len(buffer)) // self._granule_bytes)):
            content = self._granule(home, i, size_bytes)
            if content is None:
                return False
            _copy(content, i * self._granule_bytes, start, buffer)
        with self._count_lock:
            self.hits_bytes += len(buffer)
        return True

    def _granule(self, home: Path, index: int, size_bytes: int) -> bytes | None:
        content = _read_checked(home / str(index))
        expected = min(self._granule_bytes, size_bytes - index * self._granule_bytes)
        return content if content is not None and len(content) == expected else None

    def _home(self, *owner: str) -> Path:
        return self.folder / _digest("\0".join(owner))

    @contextmanager
    def _locked(self, home: Path, name: str, stop: threading.Event | None) -> Iterator[bool]:
        """Hold a lock of one base; yield False when the folder cannot be written, and there is none to hold."""
        try:
            home.mkdir(parents=True, exist_ok=True)
            handle = os.open(home / name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield False
            return
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if stop is not None and stop.is_set():
                        raise ReadStopped from None
                    time.sleep(_POLL_SECONDS)
            yield True
        finally:
            os.close(handle)

    def _write(self, path: Path, content: bytes | bytearray | memoryview) -> None:
        """Keep content under its checksum, whole or not at all."""
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(_CHECKSUM.pack(zlib.crc32(content)))
                file.write(content)
            Path(temporary).replace(path)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            return
        if _add_counter(self.folder, len(content) + _CHECKSUM.size) > self.limit_bytes:
            with self._locked(self.folder, "room.lock", None) as usable:
                # Whoever waited for the lock finds that there is room now.
                if usable and _add_counter(self.folder, 0) > self.limit_bytes:
                    self.make_room()

    def _homes(self) -> list[tuple[float, int, Path]]:
        """Last use, size in bytes and folder of every base."""
        found = []
        for home in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if home.is_dir():
                    used = home.stat().st_mtime
                    found.append((used, sum(_size(item) for item in home.rglob("*")), home))
        return found


def _copy(content: bytes | bytearray, at: int, start: int, buffer: memoryview) -> None:
    """Copy what ``content`` (which begins at offset ``at`` of the file) has of the buffer (at offset ``start``)."""
    low, high = max(at, start), min(at + len(content), start + len(buffer))
    if low < high:
        buffer[low - start : high - start] = memoryview(content)[low - at : high - at]


def _runs(indices: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the half-open runs of consecutive numbers."""
    begin = 0
    for place in range(1, len(indices) + 1):
        if place == len(indices) or indices[place] != indices[place - 1] + 1:
            yield indices[begin], indices[place - 1] + 1
            begin = place


def _read_checked(path: Path) -> bytes | None:
    """Return what was kept, or None when there is nothing, or nothing sound (which is then removed)."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    content = raw[_CHECKSUM.size :]
    if len(raw) >= _CHECKSUM.size and _CHECKSUM.unpack_from(raw)[0] == zlib.crc32(content):
        return content
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _add_counter(folder: Path, n_bytes: int) -> int:
    """Add to the running total that all processes share; 0 when it cannot be kept (``make_room`` counts anew)."""
    try:
        handle = os.open(folder / "total", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        text = os.pread(handle, 32, 0)
        total = (int(text) if text.isdigit() else 0) + n_bytes
        if n_bytes:
            os.pwrite(handle, f"{total:020d}".encode(), 0)
    except OSError:
        return 0
    finally:
        os.close(handle)
    return total


def _set_counter(folder: Path, total: int) -> None:
    with contextlib.suppress(OSError):
        _add_counter(folder, total - _add_counter(folder, 0))
