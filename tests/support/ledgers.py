"""Ledgers for tests: entries, runs, and an engine that answers in this process, in order."""

from collections.abc import Callable, Mapping
from pathlib import Path

from lightjobs import Setup, prepare

from pipelines.engines.seam import Answer, Died, Engine, Finished, Outcome, Returned, ScanJob
from pipelines.ledger import Ledger
from pipelines.ledger_selection import Run, Wanted

NOW = 1_800_000_000.0


def begin(ledger: Ledger, *, rules: str = "r1", tool: str = "1", now: float = NOW, **selection: str) -> Run:
    """Begin or resume a run."""
    return ledger.begin_run(selection=selection or {"models": "x"}, engine="test", rules=rules, tool=tool, now=now)


def select(ledger: Ledger, run: Run, *names: str | Wanted, moved: bool = False) -> None:
    """Enter repositories and order them."""
    wanted = [Wanted(repo_id=name) if isinstance(name, str) else name for name in names]
    ledger.select(run, wanted, lambda _pins: not moved)
    ledger.rank(run)


class InlineEngine:
    """Answers one job per ``wait``, in this process; ``deadly/x`` comes back as ``Died``."""

    def __init__(self, work: Callable[[ScanJob], Outcome] | None = None, *, room: int = 3) -> None:
        self.slots = 1
        self._work = work or self._light
        self._room = room
        self._queue: list[ScanJob] = []
        self._answer = prepare(Setup())
        self.order: list[str] = []
        self.draining = False

    @property
    def room(self) -> int:
        return 0 if self.draining else self._room - len(self._queue)

    def submit(self, job: ScanJob) -> None:
        assert len(self._queue) < self._room
        self._queue.append(job)

    def wait(self, timeout_seconds: float) -> list[Finished]:
        if not self._queue:
            return []
        job = self._queue.pop(0)
        if self.draining:
            return [Finished(job=job, outcome=Returned())]
        self.order.append(job.repo_id)
        return [Finished(job=job, outcome=self._work(job), worker="inline")]

    def drain(self) -> None:
        self.draining = True

    def close(self) -> None:
        pass

    def _light(self, job: ScanJob) -> Answer | Died:
        if job.repo_id.startswith("deadly/"):
            return Died(why="SIGKILL", guilty=True)
        return self._answer(job)


def _is_an_engine(engine: InlineEngine) -> Engine:
    return engine


def dump(path: Path) -> Mapping[str, list[tuple[object, ...]]]:
    """Every table of a ledger, for comparing."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names}
