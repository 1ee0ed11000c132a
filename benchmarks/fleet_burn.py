"""Jobs that only compute, or only read from the Hub: what the engine alone scales to."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SECONDS = 0.05
CHUNKS = 8
WARM = 1 / 3


def burn(_setup: Any) -> Callable[[Any], Any]:
    """Return work that takes 50 ms of one core."""
    import numpy as np

    from pipelines.engines.seam import Unchanged

    matrix = np.random.default_rng(0).standard_normal((120, 120))

    def work(_job: Any) -> Any:
        begun = time.thread_time()
        while time.thread_time() - begun < SECONDS:
            matrix @ matrix
        return Unchanged()

    return work


def read(endpoint: str) -> Callable[[Any], Any]:
    """Return work that makes the requests of a scan, one after the other, and computes nothing."""
    from pipelines.engines.seam import Unchanged
    from scanner.refs import RepoSpec
    from scanner.shared_hub import SharedHub

    def work(job: Any) -> Any:
        hub = SharedHub(endpoint, subject=job.repo_id)
        ref = hub.resolve(RepoSpec(text=job.repo_id, repo_id=job.repo_id))
        hub.describe(ref)
        hub.files(ref)
        for name in ("README.md", "config.json", "tokenizer.json", "model.safetensors"):
            hub.read_bytes(ref, name, limit_bytes=1 << 30)
        return Unchanged(requests=hub.requests)

    return work


def steady_rate(times: Sequence[float]) -> float:
    """Return answers per second without the first third: the median of eight stretches of equally many answers.

    In the first third workers start and compile. The median, because whatever else runs on the machine slows some of
    the stretches down.
    """
    times = times[int(len(times) * WARM) :]
    edges = [round(place * (len(times) - 1) / CHUNKS) for place in range(CHUNKS + 1)]
    return statistics.median((b - a) / max(1e-3, times[b] - times[a]) for a, b in pairwise(edges))


def rate(folder: Path, function: str, setup: Any, names: Sequence[str], *, workers: int, threads: int) -> float:
    """Return jobs per second of a function of this module."""
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

    entry = Entry(function=f"fleet_burn:{function}", setup=setup)
    engine = LocalEngine(WorkerPlan(entry=entry, threads=threads, environment=ONE_CORE), workers=workers)
    try:
        with Ledger(path) as ledger:
            run = ledger.begin_run(selection={}, engine="local", rules="", tool="", now=0.0)
            ledger.select(run, (Wanted(repo_id=name) for name in names), lambda _pins: True)
            ledger.rank(run)
            Driver(ledger, engine, run, observer=Timed()).drive()
    finally:
        engine.close()
    return steady_rate(times)
