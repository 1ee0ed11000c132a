import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import NOW, begin, dump, select
from lightjobs import scanned

from pipelines.ledger import Ledger
from pipelines.ledger_file import (
    APPLICATION_ID,
    DriverLock,
    LedgerBusy,
    LedgerError,
    apply_migration,
    migrations,
    worker_lock_path,
)
from pipelines.ledger_views import LedgerReader

GOLDENS = Path(__file__).resolve().parents[1] / "goldens" / "ledger"
VERSIONS = sorted(int(path.stem.removeprefix("v")) for path in GOLDENS.glob("v*.sql"))


def restore(path: Path, version: int) -> None:
    """Make a ledger as an earlier release left it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript((GOLDENS / f"v{version}.sql").read_text())


def filled(path: Path, jobs: int = 3) -> Path:
    with Ledger(path) as ledger:
        run = begin(ledger)
        select(ledger, run, *(f"calm/{number}" for number in range(jobs)))
        with ledger.writing():
            for job in ledger.claim(run, jobs, now=NOW):
                ledger.scanned(run, job, scanned(job, report=os.urandom(3000)), now=NOW)
    return path


def test_every_earlier_version_has_a_golden() -> None:
    assert list(range(1, len(migrations()))) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_an_earlier_ledger_is_brought_up_to_date_with_all_it_holds(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    restore(path, version)
    with Ledger(path) as ledger:
        assert ledger.recover(now=NOW) == 1
        run = begin(ledger, rules="r1", tool="1")
        select(ledger, run, "org/claimed", "org/due", "org/done")
        with ledger.writing():
            claimed = ledger.claim(run, 9, now=NOW)
        # Nobody knows whether org/done has moved: it is looked at again, with what is known of it.
        assert {job.repo_id: job.known for job in claimed} == {
            "org/claimed": {},
            "org/due": {},
            "org/done": {"org/base": "b" * 40, "org/done": "a" * 40},
        }
    with LedgerReader(path) as reader:
        assert reader.counts().total == 4
        assert reader.report("org/done") == b'{"v": 1}'
        assert reader.failures() == [("RepoGated", 1, "It is gated.")]
        (result,) = reader.results()
        assert (result["outcome"], result["score"]) == ("review", 0.7)
        runs = reader.runs()
        assert (runs[0].started_at, runs[0].attempts, runs[0].requests) == (1000.0, 3, 8)
    with closing(sqlite3.connect(f"{path}.v{version}.bak")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone()[0] == version
        assert copy.execute("SELECT COUNT(*) FROM jobs").fetchone()[0] == 4


def test_reading_an_earlier_ledger_brings_it_up_to_date_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    restore(path, 1)
    with LedgerReader(path) as reader:
        counts = reader.counts()
    assert (counts.done, counts.failed, counts.pending) == (1, 1, 2)


def test_a_migration_that_fails_has_not_happened(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    before = dump(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.Error):
            apply_migration(db, 99, "DELETE FROM jobs; CREATE TABLE jobs (x);")
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(migrations())
    assert dump(path) == before


def test_a_ledger_from_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for use in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match=r"newer hubaudit \(version 99.*upgrade hubaudit"):
            use(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "database", "short"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notes"
    if kind == "database":
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE notes (x)")
    else:
        path.write_bytes(b"not a ledger\n" * (100 if kind == "text" else 1))
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="nothing was changed"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_ledger_that_was_cut_short_is_left_alone(tmp_path: Path, keep: float) -> None:
    path = filled(tmp_path / "ledger.sqlite", jobs=40)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    for use in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match=r"damaged.*\.recover"):
            use(path)
    assert path.read_bytes() == raw[: int(len(raw) * keep)]


def test_a_scrambled_ledger_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite", jobs=40)
    raw = bytearray(path.read_bytes())
    raw[5000:9000] = os.urandom(4000)
    path.write_bytes(raw)
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(path)


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    filled(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID


def test_what_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger at"):
        LedgerReader(tmp_path / "none")
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_a_second_driver_is_refused_by_name(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with Ledger(path):
        with pytest.raises(LedgerBusy, match=rf"in use by another hubaudit \(process {os.getpid()} on"):
            Ledger(path)
        with LedgerReader(path) as reader:
            assert reader.counts().done == 3
    Ledger(path).close()


def holder(path: Path) -> "subprocess.Popen[bytes]":
    code = f"import time; from pathlib import Path; from pipelines.ledger import Ledger; l = Ledger(Path({str(path)!r})); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    other = holder(path)
    with pytest.raises(LedgerBusy, match=f"process {other.pid} "):
        Ledger(path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    Ledger(path).close()


def test_a_new_driver_waits_for_the_workers_of_a_killed_one(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    code = f"import fcntl, os, sys; h = os.open({str(worker_lock_path(path))!r}, os.O_RDWR); fcntl.flock(h, fcntl.LOCK_SH); print(flush=True); sys.stdin.read()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdout.readline()
    with pytest.raises(LedgerBusy, match="Workers of an earlier run"):
        DriverLock(path, wait_seconds=0.05)
    begun = time.monotonic()
    threading.Timer(0.3, worker.stdin.close).start()
    DriverLock(path, wait_seconds=60).release()
    assert time.monotonic() - begun > 0.2
    worker.wait()
    worker.stdout.close()


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with Ledger(path) as ledger:
        run = begin(ledger, models="y")
        select(ledger, run, "calm/new")
        before = dump(path)
        pages = ledger.connection.execute("PRAGMA page_count").fetchone()[0]
        # SQLite's own limit gives the very error that a full disk gives.
        ledger.connection.execute(f"PRAGMA max_page_count = {pages}")
        with ledger.writing():
            (job,) = ledger.claim(run, 1, now=NOW)
        with pytest.raises(LedgerError, match="disk is full"), ledger.writing():
            ledger.scanned(run, job, scanned(job, report=os.urandom(200_000)), now=NOW)
    after = dump(path)
    assert after["results"] == before["results"]
    assert after["reports"] == before["reports"]
    with Ledger(path) as ledger:
        assert ledger.recover(now=NOW) == 1


def test_a_ledger_that_somebody_has_locked_is_waited_for_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with Ledger(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as shell:
        ledger.connection.execute("PRAGMA busy_timeout = 100")
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked by another program"):
            begin(ledger, models="y")
        shell.execute("ROLLBACK")
        begin(ledger, models="y")


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be locked"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")
