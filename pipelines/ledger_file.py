"""The ledger's file: opening it, bringing it up to date, and the lock that keeps a second driver out.

The version of a ledger is SQLite's ``user_version``; ``application_id`` marks the file as ours. Migrations are the
SQL files of ``pipelines/migrations``, each applied in one transaction together with its number: a migration that is
killed half-way has not happened.
"""

import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Self

from scanner.errors import CouldNotConclude

APPLICATION_ID = 0x48554241  # "HUBA"
BUSY_SECONDS = 10.0
"""How long to wait for whoever else is writing: a shell, a backup."""
CHECKED_BYTES = 256 << 20
"""Ledgers up to this size are checked whole when a driver opens them (about a second)."""
_HEADER_BYTES = 100


class LedgerError(CouldNotConclude):
    """The ledger cannot be used; nothing was changed in it."""


class LedgerBusy(LedgerError):  # noqa: N818
    """Another process is driving this ledger."""


def migrations() -> tuple[str, ...]:
    """Return the SQL of every migration; the first one leads from an empty file to version 1."""
    found = sorted(item.name for item in files("pipelines.migrations").iterdir() if item.name.endswith(".sql"))
    numbers = [int(name.partition("_")[0]) for name in found]
    assert numbers == list(range(1, len(found) + 1)), "migrations are numbered from 1 without a gap"
    return tuple(files("pipelines.migrations").joinpath(name).read_text(encoding="utf-8") for name in found)


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Word what SQLite raises, each with what to do next.

    Raises:
        LedgerError: instead of any ``sqlite3.Error``.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(_worded(path, error)) from error


