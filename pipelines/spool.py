"""Where workers leave a finished answer before they report it, so that a driver killed meanwhile loses nothing.

One file per answer, written whole or not at all. The next driver keeps what it finds there before it claims anything.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.engines.seam import Answer, ScanJob, decode

_NAME = re.compile(r"(\d{1,18})-(\d{1,18})\.answer", re.ASCII)


def spool_folder(ledger: Path) -> Path:
    """Return the spool that belongs to a ledger."""
    return ledger.with_name(f"{ledger.name}.spool")


def place(folder: Path, job: ScanJob) -> Path:
    """Return where the answer to an attempt is left."""
    return folder / f"{job.job_id}-{job.attempt_id}.answer"


def leave(folder: Path, job: ScanJob, raw: bytes) -> Path:
    """Leave an encoded answer; return its file.

    Raises:
        OSError: the disk is full or the folder not writable; nothing is left behind.
    """
    target = place(folder, job)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    return target


def found(folder: Path) -> Iterator[tuple[int, int, Answer | None, Path]]:
    """Yield job, attempt, answer and file of everything left behind; the answer of a damaged file is None."""
    for path in sorted(folder.glob("*.answer")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            answer = decode(path.read_bytes())
        except ValueError:
            answer = None
        yield int(match[1]), int(match[2]), answer, path


def tidy(folder: Path) -> None:
    """Remove half-written files; only while no worker runs."""
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)
