"""A file that is read by ranges, as the standard library wants files: for archives whose contents stand at the end."""

import io
from collections.abc import Callable, Sequence
from typing import Final

TAIL_BYTES: Final = 128 << 10
"""Read at once: holds the table of contents of some thousand members."""

Read = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""Byte ranges of the file (start included, end excluded) → their bytes, in the same order."""


class Window(io.RawIOBase):
    """A seekable file over ``Read``."""

    def __init__(self, read: Read, size: int, *, limit_bytes: int) -> None:
        """Look at a file; nothing is read yet.

        Args:
            read: reads ranges.
            size: bytes of the whole file.
            limit_bytes: what may be read in all; ``read`` raises ``ValueError`` beyond.
        """
        super().__init__()
        self._spans, self._size, self._at, self._left = read, size, 0, limit_bytes
        self._tail_start = max(0, size - TAIL_BYTES)
        self._tail: bytes | None = None

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move.

        Raises:
            ValueError: before the beginning.
        """
        at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        if at < 0:
            raise ValueError("before the beginning")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, fewer only at the end.

        Raises:
            ValueError: more than the limit has been read.
        """
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, end)
        if end <= start:
            return b""
        self._left -= end - start
        if self._left < 0:
            raise ValueError("more was asked for than may be read")
        if start < self._tail_start:
            return self._spans([(start, end)])[0]
        if self._tail is None:
            (self._tail,) = self._spans([(self._tail_start, self._size)])
        return self._tail[start - self._tail_start : end - self._tail_start]
