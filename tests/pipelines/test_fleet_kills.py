"""Whatever is killed, whenever: every repository ends with one record, and nothing finished is scanned again."""

import os
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from killing import kill_and_resume

JOBS = 250
KILLS = 5


@pytest.mark.slow
def test_every_repository_ends_with_one_record(tmp_path: Path) -> None:
    ids, journal, ledger = tmp_path / "ids.txt", tmp_path / "journal.txt", tmp_path / "ledger.sqlite"
    ids.write_text("".join(f"calm/{number}\n" for number in range(JOBS)))
    command = [sys.executable, "-m", "lightfleet", str(ledger), str(ids), str(journal), "--pause", "0.08"]
    paths = os.pathsep.join(path for path in sys.path if path)
    killed = kill_and_resume(
        command,
        kills=KILLS,
        targets={"driver": 1.0, "worker": 1.0},
        seed=3,
        least_seconds=0.5,
        most_seconds=1.1,
        environment={"PYTHONPATH": paths},
        limit_seconds=120,
    )
    assert killed.pop("ended", 0) == 0
    assert sum(killed.values()) == KILLS
    check(ledger, journal)


_BEGUN_AFTER_THE_RESULT = """
SELECT COUNT(*) FROM attempts AS late JOIN attempts AS kept
ON late.job_id = kept.job_id AND late.id > kept.id AND kept.outcome = 'scanned'
"""
_CUT_SHORT = """
SELECT jobs.repo_id, COUNT(*) FROM attempts JOIN jobs ON jobs.id = attempts.job_id
WHERE attempts.outcome IN ('died', 'interrupted') GROUP BY jobs.id
"""


def check(ledger: Path, journal: Path) -> None:
    with closing(sqlite3.connect(ledger)) as db:
        states = dict(db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        results = db.execute("SELECT COUNT(*), COUNT(DISTINCT repo_id || revision) FROM results").fetchone()
        reports = db.execute("SELECT COUNT(*) FROM reports").fetchone()[0]
        repeated = db.execute("SELECT COUNT(*) FROM attempts WHERE outcome IN ('repeated', 'running')").fetchone()[0]
        runs = db.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
        after = db.execute(_BEGUN_AFTER_THE_RESULT).fetchone()[0]
        cut = Counter(dict(db.execute(_CUT_SHORT)))
    assert states == {"done": JOBS}
    assert results == (JOBS, JOBS)
    assert (reports, repeated, runs) == (JOBS, 0, 1)
    assert after == 0
    # The workers' own word: whoever finished a job twice was killed the first time, before the answer was kept.
    finished = Counter(journal.read_text().split())
    assert len(finished) == JOBS
    for name, times in finished.items():
        assert times <= 1 + cut[name.partition("@")[0]]
    assert sum(finished.values()) <= JOBS + KILLS
    assert not list(ledger.parent.glob("*.spool/*"))
