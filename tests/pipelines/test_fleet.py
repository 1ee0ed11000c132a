from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import NOW, InlineEngine, begin, select
from lightjobs import entry, scanned

from pipelines import spool
from pipelines.engines.local import LocalEngine
from pipelines.engines.seam import Answer, Died, Failed, Outcome, ScanJob, Unchanged, encode
from pipelines.engines.worker import WorkerPlan
from pipelines.fleet import Driver, FleetPatience, RunSummary, keep_spooled
from pipelines.ledger import Ledger
from pipelines.ledger_file import LedgerError
from pipelines.ledger_views import LedgerReader

QUICK = FleetPatience(wait_seconds=0.0, outage_seconds=0.01)


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, bool]] = []
        self.notes: list[str] = []

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        pass

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        self.answers.append((job.repo_id, type(answer).__name__, again))

    def note(self, event: str, text: str) -> None:
        self.notes.append(event)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made


def drive(ledger: Ledger, engine: InlineEngine | LocalEngine, *names: str, **options: object) -> RunSummary:
    run = begin(ledger)
    select(ledger, run, *names)
    options = {"observer": Heard(), "patience": QUICK, **options}
    return Driver(ledger, engine, run, **options).drive()


def states(ledger: Ledger) -> dict[str, str]:
    rows = ledger.connection.execute("SELECT repo_id, state, cause FROM jobs")
    return {row["repo_id"]: row["state"] + (f" {row['cause']}" if row["state"] == "failed" else "") for row in rows}


def test_every_kind_of_job_ends_where_it_belongs(ledger: Ledger) -> None:
    heard = Heard()
    names = ["calm/a", "broken/b", "flaky/c", "same/d", "bug/e", "deadly/f"]
    summary = drive(ledger, InlineEngine(_forgiving), *names, observer=heard)
    assert states(ledger) == {
        "calm/a": "done",
        "broken/b": "failed RepoNotFound",
        "flaky/c": "failed HubUnreachable",
        "same/d": "done",
        "bug/e": "failed InternalError",
        "deadly/f": "failed WorkerDied",
    }
    assert (summary.scanned, summary.unchanged, summary.failed, summary.outcomes) == (1, 1, 4, {"pass": 1})
    assert heard.answers.count(("flaky/c", "Failed", True)) == QUICK.tries - 1
    assert heard.answers.count(("flaky/c", "Failed", False)) == 1
    assert heard.notes == ["died"] * QUICK.deaths
    attempts = ledger.connection.execute("SELECT outcome, COUNT(*) FROM attempts GROUP BY 1").fetchall()
    # The last death is where the job was given up.
    assert dict(map(tuple, attempts)) == {"scanned": 1, "unchanged": 1, "failed": 3 + QUICK.tries, "died": 1}


def _forgiving(job: ScanJob) -> Outcome:
    """As the light jobs, with what a worker makes of a bug and of a death."""
    match job.repo_id.partition("/")[0]:
        case "bug":
            return Failed(reason="internal error", cause="InternalError", transient=False)
        case "deadly":
            return Died(why="SIGKILL", guilty=True)
        case "broken":
            return Failed(reason="gone", cause="RepoNotFound", transient=False)
        case "flaky":
            return Failed(reason="503", cause="HubUnreachable", transient=True)
        case "same":
            return Unchanged()
    return scanned(job)


def test_a_stop_finishes_what_is_in_flight_and_keeps_it(ledger: Ledger) -> None:
    engine = LocalEngine(WorkerPlan(entry=entry(pause=0.3), threads=2), workers=1)
    asked = iter([None] * 3)
    try:
        summary = drive(
            ledger, engine, *(f"calm/{n}" for n in range(9)), should_stop=lambda: next(asked, "somebody said so")
        )
    finally:
        engine.close()
    assert summary.stopped == "somebody said so"
    done = [name for name, state in states(ledger).items() if state == "done"]
    assert 1 <= len(done) == summary.scanned < 9
    assert "claimed" not in states(ledger).values()
    engine = LocalEngine(WorkerPlan(entry=entry(), threads=2), workers=1)
    try:
        rest = drive(ledger, engine, *(f"calm/{n}" for n in range(9)))
    finally:
        engine.close()
    assert rest.scanned == 9 - len(done)
    assert rest.repeated == 0


def test_an_outage_is_not_blamed_on_the_repositories(ledger: Ledger) -> None:
    asked: list[str] = []

    def work(job: ScanJob) -> Outcome:
        asked.append(job.repo_id)
        if len(asked) < 40:
            return Failed(reason="no route to host", cause="HubUnreachable", transient=True)
        return scanned(job)

    patience = FleetPatience(wait_seconds=0.0, outage=5, outage_seconds=0.001, tries=3)
    summary = drive(ledger, InlineEngine(work), *(f"org/{n}" for n in range(20)), patience=patience)
    assert (summary.scanned, summary.failed) == (20, 0)


