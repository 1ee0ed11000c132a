"""The ledger of a fleet: which repositories are due, what each attempt came to, and what was found.

One process writes (``pipelines.ledger_file.DriverLock``), any number read (``pipelines.ledger_views``). A **job** is
one repository at one wanted revision; it is *due*, *claimed*, *done* or *failed*. An **attempt** is one try at a job.
A **result** is one finished scan; there is at most one for the same commits (of the subject and of everything it was
held against), the same rules and the same version of hubaudit, and its report is kept with it. A **run** is one
invocation.

Claims need not survive a crash: whoever opens the ledger next holds the lock, hence nobody is working, hence every
claimed job is due again.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pipelines.engines.seam import Died, Failed, ScanJob, Scanned, Unchanged
from pipelines.ledger_file import DriverLock, ledger_errors, open_driver
from pipelines.ledger_selection import Run, Wanted, batches, rank_due, select_one

SELECT_BATCH = 1000
"""Selected repositories per transaction."""


class Ledger:
    """The writing side. Use as a context manager; methods that write belong inside ``writing``."""

    def __init__(self, path: Path, *, create: bool = True, wait_seconds: float = 60.0) -> None:
        """Lock and open a ledger; what an earlier driver left claimed stays so until ``recover``.

        Args:
            path: the SQLite file; ``<path>.lock``, ``<path>.workers`` and ``<path>-wal`` lie beside it.
            create: make it when it does not exist.
            wait_seconds: how long workers of a killed driver may take to end.

        Raises:
            LedgerBusy: another driver is at work.
            LedgerError: it cannot be used.
        """
        self.path = path
        self._lock = DriverLock(path, wait_seconds=wait_seconds)
        try:
            self._db = open_driver(path, create=create)
        except BaseException:
            self._lock.release()
            raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: everything in the block is kept, or nothing of it.

        Raises:
            LedgerError: the disk is full, or somebody else has locked the file.
        """
        with ledger_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def begin_run(
        self,
        *,
        selection: Mapping[str, Any],
        engine: str,
        rules: str,
        tool: str,
        now: float,
        salt: int = 0,
    ) -> Run:
        """Open a run, or go on with the last one if it asked for the same and never ended.

        ``rules`` is the digest of rule book and profile, ``tool`` the version, ``now`` Unix time; ``salt`` is used if
        the run is new.
        """
        asked = json.dumps(selection, sort_keys=True)
        with self.writing():
            last = self._db.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone()
            same = last is not None and (last["selection"], last["rules"], last["tool"]) == (asked, rules, tool)
            if same and last["ended_at"] is None:
                self._db.execute("UPDATE runs SET engine = ? WHERE id = ?", (engine, last["id"]))
                started = float(last["started_at"])
                return Run(id=last["id"], rules=rules, tool=tool, resumed=True, salt=last["salt"], started_at=started)
            made = self._db.execute(
                "INSERT INTO runs (selection, engine, rules, tool, started_at, salt) VALUES (?, ?, ?, ?, ?, ?)",
                (asked, engine, rules, tool, now, salt),
            )
            return Run(id=_row_id(made), rules=rules, tool=tool, resumed=False, salt=salt, started_at=now)

    def end_run(self, run: Run, *, counts: Mapping[str, int], now: float) -> None:
        """Close a run that has nothing left to do. ``counts`` are for the trend."""
        with self.writing():
            self._db.execute(
                "UPDATE runs SET ended_at = ?, counts = ? WHERE id = ?",
                (now, json.dumps(counts, sort_keys=True), run.id),
            )

    def recover(self, *, now: float) -> int:
        """Make everything that a killed driver left claimed due again; return how many attempts it had under way.

        An interrupted attempt counts neither as a failure nor as a death: nothing says that the job is to blame.
        """
        with self.writing():
            self._db.execute("UPDATE jobs SET state = 'due' WHERE state = 'claimed'")
            cut = self._db.execute(
                "UPDATE attempts SET outcome = 'interrupted', ended_at = ? WHERE outcome = 'running'", (now,)
            )
            return cut.rowcount

    def select(self, run: Run, wanted: Iterable[Wanted], still: Callable[[Mapping[str, str]], bool]) -> int:
        """Enter the repositories of a run and decide which are due; return how many entries were read.

        A repository that was scanned is due again when its commit has moved, when it is not known whether it has, or
        when the rules or the tool have changed, and also when ``still`` denies that the heads it was held against
        (repository → commit) are where they were. One that failed is due again when its commit or the tool has
        changed; ``retry`` does it by hand. What this very run has finished already is left alone.
        """
        entries = 0
        for batch in batches(wanted, SELECT_BATCH):
            with self.writing():
                for one in batch:
                    select_one(self._db, run, one, still)
            entries += len(batch)
        return entries

    def rank(self, run: Run) -> None:
        """Order the due jobs: family by family, the one with the largest job first, and the largest job first in it.

        Long jobs begin early, so that the run does not end with one of them (Graham 1969, the LPT rule); a family
        stays together, so that its base is read while the cache still holds it. Unknown sizes count as average.
        """
        with self.writing():
            rank_due(self._db, run)

    def claim(self, run: Run, limit: int, *, now: float) -> list[ScanJob]:
        """Claim up to ``limit`` jobs that are due, in order of rank, each with a new attempt."""
        rows = self._db.execute(_CLAIM, {"run": run.id, "now": now, "limit": limit}).fetchall()
        claimed = []
        for row in rows:
            self._db.execute("UPDATE jobs SET state = 'claimed' WHERE id = ?", (row["id"],))
            attempt = self._db.execute(
                "INSERT INTO attempts (job_id, run_id, started_at) VALUES (?, ?, ?)", (row["id"], run.id, now)
            )
            same_rules = (row["rules"], row["tool"]) == (run.rules, run.tool)
            claimed.append(
                ScanJob(
                    job_id=row["id"],
                    attempt_id=_row_id(attempt),
                    repo_id=row["repo_id"],
                    wanted=row["wanted"],
                    listed=row["listed"],
                    described=json.loads(row["described"]),
                    known=json.loads(row["pins"]) if same_rules else {},
                    size_bytes=row["size_bytes"],
                    alone=bool(row["alone"]),
                )
            )
        return claimed

    def next_due(self, run: Run) -> float | None:
        """Return when the next job is due (Unix time), or None when none is."""
        with ledger_errors(self.path):
            row = self._db.execute(
                "SELECT MIN(due_at) FROM jobs WHERE run_id = ? AND state = 'due'", (run.id,)
            ).fetchone()
        return None if row[0] is None else float(row[0])

    def backlog(self, run: Run) -> tuple[int, int, int]:
        """Return how many jobs a run has, how many of them are due, and the bytes of those (unknown sizes: average)."""
        with ledger_errors(self.path):
            row = self._db.execute(
                "SELECT COUNT(*), SUM(state = 'due'), SUM(CASE WHEN state = 'due' THEN size_bytes END), "
                "SUM(state = 'due' AND size_bytes IS NOT NULL) FROM jobs WHERE run_id = ?",
                (run.id,),
            ).fetchone()
        total, due, known_bytes, sized = (int(value or 0) for value in row)
        return total, due, known_bytes * due // sized if sized else 0

    def last_start(self) -> float | None:
        """Return when the last run that ended had begun (Unix time), or None."""
        with ledger_errors(self.path):
            row = self._db.execute("SELECT MAX(started_at) FROM runs WHERE ended_at IS NOT NULL").fetchone()
        return None if row[0] is None else float(row[0])

    def scanned(self, run: Run, job: ScanJob, found: Scanned, *, now: float, worker: str = "") -> bool:
        """Keep a finished scan; return False when the very same one is there already (its report then stays)."""
        columns = {name: value for name, value in asdict(found).items() if name not in _APART}
        columns |= {
            "job_id": job.job_id,
            "run_id": run.id,
            "pins": json.dumps(dict(found.pins), sort_keys=True),
            "rules": run.rules,
            "tool": run.tool,
            "findings": json.dumps([asdict(note) for note in found.findings]),
        }
        columns = {name: _storable(value) for name, value in columns.items()}
        names = ", ".join(columns)
        made = self._db.execute(
            f"INSERT INTO results ({names}) VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO NOTHING",  # noqa: S608
            tuple(columns.values()),
        )
        new = made.rowcount == 1
        if new:
            result_id = _row_id(made)
            self._db.execute("INSERT INTO reports (result_id, body) VALUES (?, ?)", (result_id, found.report))
        else:
            key = (found.repo_id, found.revision, columns["pins"], run.rules, run.tool)
            result_id = self._db.execute(
                "SELECT id FROM results WHERE (repo_id, revision, pins, rules, tool) = (?, ?, ?, ?, ?)", key
            ).fetchone()[0]
        self._settle(run, job, "done", result_id=result_id)
        ending = "scanned" if new else "repeated"
        self._close(job, ending, now, worker, requests=found.requests, seconds=found.seconds, n_bytes=found.bytes_read)
        return new

    def unchanged(self, run: Run, job: ScanJob, found: Unchanged, *, now: float, worker: str = "") -> None:
        """Note that a job's last result still holds."""
        self._settle(run, job, "done")
        self._close(job, "unchanged", now, worker, requests=found.requests)

    def failed(self, run: Run, job: ScanJob, why: Failed, *, now: float, worker: str = "") -> None:
        """Give a job up, with the reason."""
        self._settle(run, job, "failed", reason=why.reason, cause=why.cause)
        self._close(job, "failed", now, worker, reason=why.reason, requests=why.requests, seconds=why.seconds)

    def defer(self, job: ScanJob, why: Failed, *, counted: bool, now: float, worker: str = "") -> int:
        """Make a job that failed for now due again; return how often that has happened to it.

        ``counted`` is false when the whole Hub was out of reach, which is not the job's fault.
        """
        self._db.execute(
            "UPDATE jobs SET state = 'due', due_at = ?, tries = tries + ?, reason = ?, cause = ? WHERE id = ?",
            (now, int(counted), _storable(why.reason), _storable(why.cause), job.job_id),
        )
        self._close(job, "failed", now, worker, reason=why.reason, requests=why.requests, seconds=why.seconds)
        return int(self._db.execute("SELECT tries FROM jobs WHERE id = ?", (job.job_id,)).fetchone()[0])

    def postpone(self, job: ScanJob, due_at: float) -> None:
        """Set when a deferred job is due."""
        self._db.execute("UPDATE jobs SET due_at = ? WHERE id = ?", (due_at, job.job_id))

    def died(self, job: ScanJob, how: Died, *, now: float, worker: str = "") -> int:
        """Make a job whose worker ended due again; return how many workers it has certainly ended.

        While it is not certain which of several jobs ended the worker, each of them is next tried alone.
        """
        self._db.execute(
            "UPDATE jobs SET state = 'due', deaths = deaths + ?, alone = ? WHERE id = ?",
            (int(how.guilty), int(not how.guilty or job.alone), job.job_id),
        )
        self._close(job, "died", now, worker, reason=how.why)
        return int(self._db.execute("SELECT deaths FROM jobs WHERE id = ?", (job.job_id,)).fetchone()[0])

    def give_back(self, job: ScanJob, *, now: float) -> None:
        """Make a claimed job that was never begun due again."""
        self._db.execute("UPDATE jobs SET state = 'due' WHERE id = ?", (job.job_id,))
        self._close(job, "returned", now, "")

    def attempt(self, job_id: int, attempt_id: int) -> tuple[Run, ScanJob] | None:
        """Return the run and job of an attempt that has not ended well yet, or None: for answers that come late."""
        with ledger_errors(self.path):
            row = self._db.execute(
                "SELECT jobs.*, runs.id AS run, runs.rules AS run_rules, runs.tool AS run_tool FROM attempts "
                "JOIN jobs ON jobs.id = attempts.job_id JOIN runs ON runs.id = attempts.run_id "
                "WHERE attempts.id = ? AND jobs.id = ? AND attempts.outcome IN ('running', 'interrupted')",
                (attempt_id, job_id),
            ).fetchone()
        if row is None:
            return None
        run = Run(id=row["run"], rules=row["run_rules"], tool=row["run_tool"], resumed=True)
        return run, ScanJob(job_id=job_id, attempt_id=attempt_id, repo_id=row["repo_id"], wanted=row["wanted"])

    def retry(self, *, cause: str | None = None, repo_ids: Iterable[str] = ()) -> int:
        """Make failed jobs due again (all, those that failed for one cause, or those named); return how many."""
        names = list(repo_ids)
        with self.writing():
            changed = self._db.execute(
                "UPDATE jobs SET state = 'due', due_at = 0, tries = 0, deaths = 0, alone = 0, settled_in = NULL "
                "WHERE state = 'failed' AND (?1 IS NULL OR cause = ?1) "
                "AND (?2 = '[]' OR repo_id IN (SELECT value FROM json_each(?2)))",
                (cause, json.dumps(names)),
            )
            return changed.rowcount

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file, so that a copy of the file alone is whole."""
        with ledger_errors(self.path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._db.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open database, for the queries of ``pipelines.ledger_views``."""
        return self._db

    def _settle(
        self,
        run: Run,
        job: ScanJob,
        state: str,
        *,
        result_id: int | None = None,
        reason: str | None = None,
        cause: str | None = None,
    ) -> None:
        self._db.execute(
            "UPDATE jobs SET state = ?, settled_in = ?, result_id = COALESCE(?, result_id), reason = ?, cause = ?, "
            "tries = 0, deaths = 0, alone = 0, due_at = 0 WHERE id = ?",
            (state, run.id, result_id, _storable(reason), _storable(cause), job.job_id),
        )

    def _close(
        self,
        job: ScanJob,
        outcome: str,
        now: float,
        worker: str,
        *,
        reason: str | None = None,
        requests: int = 0,
        n_bytes: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self._db.execute(
            "UPDATE attempts SET outcome = ?, ended_at = ?, worker = ?, reason = ?, requests = ?, bytes_read = ?, "
            "seconds = ? WHERE id = ?",
            (outcome, now, worker, _storable(reason), requests, n_bytes, seconds, job.attempt_id),
        )


_APART = frozenset({"report", "pins", "findings", "trouble"})
"""Fields of a scan that are no columns of ``results``, or not as they are."""

_CLAIM = """
SELECT jobs.*, results.pins, results.rules, results.tool
FROM jobs LEFT JOIN results ON results.id = jobs.result_id
WHERE jobs.run_id = :run AND jobs.state = 'due' AND jobs.due_at <= :now
ORDER BY jobs.rank, jobs.id LIMIT :limit
"""


def _storable(value: Any) -> Any:
    """Return text that SQLite can hold: strangers write halves of characters, for which UTF-8 has no form."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _row_id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
