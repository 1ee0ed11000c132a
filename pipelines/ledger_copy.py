"""A copy of the ledger somewhere that outlives this machine: a mounted bucket, a network folder.

SQLite itself must not live on such a mount (its locks and its shared memory do not work there), a copy may.
"""

import contextlib
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

from pipelines.ledger_file import LedgerError, ledger_errors

INTERVAL_SECONDS = 300.0


def restore(copy: Path, path: Path) -> bool:
    """Begin with the copy where there is no ledger yet; say whether there was one.

    Raises:
        LedgerError: the copy cannot be read.
    """
    if path.exists() or not copy.exists():
        return False
    try:
        shutil.copyfile(copy, path)
    except OSError as error:
        raise LedgerError(f"The copy {copy} cannot be read ({error.strerror}); check the mount.") from error
    return True


def save(path: Path, copy: Path) -> None:
    """Copy the ledger as it is at this moment, also while it is written to; the old copy stays until the new is whole.

    Raises:
        LedgerError: the ledger cannot be read, or the copy not written.
    """
    local = path.with_name(f"{path.name}.copy")
    with ledger_errors(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source:
        local.unlink(missing_ok=True)
        with closing(sqlite3.connect(local)) as target:
            source.backup(target, pages=4096)
            target.execute("PRAGMA journal_mode = DELETE")
    part = copy.with_name(f"{copy.name}.part")
    try:
        shutil.copyfile(local, part)
        part.replace(copy)
    except OSError as error:
        raise LedgerError(f"The copy {copy} cannot be written ({error.strerror}); check the mount.") from error
    finally:
        local.unlink(missing_ok=True)


class KeptCopy:
    """Copies the ledger every few minutes and at the end. Use as a context manager."""

    def __init__(self, path: Path, copy: Path, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._path = path
        self._copy = copy
        self._interval = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="copy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exit: object) -> None:
        self._over.set()
        self._thread.join()
        save(self._path, self._copy)

    def _keep(self) -> None:
        while not self._over.wait(self._interval):
            # A copy that fails now is made next time; the last one, at the end, is the one that must not fail.
            with contextlib.suppress(LedgerError):
                save(self._path, self._copy)
