"""One weight file mapped into memory, whose pages are let go behind the reader."""

import mmap
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from scanner.errors import CorruptWeights, CouldNotConclude
from scanner.paths import shown
from scanner.weights.panels import Panel, view_values

KEPT_BYTES: Final = 32 << 20
"""How much is read of a mapping before its pages are let go, in one system call for all of them."""


class MappedFile:
    """Views of the bytes of one file, in the page cache and nowhere else.

    A view stays valid as long as somebody holds it; pages that were let go are then read again.
    """

    def __init__(self, folder: Path, file: str, size: int) -> None:
        """Map the whole file.

        Args:
            folder: the model's folder.
            file: path below it.
            size: bytes that the file had when its header was read; not 0.

        Raises:
            CorruptWeights: it has another size by now.
            CouldNotConclude: it cannot be opened or mapped.
        """
        with open_weights(folder, file) as handle:
            if file_size(handle) != size:
                raise CorruptWeights(f"The weights file {shown(file)} changed while it was read; scan it again.")
            try:
                self._map = mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ)
            except OSError as error:
                raise unreadable(file, error) from error
        self._advise("MADV_SEQUENTIAL", 0, size)
        self._first = size
        self._last = 0
        self._left_bytes = 0

    def values(self, panel: Panel) -> npt.NDArray[Any]:
        """The panel's values, ``[rows, cols]``, read-only."""
        return view_values(self._map, panel, panel.start)

    def leave(self, panel: Panel) -> None:
        """Say that the panel is done with; lets pages go once ``KEPT_BYTES`` have been."""
        self._first = min(self._first, panel.start)
        self._last = max(self._last, panel.end)
        self._left_bytes += panel.end - panel.start
        if self._left_bytes >= KEPT_BYTES:
            first = self._first // mmap.PAGESIZE * mmap.PAGESIZE
            self._advise("MADV_DONTNEED", first, self._last - first)
            self._first, self._last, self._left_bytes = len(self._map), 0, 0

    def _advise(self, advice: str, start: int, length: int) -> None:
        """Give the system a hint, where it knows such hints."""
        option = getattr(mmap, advice, None)
        if option is not None:
            self._map.madvise(option, start, length)


def open_weights(folder: Path, file: str) -> FileIO:
    """Open a regular file for reading; anything else (a pipe, a device) is refused before it can block.

    Raises:
        CouldNotConclude: it is not there, not a regular file, or may not be read.
    """
    path = folder / file
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CouldNotConclude(f"The weights file {shown(file)} is no regular file; check the folder.")
        return FileIO(path)
    except OSError as error:
        raise unreadable(file, error) from error


def file_size(handle: FileIO) -> int:
    """Bytes of the open file."""
    return os.fstat(handle.fileno()).st_size


def unreadable(file: str, error: OSError) -> CouldNotConclude:
    """The error for a file that the system does not let us read."""
    reason = error.strerror or "unknown reason"
    return CouldNotConclude(f"The weights file {shown(file)} cannot be read: {reason}; check its permissions.")
