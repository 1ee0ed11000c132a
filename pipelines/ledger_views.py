"""What a ledger knows, for reading: counts, the worst first, families, the trend, and single reports.

Opens the file read-only, also while a driver writes to it. Everything is yielded row by row, so that a ledger of
millions needs no more memory than one of ten.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipelines.ledger_file import LedgerError, damaged, ledger_errors, open_reader
from pipelines.ledger_selection import Wanted

MAX_REPORT_BYTES = 256 << 20
OUTCOMES = ("fail", "review", "inconclusive", "pass")
"""Verdicts, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Distinct repositories by state.

    One with several wanted revisions counts once: as pending while any of them is, as failed when any has.
    """

    done: int
    failed: int
    pending: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.failed + self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run, for the trend: Unix times, ``ended_at`` None while it runs, and jobs by verdict when it ended."""

    id: int
    engine: str
    started_at: float
    ended_at: float | None
    counts: Mapping[str, int]
    attempts: int
    requests: int
    bytes_read: int


class LedgerReader:
    """The reading side. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open a ledger; an older one is brought up to date first.

        Raises:
            LedgerError: there is none, or it cannot be read.
        """
        self.path = path
        self._db = open_reader(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self._db.close()

    def counts(self) -> Counts:
        """Count the repositories by state."""
        row = self._one(_COUNTS)
        return Counts(done=row["done"] or 0, failed=row["failed"] or 0, pending=row["pending"] or 0)

    def revision(self, one: Wanted) -> str | None:
        """Return the commit of a repository's present result, or None."""
        with ledger_errors(self.path):
            row = self._db.execute(
                "SELECT results.revision FROM jobs JOIN results ON results.id = jobs.result_id "
                "WHERE jobs.repo_id = ? AND jobs.wanted = ? AND jobs.state = 'done'",
                (one.repo_id, one.wanted),
            ).fetchone()
        return None if row is None else str(row[0])

    def last_start(self) -> float | None:
        """Return when the last run that ended had begun (Unix time), or None."""
        row = self._one("SELECT MAX(started_at) AS started FROM runs WHERE ended_at IS NOT NULL")
        return None if row["started"] is None else float(row["started"])

    def verdicts(self) -> dict[str, int]:
        """Count the present verdicts, and ``failed``, by job."""
        found = {row["outcome"]: row["n"] for row in self._rows(_VERDICTS)}
        return {name: found[name] for name in (*OUTCOMES, "failed") if name in found}

    def totals(self) -> dict[str, float]:
        """Sum what all attempts have cost: attempts, requests, bytes and seconds of work."""
        row = self._one(
            "SELECT COUNT(*) AS attempts, COALESCE(SUM(requests), 0) AS requests, "
            "COALESCE(SUM(bytes_read), 0) AS bytes_read, COALESCE(SUM(seconds), 0) AS seconds FROM attempts"
        )
        return dict(row)

    def failures(self) -> list[tuple[str, int, str]]:
        """Return cause, count and one example's reason, the most frequent first."""
        rows = self._rows(
            "SELECT cause, COUNT(*) AS n, MIN(reason) AS reason FROM jobs WHERE state = 'failed' "
            "GROUP BY cause ORDER BY n DESC, cause"
        )
        return [(row["cause"] or "unknown", row["n"], row["reason"] or "") for row in rows]

    def results(self, *, limit: int = -1, family: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the present result of each job, the worst first: by verdict, then score, then name.

        ``findings`` is a list of dicts, ``pins`` a dict; the report is not part of it.
        """
        for row in self._rows(_WORST, {"limit": limit, "family": family}):
            yield {**dict(row), "findings": json.loads(row["findings"]), "pins": json.loads(row["pins"])}

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Yield every job with its present result, if any, in the order in which they were entered."""
        yield from (dict(row) for row in self._rows(_JOBS))

    def families(self, limit: int) -> list[dict[str, Any]]:
        """Return the families with the most members: base, members, and members by verdict."""
        return [dict(row) for row in self._rows(_FAMILIES, {"limit": limit})]

    def rules(self, limit: int) -> list[tuple[str, str, int]]:
        """Return rule id, a title and how many repositories it was found in, the most frequent first."""
        rows = self._rows(_RULES, {"limit": limit})
        return [(row["rule_id"], row["title"], row["n"]) for row in rows]

    def runs(self) -> list[RunRow]:
        """Return all runs, the oldest first."""
        return [
            RunRow(
                id=row["id"],
                engine=row["engine"],
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                counts=json.loads(row["counts"]),
                attempts=row["attempts"],
                requests=row["requests"],
                bytes_read=row["bytes_read"],
            )
            for row in self._rows(_RUNS)
        ]

    def report(self, repo_id: str) -> bytes:
        """Return the JSON report of a repository's present result.

        Raises:
            LedgerError: there is none, or it is damaged.
        """
        with ledger_errors(self.path):
            row = self._db.execute(
                "SELECT body FROM jobs JOIN reports ON reports.result_id = jobs.result_id WHERE repo_id = ? "
                "ORDER BY wanted LIMIT 1",
                (repo_id,),
            ).fetchone()
        if row is None:
            raise LedgerError(f"{self.path} has no report of {repo_id!a}; see `hubaudit fleet status`.")
        return inflate(row["body"], self.path)

    def reports(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield every present result with its report (JSON), in the order in which jobs were entered."""
        for row in self._rows(_REPORTS):
            fields = dict(row)
            body = inflate(fields.pop("body"), self.path)
            yield fields, body

    def _rows(self, sql: str, values: Mapping[str, Any] | None = None) -> Iterator[sqlite3.Row]:
        with ledger_errors(self.path), closing(self._db.execute(sql, values or {})) as cursor:
            yield from cursor

    def _one(self, sql: str) -> sqlite3.Row:
        with ledger_errors(self.path):
            row: sqlite3.Row = self._db.execute(sql).fetchone()
            return row


def inflate(body: bytes, path: Path) -> bytes:
    """Decompress a report.

    Raises:
        LedgerError: it is damaged, or larger than ``MAX_REPORT_BYTES``.
    """
    try:
        machine = zlib.decompressobj()
        raw = machine.decompress(body, MAX_REPORT_BYTES)
    except zlib.error as error:
        raise damaged(path, "a report cannot be decompressed") from error
    if not machine.eof:
        raise damaged(path, "a report is cut short or too large")
    return raw


_COUNTS = """
WITH repos AS (
    SELECT repo_id, SUM(state IN ('due', 'claimed')) AS open, SUM(state = 'failed') AS failed
    FROM jobs GROUP BY repo_id
)
SELECT SUM(open > 0) AS pending, SUM(open = 0 AND failed > 0) AS failed, SUM(open = 0 AND failed = 0) AS done FROM repos
"""

_VERDICTS = """
SELECT CASE WHEN jobs.state = 'failed' THEN 'failed' ELSE results.outcome END AS outcome, COUNT(*) AS n
FROM jobs LEFT JOIN results ON results.id = jobs.result_id
WHERE jobs.state = 'failed' OR results.id IS NOT NULL GROUP BY 1
"""

_SEVERITY_OF_OUTCOME = (
    "CASE results.outcome WHEN 'fail' THEN 0 WHEN 'review' THEN 1 WHEN 'inconclusive' THEN 2 ELSE 3 END"
)

_WORST = f"""
SELECT results.*, jobs.wanted, jobs.family FROM jobs JOIN results ON results.id = jobs.result_id
WHERE :family IS NULL OR results.base_repo = :family
ORDER BY {_SEVERITY_OF_OUTCOME}, results.score DESC, results.repo_id LIMIT :limit
"""  # noqa: S608

_JOBS = """
SELECT jobs.id AS job_id, jobs.repo_id, jobs.wanted, jobs.state, jobs.reason, jobs.cause, jobs.size_bytes,
       results.revision, results.ending, results.problem, results.outcome, results.score, results.false_positive_rate,
       results.relation, results.status, results.base_repo, results.base_revision, results.parameters_compared,
       results.parameters_total, results.bytes_read, results.requests, results.seconds, results.created_at,
       results.digest, results.findings, results.rules, results.tool
FROM jobs LEFT JOIN results ON results.id = jobs.result_id ORDER BY jobs.id
"""

_FAMILIES = """
SELECT results.base_repo AS base, COUNT(*) AS members, SUM(results.outcome = 'fail') AS fail,
       SUM(results.outcome = 'review') AS review, SUM(results.outcome = 'inconclusive') AS inconclusive,
       SUM(results.outcome = 'pass') AS pass, MAX(results.score) AS worst_score
FROM jobs JOIN results ON results.id = jobs.result_id WHERE results.base_repo IS NOT NULL
GROUP BY results.base_repo ORDER BY fail + review DESC, members DESC, base LIMIT :limit
"""

_RULES = """
SELECT json_extract(note.value, '$.rule_id') AS rule_id, MIN(json_extract(note.value, '$.title')) AS title,
       COUNT(DISTINCT jobs.id) AS n
FROM jobs JOIN results ON results.id = jobs.result_id, json_each(results.findings) AS note
GROUP BY 1 ORDER BY n DESC, rule_id LIMIT :limit
"""

_RUNS = """
SELECT runs.id, runs.engine, runs.started_at, runs.ended_at, runs.counts, COUNT(attempts.id) AS attempts,
       COALESCE(SUM(attempts.requests), 0) AS requests, COALESCE(SUM(attempts.bytes_read), 0) AS bytes_read
FROM runs LEFT JOIN attempts ON attempts.run_id = runs.id GROUP BY runs.id ORDER BY runs.id
"""

_REPORTS = """
SELECT jobs.repo_id, results.revision, results.digest, reports.body
FROM jobs JOIN results ON results.id = jobs.result_id JOIN reports ON reports.result_id = results.id ORDER BY jobs.id
"""