def open_driver(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open a ledger for writing and bring it up to the present version; the caller holds ``DriverLock``.

    A ledger of an earlier version is copied to ``<ledger>.v<version>.bak`` first.

    Raises:
        LedgerError: missing (without ``create``), not a ledger, damaged, of a newer version, locked, or the disk
            is full.
    """
    if not create and not path.is_file():
        raise missing(path)
    with ledger_errors(path):
        fresh = not path.exists() or path.stat().st_size == 0
        if not fresh:
            _check_shape(path)
        connection = _connect(f"file:{_quoted(path)}?mode=rwc")
        try:
            _version(connection, path)  # before anything is set: the file may be somebody else's
            # FULL: what the ledger calls done survives a power cut. Commits are grouped, so it costs little.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path, fresh=fresh)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a ledger for reading, also while a driver writes to it. An older one is brought up to date first.

    Raises:
        LedgerError: as ``open_driver``.
        LedgerBusy: it is older, and its driver (an older hubaudit) is running.
    """
    if not path.is_file():
        raise missing(path)
    with ledger_errors(path):
        _check_shape(path)
        connection = _connect(f"file:{_quoted(path)}?mode=ro")
        if _version(connection, path) < len(migrations()):
            connection.close()
            with DriverLock(path), closing(open_driver(path)):
                pass
            connection = _connect(f"file:{_quoted(path)}?mode=ro")
        return connection


class DriverLock:
    """Held by the one process that drives a ledger; a lock of the kernel, so it dies with its process.

    A second lock, ``<ledger>.workers``, is shared by that driver's workers: a driver that was killed may leave one
    behind for a moment, and the next driver waits until it is gone, so that nothing is scanned twice at a time.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 60.0) -> None:
        """Take both locks.

        Raises:
            LedgerBusy: another driver holds the first, or its workers the second for longer than ``wait_seconds``.
            LedgerError: the folder is not writable.
        """
        self._handles: list[int] = []
        try:
            self._driver = self._open(driver_lock_path(path))
            try:
                fcntl.flock(self._driver, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LedgerBusy(
                    f"{path} is in use by another hubaudit ({_holder(self._driver)}); wait for it, stop it, or give "
                    "another --ledger."
                ) from error
            self._say_who()
            self._outlast_workers(path, wait_seconds)
        except OSError as error:
            self.release()
            raise LedgerError(f"{path} cannot be locked ({error.strerror}); choose a writable folder.") from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of both locks."""
        while self._handles:
            os.close(self._handles.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self.release()

    def _open(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._handles.append(handle)
        return handle

    def _say_who(self) -> None:
        os.ftruncate(self._driver, 0)
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        os.pwrite(self._driver, json.dumps(who).encode(), 0)

    def _outlast_workers(self, path: Path, wait_seconds: float) -> None:
        workers = self._open(worker_lock_path(path))
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(workers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LedgerBusy(
                        f"Workers of an earlier run still hold {path}; end those processes, then run again."
                    ) from error
                time.sleep(0.05)
                continue
            fcntl.flock(workers, fcntl.LOCK_SH)
            return


def driver_lock_path(path: Path) -> Path:
    """Return the file that the driver of a ledger locks."""
    return path.with_name(f"{path.name}.lock")


def worker_lock_path(path: Path) -> Path:
    """Return the file that the workers of a ledger lock, shared."""
    return path.with_name(f"{path.name}.workers")


def missing(path: Path) -> LedgerError:
    """Return the error of a ledger that is not there."""
    return LedgerError(f"There is no ledger at {path}; give the --ledger of an earlier `hubaudit fleet` run.")


def _connect(uri: str) -> sqlite3.Connection:
    # Autocommit: transactions are begun and ended by our own words, never implicitly.
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.resolve()))


def _check_shape(path: Path) -> None:
    """Refuse a file that is not SQLite, or that is shorter than it says: SQLite itself may notice only later."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return
    if not header.startswith(b"SQLite format 3\x00"):
        raise LedgerError(f"{path} is not a hubaudit ledger; nothing was changed in it. Give another --ledger.")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    # The count in the header is current only if the file was last written by a version that keeps it (bytes 92-95).
    kept = header[24:28] == header[92:96]
    if len(header) < _HEADER_BYTES or (kept and pages and not _has_log(path) and size < page * pages):
        raise damaged(path, "it has been cut short")


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def damaged(path: Path, how: str) -> LedgerError:
    """Return the error of a ledger that contradicts itself."""
    return LedgerError(
        f"The ledger {path} is damaged ({how}); it was left as it is. Restore a copy, or save what can be saved with "
        f"`sqlite3 {path.name} .recover | sqlite3 rescued.sqlite` and go on with that."
    )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of an existing ledger.

    Raises:
        LedgerError: it is not ours, or from a newer hubaudit.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
    if mark != APPLICATION_ID and (tables or version):
        raise LedgerError(f"{path} is a database of something else; nothing was changed in it. Give another --ledger.")
    if version > len(migrations()):
        raise LedgerError(
            f"{path} was written by a newer hubaudit (version {version} of the ledger; this one knows "
            f"{len(migrations())}); upgrade hubaudit, nothing was changed."
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
    version = _version(connection, path)
    if not fresh and path.stat().st_size <= CHECKED_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, str(verdict)[:200])
    steps = migrations()
    if 0 < version < len(steps):
        with closing(sqlite3.connect(path.with_name(f"{path.name}.v{version}.bak"))) as copy:
            connection.backup(copy)
    for number, sql in enumerate(steps[version:], start=version + 1):
        apply_migration(connection, number, sql)


def apply_migration(connection: sqlite3.Connection, number: int, sql: str) -> None:
    """Apply one migration and set the version, both or neither."""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {number};\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _holder(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 1000, 0))
        return f"process {int(who['pid'])} on {str(who['host'])[:100]!a}"
    except (ValueError, KeyError, TypeError, OSError):
        return "unknown process"


def _worded(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return (
            f"The ledger {path} could not be written: the disk is full. What is in it is safe; free some space and "
            "run the same command again."
        )
    if "locked" in text or "busy" in text:
        return (
            f"The ledger {path} has been locked by another program for {BUSY_SECONDS:.0f} s; close that program "
            "(a database shell?) and run the same command again."
        )
    if "readonly" in text:
        return f"The ledger {path} cannot be written; give it write permission, or another --ledger."
    if "unable to open" in text:
        return f"The ledger {path} cannot be opened; check its folder and permissions."
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return str(damaged(path, text))
    return f"The ledger {path} could not be used ({text}); run the same command again."
