from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import NOW, begin, select
from lightjobs import commit_of, scanned

from pipelines.engines.seam import Died, Failed, ScanJob, Unchanged
from pipelines.ledger import Ledger
from pipelines.ledger_selection import Run, Wanted
from pipelines.ledger_views import LedgerReader

GONE = Failed(reason="It does not exist.", cause="RepoNotFound", transient=False)
BUSY = Failed(reason="503.", cause="HubUnreachable", transient=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made  # type: ignore[misc]


def claim(ledger: Ledger, run: Run, limit: int = 100, *, now: float = NOW) -> list[ScanJob]:
    with ledger.writing():
        return ledger.claim(run, limit, now=now)


def scan(ledger: Ledger, run: Run, **changes: object) -> list[str]:
    """Scan everything that is due; return the names."""
    jobs = claim(ledger, run)
    with ledger.writing():
        for job in jobs:
            ledger.scanned(run, job, scanned(job, **changes), now=NOW)
    return [job.repo_id for job in jobs]


def end(ledger: Ledger, run: Run) -> None:
    ledger.end_run(run, counts={}, now=NOW)


def listed(name: str, commit: str | None = None, **fields: object) -> Wanted:
    return Wanted(repo_id=name, listed=commit or commit_of(name), **fields)


def counts(ledger: Ledger) -> tuple[int, int, int, int]:
    with LedgerReader(ledger.path) as reader:
        found = reader.counts()
    return found.done, found.failed, found.pending, found.total


def test_scanning_the_same_commit_twice_is_a_no_op(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, listed("org/a"), listed("org/b"))
    assert scan(ledger, run) == ["org/a", "org/b"]
    end(ledger, run)
    again = begin(ledger)
    assert not again.resumed
    select(ledger, again, listed("org/a"), listed("org/b", "c" * 40))
    assert [(job.repo_id, job.known["org/base"]) for job in claim(ledger, again)] == [("org/b", "b" * 40)]


@pytest.mark.parametrize(
    "change",
    [{"rules": "r2"}, {"tool": "2"}, {"moved": True}],
    ids=["rules", "tool", "base"],
)
def test_new_rules_a_new_tool_and_a_moved_base_are_reasons_to_scan_again(
    ledger: Ledger, change: dict[str, object]
) -> None:
    run = begin(ledger)
    select(ledger, run, listed("org/a"))
    scan(ledger, run)
    end(ledger, run)
    moved = bool(change.pop("moved", False))
    again = begin(ledger, **change)
    select(ledger, again, listed("org/a"), moved=moved)
    (job,) = claim(ledger, again)
    # Under other rules nothing that was known of it counts.
    assert bool(job.known) is moved


def test_the_pins_are_asked_about_without_the_subject(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, listed("org/a"))
    scan(ledger, run)
    end(ledger, run)
    asked: list[dict[str, str]] = []
    ledger.select(begin(ledger), [listed("org/a")], lambda pins: asked.append(dict(pins)) or True)  # type: ignore[func-returns-value]
    assert asked == [{"org/base": "b" * 40}]


def test_what_nobody_has_looked_at_is_looked_at(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a")
    scan(ledger, run)
    end(ledger, run)
    again = begin(ledger)
    select(ledger, again, "org/a")
    (job,) = claim(ledger, again)
    with ledger.writing():
        ledger.unchanged(again, job, Unchanged(requests=1), now=NOW)
    assert counts(ledger) == (1, 0, 0, 1)


def test_the_same_scan_is_kept_once(ledger: Ledger) -> None:
    for expected in (True, False):
        run = begin(ledger)
        select(ledger, run, "org/a")
        (job,) = claim(ledger, run)
        with ledger.writing():
            assert ledger.scanned(run, job, scanned(job), now=NOW) is expected
        end(ledger, run)
    rows = ledger.connection.execute("SELECT outcome FROM attempts ORDER BY id").fetchall()
    assert [row[0] for row in rows] == ["scanned", "repeated"]
    assert ledger.connection.execute("SELECT COUNT(*) FROM results").fetchone()[0] == 1
    assert counts(ledger) == (1, 0, 0, 1)


def test_an_unfinished_run_goes_on_where_it_was(ledger: Ledger) -> None:
    run = ledger.begin_run(selection={"models": "x"}, engine="test", rules="r1", tool="1", now=NOW, salt=77)
    assert run.salt == 77
    select(ledger, run, "org/a", "org/b", "org/c")
    (first, second) = claim(ledger, run, 2)
    with ledger.writing():
        ledger.scanned(run, first, scanned(first), now=NOW)
    assert ledger.recover(now=NOW) == 1
    resumed = begin(ledger)
    assert resumed == replace(run, resumed=True)
    select(ledger, resumed, "org/a", "org/b", "org/c")
    assert {job.repo_id for job in claim(ledger, resumed)} == {second.repo_id, "org/c"}
    deaths = ledger.connection.execute("SELECT SUM(deaths), SUM(tries) FROM jobs").fetchone()
    assert tuple(deaths) == (0, 0)


def test_another_selection_is_another_run(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a")
    other = begin(ledger, author="org")
    assert not other.resumed
    select(ledger, other, "org/b")
    assert [job.repo_id for job in claim(ledger, other)] == ["org/b"]
    assert counts(ledger)[2] == 2


def test_a_failure_is_final_until_something_changes(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, listed("org/a"), "org/b")
    with ledger.writing():
        for job in ledger.claim(run, 9, now=NOW):
            ledger.failed(run, job, GONE, now=NOW)
    end(ledger, run)
    assert counts(ledger) == (0, 2, 0, 2)
    same = begin(ledger)
    select(ledger, same, listed("org/a"), "org/b")
    assert claim(ledger, same) == []
    end(ledger, same)
    moved = begin(ledger)
    select(ledger, moved, listed("org/a", "c" * 40), "org/b")
    assert [job.repo_id for job in claim(ledger, moved)] == ["org/a"]
    end(ledger, moved)
    upgraded = begin(ledger, tool="2")
    select(ledger, upgraded, "org/b")
    assert [job.repo_id for job in claim(ledger, upgraded)] == ["org/b"]


def test_retry_makes_failures_due(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a", "org/b", "org/c")
    with ledger.writing():
        for job, why in zip(ledger.claim(run, 9, now=NOW), (GONE, BUSY, BUSY), strict=True):
            ledger.failed(run, job, why, now=NOW)
    assert ledger.retry(cause="HubUnreachable", repo_ids=["org/b", "org/a"]) == 1
    assert [job.repo_id for job in claim(ledger, run)] == ["org/b"]
    assert ledger.retry(cause="NoSuchThing") == 0
    assert ledger.retry() == 2
    assert len(claim(ledger, run)) == 2


def test_a_deferred_job_waits_for_its_time(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a")
    (job,) = claim(ledger, run)
    with ledger.writing():
        assert ledger.defer(job, BUSY, counted=True, now=NOW) == 1
        ledger.postpone(job, NOW + 30)
    assert claim(ledger, run) == []
    assert ledger.next_due(run) == NOW + 30
    (job,) = claim(ledger, run, now=NOW + 30)
    with ledger.writing():
        assert ledger.defer(job, BUSY, counted=False, now=NOW) == 1


def test_deaths_are_counted_when_certain(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a")
    (job,) = claim(ledger, run)
    assert not job.alone
    with ledger.writing():
        assert ledger.died(job, Died(why="SIGKILL", guilty=False), now=NOW) == 0
    (job,) = claim(ledger, run)
    assert job.alone
    with ledger.writing():
        assert ledger.died(job, Died(why="SIGKILL", guilty=True), now=NOW) == 1


def test_large_first_and_families_together(ledger: Ledger) -> None:
    run = begin(ledger)
    sizes = {"a1": 5, "a2": 90, "b1": 100, "b2": 1, "c1": 50}
    wanted = [Wanted(repo_id=f"org/{name}", size_bytes=size, family=name[0]) for name, size in sizes.items()]
    select(ledger, run, *wanted, Wanted(repo_id="org/unknown"))
    order = [job.repo_id.removeprefix("org/") for job in claim(ledger, run)]
    assert order == ["b1", "b2", "a2", "a1", "c1", "unknown"]


def test_claims_respect_the_limit_and_are_not_repeated(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, *(f"org/{number:03}" for number in range(25)))
    seen = [job.repo_id for _ in range(6) for job in claim(ledger, run, 5)]
    assert len(seen) == len(set(seen)) == 25


def test_a_hundred_thousand_ids_with_duplicates(ledger: Ledger) -> None:
    run = begin(ledger)
    names = [f"org/m{number % 60_000}" for number in range(100_000)]
    read = ledger.select(run, (Wanted(repo_id=name) for name in names), lambda _pins: True)
    ledger.rank(run)
    assert read == 100_000
    assert counts(ledger) == (0, 0, 60_000, 60_000)


def test_two_revisions_of_one_repository_count_as_one(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a", Wanted(repo_id="org/a", wanted="v1"))
    jobs = claim(ledger, run)
    assert [job.wanted for job in jobs] == ["", "v1"]
    with ledger.writing():
        ledger.scanned(run, jobs[0], scanned(jobs[0]), now=NOW)
    assert counts(ledger) == (0, 0, 1, 1)


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    run = begin(ledger)
    select(ledger, run, "org/a")

    def fail() -> None:
        with ledger.writing():
            ledger.claim(run, 1, now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(claim(ledger, run)) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["scan", "fail", "defer", "die", "back", "crash", "claim", "retry"]), max_size=30))
def test_whatever_happens_every_job_has_one_place(tmp_path_factory: pytest.TempPathFactory, acts: list[str]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l"
    held: list[ScanJob] = []
    with Ledger(path) as ledger:
        run = begin(ledger)
        select(ledger, run, *(f"org/{number}" for number in range(4)))
        for act in acts:
            with ledger.writing():
                if act == "claim" or not held:
                    held += ledger.claim(run, 2, now=NOW + 1e6)
                elif act == "scan":
                    job = held.pop()
                    ledger.scanned(run, job, scanned(job), now=NOW)
                elif act == "fail":
                    ledger.failed(run, held.pop(), GONE, now=NOW)
                elif act == "defer":
                    ledger.defer(held.pop(), BUSY, counted=True, now=NOW)
                elif act == "die":
                    ledger.died(held.pop(), Died(why="x", guilty=True), now=NOW)
                elif act == "back":
                    ledger.give_back(held.pop(), now=NOW)
            if act == "crash":
                assert ledger.recover(now=NOW) == len(held)
                held = []
            elif act == "retry":
                ledger.retry()
        rows = ledger.connection.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall()
        states = dict(map(tuple, rows))
        assert sum(states.values()) == 4
        assert states.get("claimed", 0) == len(held) == len({job.job_id for job in held})
        running = ledger.connection.execute("SELECT COUNT(*) FROM attempts WHERE outcome = 'running'").fetchone()[0]
        assert running == len(held)
        assert counts(ledger)[3] == 4
