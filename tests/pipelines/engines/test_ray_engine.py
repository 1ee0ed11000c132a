import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from lightjobs import entry, scanned

pytest.importorskip("ray")

from pipelines.engines.ray import RayEngine
from pipelines.engines.seam import Died, Finished, Returned, ScanJob, Scanned, Unchanged
from pipelines.engines.worker import WorkerPlan
from pipelines.spool import found

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and files to the collector, and warns of its own future.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def job(number: int, repo_id: str, **fields: object) -> ScanJob:
    return ScanJob(job_id=number, attempt_id=number, repo_id=repo_id, **fields)


def finish(engine: RayEngine, count: int, *, seconds: float = 240) -> dict[str, Finished]:
    done: dict[str, Finished] = {}
    deadline = time.monotonic() + seconds
    while len(done) < count and time.monotonic() < deadline:
        for one in engine.wait(0.2):
            done[one.job.repo_id] = one
    assert len(done) == count
    return done


@pytest.fixture(scope="module")
def started() -> Iterator[list[RayEngine]]:
    """Ray takes long to start: the tests share one engine, and put it back in order."""
    engines: list[RayEngine] = []
    yield engines
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(started: list[RayEngine], tmp_path_factory: pytest.TempPathFactory) -> RayEngine:
    if not started:
        plan = WorkerPlan(
            entry=entry(), threads=2, spool=tmp_path_factory.mktemp("spool"), environment={"OMP_NUM_THREADS": "1"}
        )
        started.append(RayEngine(plan, workers=1))
    return started[0]


def test_answers_come_home(engine: RayEngine) -> None:
    for number, name in enumerate(["calm/a", "same/b", "bug/c"]):
        engine.submit(job(number, name))
    done = finish(engine, 3)
    # The same bytes as from any other worker.
    assert done["calm/a"].outcome == scanned(job(0, "calm/a"))
    assert done["same/b"].outcome == Unchanged(requests=1)
    assert engine._plan.spool is not None
    left = {job_id: answer for job_id, _, answer, _ in found(engine._plan.spool)}
    assert left == {one.job.job_id: one.outcome for one in done.values()}


def test_a_deadly_job_is_found_out_alone(engine: RayEngine) -> None:
    engine.submit(job(1, "deadly/a"))
    engine.submit(job(2, "slow/b"))
    done = finish(engine, 2)
    assert {type(one.outcome) for one in done.values()} == {Died}
    assert not any(one.outcome.guilty for one in done.values())  # type: ignore[union-attr]
    engine.submit(job(1, "deadly/a", alone=True))
    engine.submit(job(2, "slow/b", alone=True))
    done = finish(engine, 2)
    assert isinstance(done["slow/b"].outcome, Scanned)
    assert isinstance(done["deadly/a"].outcome, Died)
    assert done["deadly/a"].outcome.guilty


def test_a_killed_actor_is_replaced(engine: RayEngine) -> None:
    engine.submit(job(1, "stuck/a"))
    while not any(one.held for one in engine._live):
        engine.wait(0.1)
    (pid,) = engine.pids
    os.kill(pid, signal.SIGKILL)
    died = finish(engine, 1)["stuck/a"].outcome
    assert isinstance(died, Died)
    assert died.guilty
    engine.submit(job(2, "calm/b"))
    assert isinstance(finish(engine, 1)["calm/b"].outcome, Scanned)


def test_a_killed_raylet_costs_what_was_in_flight_and_nothing_else(engine: RayEngine) -> None:
    engine.submit(job(1, "stuck/a"))
    while not any(one.held for one in engine._live):
        engine.wait(0.1)
    (actor,) = engine.pids
    raylet = engine.raylet_pid
    assert raylet is not None
    os.kill(raylet, signal.SIGKILL)
    assert finish(engine, 1)["stuck/a"].outcome == Returned()
    assert not psutil.pid_exists(actor) or psutil.Process(actor).status() == psutil.STATUS_ZOMBIE
    assert engine.raylet_pid != raylet
    engine.submit(job(2, "calm/b"))
    assert isinstance(finish(engine, 1)["calm/b"].outcome, Scanned)


def test_a_job_that_takes_too_long_is_ended(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_job_seconds", 1.0)
    engine.submit(job(1, "stuck/a"))
    assert finish(engine, 1)["stuck/a"].outcome == Died(why="it took longer than 1 s and was ended", guilty=True)


def test_draining_gives_back_what_was_not_begun(engine: RayEngine, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: setattr(engine, "_draining", False))
    for number in range(4):
        engine.submit(job(number, f"slow/{number}"))
    while sum(len(one.held) for one in engine._live) < 2:
        engine.wait(0.05)
    engine.drain()
    assert engine.room == 0
    kinds = sorted(type(one.outcome).__name__ for one in finish(engine, 4).values())
    assert kinds == ["Returned", "Returned", "Scanned", "Scanned"]
