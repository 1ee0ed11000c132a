"""Writing finished documents: whole or not at all."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

STDOUT = "-"


def write_document(content: str | bytes, target: str) -> None:
    """Write to a file through a temporary neighbour, so that nobody ever sees half of it; "-" is stdout.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is full; no file is left behind.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    if target == STDOUT:
        sys.stdout.buffer.write(raw)
        if not raw.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()
        return
    path = Path(target)
    handle, temporary = tempfile.mkstemp(dir=path.parent or Path(), prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
