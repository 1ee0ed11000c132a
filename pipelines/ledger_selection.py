"""Which repositories of a selection are due: entering them into the ledger, and the order in which they are scanned."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One repository of a selection.

    ``wanted`` is the revision asked for ("" for the head of main). ``listed`` (the head commit), ``size_bytes`` (of
    the weights), ``family`` (the declared base) and ``described`` are what a listing said; None or empty where
    nobody has asked the Hub yet.
    """

    repo_id: str
    wanted: str = ""
    listed: str | None = None
    size_bytes: int | None = None
    family: str | None = None
    described: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One invocation.

    ``salt`` is the secret number from which its scans draw the rows that they sample, ``started_at`` the Unix time
    that its reports bear; both stay when it is ``resumed``, that is, when it goes on with one that did not end.
    """

    id: int
    rules: str
    tool: str
    resumed: bool
    salt: int = 0
    started_at: float = 0.0


def select_one(db: sqlite3.Connection, run: Run, one: Wanted, still: Callable[[Mapping[str, str]], bool]) -> None:
    """Enter one repository, or decide whether it is due again; see ``Ledger.select``."""
    row = db.execute(_KNOWN, (one.repo_id, one.wanted)).fetchone()
    described = json.dumps(dict(one.described), sort_keys=True)
    if row is None:
        db.execute(
            "INSERT INTO jobs (repo_id, wanted, listed, size_bytes, family, described, run_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (one.repo_id, one.wanted, one.listed, one.size_bytes, one.family, described, run.id),
        )
        return
    if row["settled_in"] == run.id or row["state"] == "claimed":
        return
    again = row["state"] == "due" or _is_due_again(run, one, row, still)
    facts = (one.listed, one.size_bytes, one.family, described, run.id)
    state = ("due", None) if again else (row["state"], run.id)
    db.execute(
        "UPDATE jobs SET listed = ?, size_bytes = COALESCE(?, size_bytes), family = COALESCE(?, family), "
        "described = ?, run_id = ?, state = ?, settled_in = ?, "
        "due_at = CASE WHEN ? THEN 0 ELSE due_at END, tries = CASE WHEN ? THEN 0 ELSE tries END WHERE id = ?",
        (*facts, *state, not run.resumed, not run.resumed, row["id"]),
    )


def rank_due(db: sqlite3.Connection, run: Run) -> None:
    """Order the due jobs of a run; see ``Ledger.rank``."""
    db.execute(_RANK, {"run": run.id})


def batches(items: Iterable[Wanted], size: int) -> Iterator[list[Wanted]]:
    """Yield the items in lists of at most ``size``."""
    batch: list[Wanted] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_due_again(run: Run, one: Wanted, row: sqlite3.Row, still: Callable[[Mapping[str, str]], bool]) -> bool:
    """Whether a job that is done or failed has to be looked at again."""
    if row["state"] == "failed":
        return row["settled_tool"] != run.tool or (one.listed is not None and one.listed != row["listed"])
    if (row["rules"], row["tool"]) != (run.rules, run.tool):
        return True
    if one.listed is None or one.listed != row["revision"]:
        return True
    return not still({repo: commit for repo, commit in json.loads(row["pins"]).items() if repo != one.repo_id})


_KNOWN = """
SELECT jobs.id, jobs.state, jobs.listed, jobs.settled_in, results.revision, results.pins, results.rules, results.tool,
       runs.tool AS settled_tool
FROM jobs LEFT JOIN results ON results.id = jobs.result_id LEFT JOIN runs ON runs.id = jobs.settled_in
WHERE jobs.repo_id = ? AND jobs.wanted = ?
"""

_RANK = """
WITH due AS (
    SELECT id, COALESCE(family, 'job ' || id) AS family,
           COALESCE(size_bytes, AVG(size_bytes) OVER (), 0) AS size
    FROM jobs WHERE run_id = :run AND state = 'due'
), led AS (
    SELECT id, family, size, MAX(size) OVER (PARTITION BY family) AS largest FROM due
), ordered AS (
    SELECT id, ROW_NUMBER() OVER (ORDER BY largest DESC, family, size DESC, id) AS place FROM led
)
UPDATE jobs SET rank = ordered.place FROM ordered WHERE jobs.id = ordered.id
"""
