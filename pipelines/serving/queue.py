"""The queue of ``hubaudit serve``: one SQLite file, so that nothing that was accepted is lost in a restart.

One process owns the file (a lock that dies with it). A repository has at most one job running, and events that ask
for the same thing become one job. The number of waiting jobs is bounded: above it, the sender is told to come again.
"""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pipelines.serving.events import Wanted
from scanner.errors import CouldNotConclude

VERSION = 1
APPLICATION_ID = 0x48554251  # "HUBQ"
KEPT_SECONDS = 30 * 86400
"""How long ended jobs are remembered: for so long, an event that is sent again is recognised."""
COMMENTS_A_DAY = 10
"""Requests by comment for one repository in 24 hours; anybody can write comments."""
DAY_SECONDS = 86400

Entered = Literal["queued", "merged", "known", "too_often", "full"]


class QueueError(CouldNotConclude):
    """The queue's file cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One audit to do. ``tries`` counts the attempts that ended without a result."""

    id: int
    repo_id: str
    revision: str
    cause: str
    thread: int | None
    tries: int

    @property
    def model(self) -> str:
        """The model as a user would type it."""
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


class Queue:
    """The jobs of one server. Thread-safe; ``now`` is always Unix time in seconds."""

    def __init__(self, path: Path, *, limit: int = 1000) -> None:
        """Open or create the file; jobs that a stopped server left running are due again.

        Args:
            path: the SQLite file; ``<path>.lock`` lies beside it.
            limit: how many jobs may wait.

        Raises:
            QueueError: another server uses it, or it is damaged, or not ours, or newer.
            OSError: the folder is not writable.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limit = limit
        self._lock = threading.Lock()
        self._held = path.with_name(f"{path.name}.lock").open("a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._held.close()
            raise QueueError(f"{path} is in use by another `hubaudit serve`; give this one another --queue.") from error
        try:
            self._db = _open(path)
        except BaseException:
            self._held.close()
            raise

    def enter(self, wanted: Wanted, *, now: float) -> Entered:
        """Enter a job, unless it is there already, merges with one that waits, or may not be entered."""
        with self._writing() as db:
            known = db.execute(
                "SELECT id, state FROM jobs WHERE repo_id = ? AND cause = ?", (wanted.repo_id, wanted.cause)
            ).fetchone()
            if known is not None and known["state"] != "failed":
                return "known"
            waiting = db.execute(
                "SELECT id FROM jobs WHERE repo_id = ? AND revision = ? AND state = 'due' AND thread IS NULL",
                (wanted.repo_id, wanted.revision),
            ).fetchone()
            if waiting is not None and wanted.thread is None:
                # It has not begun, so it will read the new head anyhow.
                db.execute("UPDATE OR REPLACE jobs SET cause = ? WHERE id = ?", (wanted.cause, waiting["id"]))
                return "merged"
            if _count(db, "state = 'due'") >= self._limit:
                return "full"
            recent = "thread IS NOT NULL AND repo_id = ? AND received_at > ?"
            if wanted.thread is not None and _count(db, recent, wanted.repo_id, now - DAY_SECONDS) >= COMMENTS_A_DAY:
                return "too_often"
            db.execute(
                "INSERT OR REPLACE INTO jobs (repo_id, revision, cause, thread, received_at, due_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (wanted.repo_id, wanted.revision, wanted.cause, wanted.thread, now, now),
            )
            return "queued"

    def claim(self, *, now: float) -> Job | None:
        """Take the oldest job that is due and whose repository has none running; None when there is none."""
        with self._writing() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE state = 'due' AND due_at <= ? AND repo_id NOT IN "
                "(SELECT repo_id FROM jobs WHERE state = 'running') ORDER BY due_at, id LIMIT 1",
                (now,),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (row["id"],))
            return Job(
                id=row["id"],
                repo_id=row["repo_id"],
                revision=row["revision"],
                cause=row["cause"],
                thread=row["thread"],
                tries=row["tries"],
            )

    def done(self, job: Job, note: str, *, now: float) -> None:
        """End a job, and forget those that ended long ago."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET state = 'done', ended_at = ?, note = ? WHERE id = ?", (now, note, job.id))
            db.execute("DELETE FROM jobs WHERE state IN ('done', 'failed') AND ended_at < ?", (now - KEPT_SECONDS,))

    def failed(self, job: Job, note: str, *, now: float, again_at: float | None) -> None:
        """End an attempt without a result; the job is due again at ``again_at``, or never when that is None."""
        state, due_at = ("failed", now) if again_at is None else ("due", again_at)
        with self._writing() as db:
            db.execute(
                "UPDATE jobs SET state = ?, tries = tries + 1, due_at = ?, ended_at = ?, note = ? WHERE id = ?",
                (state, due_at, now, note, job.id),
            )

    def give_back(self, job: Job) -> None:
        """Make a job that was interrupted due again, as if it had not begun."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET state = 'due' WHERE id = ?", (job.id,))

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by state."""
        with self._reading() as db:
            found = {
                row["state"]: row["n"] for row in db.execute("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state")
            }
        return {state: int(found.get(state, 0)) for state in ("due", "running", "done", "failed")}

    def oldest_due_seconds(self, *, now: float) -> float:
        """Return for how long the job that has waited longest has been due; 0 when none waits."""
        with self._reading() as db:
            row = db.execute("SELECT MIN(due_at) FROM jobs WHERE state = 'due'").fetchone()
        return max(0.0, now - row[0]) if row[0] is not None else 0.0

    def close(self) -> None:
        """Close the file and let another server have it."""
        with self._lock:
            self._db.close()
            self._held.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _count(db: sqlite3.Connection, where: str, *values: object) -> int:
    return int(db.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", values).fetchone()[0])  # noqa: S608


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, make the table, and make due what was running.

    Raises:
        QueueError: it is damaged, not ours, or newer.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.row_factory = sqlite3.Row
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        mark = int(db.execute("PRAGMA application_id").fetchone()[0])
        tables = int(db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
        if (mark != APPLICATION_ID and (tables or version)) or version > VERSION:
            raise QueueError(f"{path} is of something else, or of a newer hubaudit; give another --queue.")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if version == 0:
            schema = files(__package__).joinpath("queue.sql").read_text(encoding="utf-8")
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            db.executescript(f"BEGIN; {schema} {marks} COMMIT;")
        db.execute("UPDATE jobs SET state = 'due' WHERE state = 'running'")
    except sqlite3.DatabaseError as error:
        db.close()
        raise QueueError(f"{path} is damaged ({error}); move it away, and start again.") from error
    except BaseException:
        db.close()
        raise
    return db
