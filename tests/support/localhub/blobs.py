"""File contents, in memory or on disk, and the identities that the Hub gives them.

A *regular* file is known by its git blob sha1; an *LFS* file by its sha256, and its git identity is that of the
small pointer file that stands in for it.
"""

import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf", ".onnx", ".npz", ".pkl", ".parquet")
LFS_SIZE_BYTES = 10 * 1024 * 1024
SAMPLE_BYTES = 512
CHUNK_BYTES = 1024 * 1024

Pace = Callable[[int], None]
"""Called with the size of each chunk, in bytes, before it is sent; may wait."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes that the server holds."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of the half-open interval ``[start, stop)``."""
        return self.data[start:stop]

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole content."""
        return hashlib.sha256(self.data).hexdigest()

    def send(self, connection: socket.socket, start: int, stop: int, pace: Pace) -> None:
        """Send ``[start, stop)`` in chunks."""
        view = memoryview(self.data)
        for begin in range(start, stop, CHUNK_BYTES):
            end = min(begin + CHUNK_BYTES, stop)
            pace(end - begin)
            connection.sendall(view[begin:end])


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file that stays where it is; it must not change while it is served."""

    path: Path

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.path.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of the half-open interval ``[start, stop)``."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole content; remembered until the file changes."""
        stat = self.path.stat()
        return _sha256_of_file(self.path, stat.st_size, stat.st_mtime_ns)

    def send(self, connection: socket.socket, start: int, stop: int, pace: Pace) -> None:
        """Send ``[start, stop)`` in chunks, by sendfile where the system has it.

        Raises:
            OSError: the file became shorter while it was served.
        """
        with self.path.open("rb") as file:
            for begin in range(start, stop, CHUNK_BYTES):
                end = min(begin + CHUNK_BYTES, stop)
                pace(end - begin)
                if connection.sendfile(file, begin, end - begin) < end - begin:
                    raise OSError(f"{self.path} became shorter while it was served")


Content = InMemory | OnDisk


@lru_cache(maxsize=1024)
def _sha256_of_file(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A file whose identities are claimed instead of computed: for lies, and to spare hashing huge files."""

    file: bytes | str | Path
    sha256: str | None = None
    xet_hash: str | None = None


FileLike = bytes | str | Path | Declared
"""What a caller may publish: bytes, text (as UTF-8), a path on disk, or either with declared identities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a tree. ``sha256`` is set for LFS files alone; ``oid`` is the git sha1 (of the pointer for LFS)."""

    content: Content
    size: int
    oid: str
    sha256: str | None = None
    xet_hash: str | None = None

    @property
    def etag(self) -> str:
        """The identity by which clients cache the file."""
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        """Length in bytes of the LFS pointer file."""
        return len(pointer(self.sha256 or "", self.size))

    def read(self) -> bytes:
        """Return the whole content."""
        return self.content.read(0, self.size)


def git_sha1(data: bytes) -> str:
    """Return the git identity of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file that git stores in place of an LFS object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def wants_lfs(path: str, size: int, sample: bytes) -> bool:
    """Tell whether a file belongs in LFS: by its suffix, by its size in bytes, or because it is binary."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE_BYTES or b"\0" in sample


def lfs_entry(content: Content, sha256: str, xet_hash: str | None = None) -> Entry:
    """Return the entry of an LFS object."""
    size = content.size
    return Entry(content=content, size=size, oid=git_sha1(pointer(sha256, size)), sha256=sha256, xet_hash=xet_hash)


def entry_for(path: str, file: FileLike) -> Entry:
    """Return the entry under which ``file`` is published at ``path``."""
    claims = file if isinstance(file, Declared) else Declared(file=file)
    content = _content(claims.file)
    size = content.size
    if claims.sha256 or claims.xet_hash or wants_lfs(path, size, content.read(0, SAMPLE_BYTES)):
        return lfs_entry(content, claims.sha256 or content.sha256(), claims.xet_hash)
    return Entry(content=content, size=size, oid=git_sha1(content.read(0, size)))


def _content(file: bytes | str | Path) -> Content:
    if isinstance(file, Path):
        return OnDisk(file.resolve(strict=True))
    return InMemory(file.encode() if isinstance(file, str) else file)
