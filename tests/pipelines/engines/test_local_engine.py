import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from lightjobs import entry

from pipelines.engines.local import LocalEngine
from pipelines.engines.seam import Died, Entry, Failed, Finished, Returned, ScanJob, Scanned, Unchanged
from pipelines.engines.worker import WorkerPlan
from pipelines.spool import found
from scanner.errors import CouldNotConclude


@pytest.fixture
def engine() -> Iterator[Callable[..., LocalEngine]]:
    made: list[LocalEngine] = []

    def make(*, threads: int = 1, workers: int = 1, plan: WorkerPlan | None = None, **options: object) -> LocalEngine:
        made.append(LocalEngine(plan or WorkerPlan(entry=entry(), threads=threads), workers=workers, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def job(number: int, repo_id: str, **fields: object) -> ScanJob:
    return ScanJob(job_id=number, attempt_id=number, repo_id=repo_id, **fields)


def finish(engine: LocalEngine, count: int, *, seconds: float = 240) -> dict[str, Finished]:
    done: dict[str, Finished] = {}
    deadline = time.monotonic() + seconds
    while len(done) < count and time.monotonic() < deadline:
        for one in engine.wait(0.2):
            assert one.job.repo_id not in done
            done[one.job.repo_id] = one
    assert len(done) == count
    return done


def test_answers_come_home(engine: Callable[..., LocalEngine]) -> None:
    one = engine()
    names = ["calm/a", "broken/b", "flaky/c", "same/d", "bug/e"]
    assert one.room == 2
    for number, name in enumerate(names):
        one.submit(job(number, name))
    done = finish(one, 5)
    assert isinstance(done["calm/a"].outcome, Scanned)
    assert done["same/d"].outcome == Unchanged(requests=1)
    bug = done["bug/e"].outcome
    assert isinstance(bug, Failed)
    assert (bug.cause, bug.transient) == ("InternalError", False)
    assert "ZeroDivisionError: a bug (lightjobs.py:" in bug.reason
    assert one.room == 2
    assert len(one.pids) == 1


def test_a_worker_that_dies_with_one_job_names_the_culprit(engine: Callable[..., LocalEngine]) -> None:
    one = engine()
    one.submit(job(1, "deadly/a"))
    one.submit(job(2, "calm/b"))
    done = finish(one, 2)
    assert done["deadly/a"].outcome == Died(why="the worker process ended unexpectedly (SIGKILL)", guilty=True)
    # It waited behind the deadly one and was never begun.
    assert done["calm/b"].outcome == Returned()
    one.submit(job(2, "calm/b"))
    assert isinstance(finish(one, 1)["calm/b"].outcome, Scanned)


def test_among_several_nobody_is_guilty_until_tried_alone(engine: Callable[..., LocalEngine]) -> None:
    one = engine(threads=3)
    one.submit(job(1, "slow/a"))
    one.submit(job(2, "slow/b"))
    one.submit(job(3, "deadly/c"))
    outcomes = [item.outcome for item in finish(one, 3).values()]
    assert outcomes == [Died(why="the worker process ended unexpectedly (SIGKILL)", guilty=False)] * 3
    for number, name in enumerate(["slow/a", "slow/b", "deadly/c"], start=1):
        one.submit(job(number, name, alone=True))
    done = finish(one, 3)
    assert isinstance(done["slow/a"].outcome, Scanned)
    assert isinstance(done["slow/b"].outcome, Scanned)
    assert isinstance(done["deadly/c"].outcome, Died)
    assert done["deadly/c"].outcome.guilty


def test_a_job_that_takes_too_long_is_ended_and_its_neighbours_are_not_blamed(
    engine: Callable[..., LocalEngine],
) -> None:
    one = engine(threads=2, job_seconds=1.0)
    one.submit(job(1, "stuck/a"))
    time.sleep(0.6)
    one.wait(0)
    one.submit(job(2, "slow/b"))
    done = finish(one, 2)
    assert done["stuck/a"].outcome == Died(why="it took longer than 1 s and was ended", guilty=True)
    assert isinstance(done["slow/b"].outcome, Scanned | Returned)


def test_a_worker_that_has_grown_is_replaced(engine: Callable[..., LocalEngine]) -> None:
    one = engine(memory_bytes=150 << 20)
    one.submit(job(1, "calm/a"))
    finish(one, 1)
    first = one.pids
    one.submit(job(2, "fat/b"))
    assert isinstance(finish(one, 1)["fat/b"].outcome, Scanned)
    one.submit(job(3, "calm/c"))
    finish(one, 1)
    assert one.pids != first


def test_draining_gives_back_what_was_not_begun(engine: Callable[..., LocalEngine]) -> None:
    one = engine()
    for number in range(4):
        one.submit(job(number, f"slow/{number}"))
    while not any(process.begun for process in one._live):
        assert one.wait(0.05) == []
    one.drain()
    assert one.room == 0
    kinds = sorted(type(item.outcome).__name__ for item in finish(one, 4).values())
    assert kinds == ["Returned", "Returned", "Returned", "Scanned"]


def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import os, time\n"
        "from lightjobs import entry\n"
        "from pipelines.engines.local import LocalEngine\n"
        "from pipelines.engines.seam import ScanJob\n"
        "from pipelines.engines.worker import WorkerPlan\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalEngine(WorkerPlan(entry=entry(), threads=1), workers=2)\n"
        "    for n in range(2): engine.submit(ScanJob(job_id=n, attempt_id=n, repo_id='stuck/x'))\n"
        "    while not all(p.begun for p in engine._live): engine.wait(0.1)\n"
        "    print(*engine.pids, flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "drive.py"
    script.write_text(code)
    paths = os.pathsep.join(path for path in sys.path if path)
    driver = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert driver.stdout is not None
    with driver.stdout:
        pids = [int(word) for word in driver.stdout.readline().split()]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_an_answer_lies_in_the_spool_before_the_driver_hears_of_it(
    engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    one = engine(plan=WorkerPlan(entry=entry(), threads=1, spool=tmp_path))
    one.submit(job(5, "calm/a"))
    told = finish(one, 1)["calm/a"].outcome
    ((job_id, attempt_id, answer, _),) = found(tmp_path)
    assert (job_id, attempt_id, answer) == (5, 5, told)


def test_workers_that_cannot_begin_end_the_run(engine: Callable[..., LocalEngine]) -> None:
    one = engine(plan=WorkerPlan(entry=Entry(function="lightjobs:unable", setup=None), threads=1))

    def drive() -> None:
        for number in range(50):
            one.submit(job(number, "calm/a"))
            one.wait(2)

    with pytest.raises(CouldNotConclude, match="ended before they could begin"):
        drive()