def test_while_an_outage_lasts_one_job_at_a_time_is_tried(ledger: Ledger) -> None:
    held: list[int] = []
    engine = InlineEngine(room=4)

    def work(job: ScanJob) -> Outcome:
        held.append(len(engine._queue))
        if len(held) < 30:
            return Failed(reason="x", cause="HubUnreachable", transient=True)
        return scanned(job)

    engine._work = work
    patience = FleetPatience(wait_seconds=0.0, outage=4, outage_seconds=0.001)
    drive(ledger, engine, *(f"org/{n}" for n in range(10)), patience=patience)
    assert max(held[10:29]) == 0
    assert max(held[30:]) > 0


def test_a_scan_with_holes_is_repeated_and_at_last_kept(ledger: Ledger) -> None:
    def work(job: ScanJob) -> Outcome:
        return scanned(job, outcome="inconclusive", trouble="HubUnreachable: reset")

    heard = Heard()
    summary = drive(ledger, InlineEngine(work), "org/a", observer=heard)
    assert heard.answers == [("org/a", "Scanned", True)] * (QUICK.tries - 1) + [("org/a", "Scanned", False)]
    assert summary.outcomes == {"inconclusive": 1}
    assert states(ledger) == {"org/a": "done"}


def test_what_a_killed_driver_did_not_hear_of_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    run = begin(ledger)
    select(ledger, run, "calm/a", "calm/b", "broken/c")
    with ledger.writing():
        jobs = {job.repo_id: job for job in ledger.claim(run, 3, now=NOW)}
    spool.leave(folder, jobs["calm/a"], encode(scanned(jobs["calm/a"])))
    spool.leave(folder, jobs["broken/c"], encode(Failed(reason="gone", cause="RepoNotFound", transient=False)))
    (folder / "9-9.answer").write_bytes(b"half an ans")
    (folder / "x.part").write_bytes(b"half")
    assert keep_spooled(ledger, folder, now=NOW) == 2
    assert ledger.recover(now=NOW) == 1
    assert states(ledger) == {"calm/a": "done", "calm/b": "due", "broken/c": "failed RepoNotFound"}
    assert list(folder.iterdir()) == []
    # The same answers once more, as if the removal had been cut short: nothing changes.
    spool.leave(folder, jobs["calm/a"], encode(scanned(jobs["calm/a"], outcome="fail")))
    assert keep_spooled(ledger, folder, now=NOW) == 0
    with LedgerReader(ledger.path) as reader:
        assert reader.verdicts() == {"pass": 1, "failed": 1}


def test_an_answer_left_by_a_worker_that_then_died_counts(ledger: Ledger, tmp_path: Path) -> None:
    def work(job: ScanJob) -> Outcome:
        spool.leave(tmp_path, job, encode(scanned(job)))
        return Died(why="SIGKILL", guilty=True)

    summary = drive(ledger, InlineEngine(work), "org/a", spool_folder=tmp_path)
    assert summary.scanned == 1
    assert states(ledger) == {"org/a": "done"}
    assert not list(tmp_path.glob("*.answer"))


def test_a_full_disk_ends_the_run_and_the_answer_stays_in_the_spool(ledger: Ledger, tmp_path: Path) -> None:
    def work(job: ScanJob) -> Outcome:
        answer = scanned(job, report=bytes(range(256)) * 2000)
        spool.leave(tmp_path, job, encode(answer))
        return answer

    run = begin(ledger)
    select(ledger, run, "org/a")
    pages = ledger.connection.execute("PRAGMA page_count").fetchone()[0]
    ledger.connection.execute(f"PRAGMA max_page_count = {pages}")
    driver = Driver(ledger, InlineEngine(work), run, observer=Heard(), patience=QUICK, spool_folder=tmp_path)
    with pytest.raises(LedgerError, match="disk is full"):
        driver.drive()
    ledger.connection.execute("PRAGMA max_page_count = 1000000")
    assert keep_spooled(ledger, tmp_path, now=NOW) == 1
    assert states(ledger) == {"org/a": "done"}


@pytest.fixture
def many() -> Callable[[int], list[str]]:
    return lambda count: [f"calm/{n}" for n in range(count)]


def test_memory_holds_only_what_is_in_flight(ledger: Ledger, many: Callable[[int], list[str]]) -> None:
    engine = InlineEngine(room=5)
    drive(ledger, engine, *many(300))
    assert len(engine.order) == 300
    assert len(set(engine.order)) == 300
