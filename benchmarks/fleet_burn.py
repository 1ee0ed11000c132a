"""Jobs that do nothing but compute for 50 ms of one core: what the engine alone scales to."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SECONDS = 0.05
CHUNKS = 8
WARM = 1 / 3


def prepare(_setup: Any) -> Callable[[Any], Any]:
    """Return the work."""
    import numpy as np

    from pipelines.engines.seam import Unchanged

    matrix = np.random.default_rng(0).standard_normal((120, 120))

    def work(_job: Any) -> Any:
        begun = time.thread_time()
        while time.thread_time() - begun < SECONDS:
            matrix @ matrix
        return Unchanged()

    return work


def steady_rate(times: Sequence[float]) -> float:
    """Return answers per second without the first third: the median of eight stretches of equally many answers.

    In the first third workers start and compile. The median, because whatever else runs on the machine slows some of
    the stretches down.
    """
    times = times[int(len(times) * WARM) :]
    edges = [round(place * (len(times) - 1) / CHUNKS) for place in range(CHUNKS + 1)]
    return statistics.median((b - a) / max(1e-3, times[b] - times[a]) for a, b in pairwise(edges))


def rate(folder: Path, *, workers: int, jobs: int) -> float:
    """Return jobs per second, from the first third of the answers to the last."""
    from pipelines.engines.local import LocalEngine
    from pipelines.engines.seam import Entry
    from pipelines.engines.worker import WorkerPlan
    from pipelines.fleet import Driver
    from pipelines.fleet_progress import Silent
    from pipelines.fleet_run import ONE_CORE
    from pipelines.ledger import Ledger
    from pipelines.ledger_selection import Wanted

    path = folder / "burn.sqlite"
    for old in folder.glob("burn.sqlite*"):
        old.unlink()
    times: list[float] = []

    class Timed(Silent):
        def ended(self, job: Any, answer: Any, *, again: bool) -> None:  # noqa: ARG002
            times.append(time.perf_counter())

    plan = WorkerPlan(entry=Entry(function="fleet_burn:prepare", setup=None), threads=1, environment=ONE_CORE)
    engine = LocalEngine(plan, workers=workers)
    try:
        with Ledger(path) as ledger:
            run = ledger.begin_run(selection={}, engine="local", rules="", tool="", now=0.0)
            ledger.select(run, (Wanted(repo_id=f"burn/{number}") for number in range(jobs)), lambda _pins: True)
            ledger.rank(run)
            Driver(ledger, engine, run, observer=Timed()).drive()
    finally:
        engine.close()
    return steady_rate(times)
