"""One run of a fleet, from what was asked to the counts at its end: wires ledger, engine, budget, cache and driver."""

import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, Literal

from audit.suppressions import Entry as Accepted
from pipelines.budget import Budget, BudgetServer, OwnBudget
from pipelines.engines.local import LocalEngine
from pipelines.engines.seam import Engine, Entry
from pipelines.engines.worker import WorkerPlan
from pipelines.fleet import Driver, FleetPatience, Observer, RunSummary, keep_spooled
from pipelines.fleet_job import FleetSetup, rules_digest
from pipelines.ledger import Ledger
from pipelines.ledger_file import worker_lock_path
from pipelines.ledger_selection import Run
from pipelines.ledger_views import Counts, LedgerReader
from pipelines.selection import Heads, Problems, Selection, select
from pipelines.settings import Settings, tool_version
from pipelines.spool import spool_folder
from scanner.errors import CouldNotConclude
from scanner.hub import Hub

EngineName = Literal["local", "ray"]
ONE_CORE: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Small matrices are solved ten times faster by one core than by many that wait for each other (docs/scale.md)."""
FREE_SHARE: Final = 0.5
"""The cache takes at most this share of what is free on its disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use.

    ``threads`` jobs run at a time in each of ``workers`` processes. ``memory_bytes`` is per worker; ``cache_bytes``
    for the bytes of bases on disk; ``share`` of the request quota. ``job_seconds`` bounds one scan.
    """

    engine: EngineName = "local"
    workers: int = 1
    threads: int = 4
    memory_bytes: int = 2 << 30
    cache_folder: Path | None = None
    cache_bytes: int = 20 << 30
    share: float = 0.9
    job_seconds: float = 3600.0
    ray_address: str | None = None
    patience: FleetPatience = field(default_factory=FleetPatience)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run came to: what was done now, and what the ledger holds."""

    summary: RunSummary
    counts: Counts
    verdicts: dict[str, int]
    problems: Problems
    entries: int
    resumed: bool


def run_fleet(
    ledger: Ledger,
    selection: Selection,
    settings: Settings,
    resources: Resources,
    observer: Observer,
    *,
    base: str | None = None,
    stop_file: Path | None = None,
    entry: Callable[[FleetSetup], Entry] | None = None,
    clock: Callable[[], float] = time.time,
    salt: int | None = None,
    accepted: Sequence[Accepted] = (),
) -> RunReport:
    """Scan everything that a selection names and that is due.

    Args:
        ledger: open for writing.
        selection: what to scan.
        settings: which Hub, as whom.
        resources: what may be used.
        observer: hears what happens.
        base: held against this base, whatever the cards declare.
        stop_file: the run ends when this file appears.
        entry: what workers do with the set-up; ``pipelines.fleet_job`` when None.
        clock: Unix time.
        salt: from which sampled rows are drawn; a secret of the run when None.
        accepted: findings that do not count; what was judged by another list is scanned again.

    Raises:
        CouldNotConclude: the Hub could not be listed, the ledger not written, or no worker started.
        BadReference: the selection names what cannot be.
    """
    budget = Budget(share=resources.share)
    problems = Problems()
    with ExitStack() as stack:
        spooled = keep_spooled(ledger, spool_folder(ledger.path), now=clock())
        interrupted = ledger.recover(now=clock())
        if spooled or interrupted:
            observer.note("recovered", f"kept {spooled} finished scans of a killed run; {interrupted} begin again")
        asked = {**selection.as_json(), "against": base, "endpoint": settings.endpoint}
        run = ledger.begin_run(
            selection=asked,
            engine=resources.engine,
            rules=rules_digest(accepted, today=datetime.fromtimestamp(clock(), UTC).date()),
            tool=tool_version(),
            now=clock(),
            salt=secrets.randbits(32) if salt is None else salt,
        )
        hub = Hub(
            settings.endpoint,
            settings.token,
            timeout_seconds=settings.timeout_seconds,
            max_wait_seconds=settings.patience_seconds,
            governor=OwnBudget(budget),
        )
        entries = ledger.select(run, select(selection, hub, problems), Heads(hub).still)
        ledger.rank(run)
        total, due, due_bytes = ledger.backlog(run)
        observer.began(total=total, due=due, due_bytes=due_bytes)
        summary = RunSummary(recovered=spooled)
        if due:
            host = "127.0.0.1" if resources.ray_address is None else _own_address()
            server = stack.enter_context(BudgetServer(budget, host=host))
            setup = _setup(run, ledger.path, settings, resources, base, server, tuple(accepted))
            make = entry or (lambda made: Entry(function="pipelines.fleet_job:prepare", setup=made))
            engine = _engine(make(setup), ledger.path, resources)
            stack.callback(engine.close)
            if resources.engine == "ray":
                # Ray prints on stdout what its raylet has to say, and stdout is for results.
                stack.enter_context(redirect_stdout(sys.stderr))
            stop = stack.enter_context(stop_signs(stop_file))
            driver = Driver(
                ledger,
                engine,
                run,
                observer=observer,
                patience=resources.patience,
                should_stop=stop,
                spool_folder=spool_folder(ledger.path),
                clock=clock,
            )
            summary = driver.drive()
            summary.recovered = spooled
    with LedgerReader(ledger.path) as reader:
        counts, verdicts = reader.counts(), reader.verdicts()
    if summary.stopped is None:
        ledger.end_run(run, counts={**verdicts, "pending": counts.pending}, now=clock())
    return RunReport(
        summary=summary,
        counts=counts,
        verdicts=verdicts,
        problems=problems,
        entries=entries,
        resumed=run.resumed,
    )


@contextmanager
def stop_signs(stop_file: Path | None) -> Iterator[Callable[[], str | None]]:
    """Watch for Ctrl-C, SIGTERM and a stop file; yield a function that returns the reason to stop, or None.

    The second Ctrl-C ends the process the usual way, without waiting: nothing that is finished is lost by it.
    """
    seen: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append("Ctrl-C" if number == signal.SIGINT else "SIGTERM")

    def look() -> str | None:
        if seen:
            return seen[0]
        return f"{stop_file} is there" if stop_file is not None and stop_file.exists() else None

    if threading.current_thread() is not threading.main_thread():
        yield look
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _setup(
    run: Run,
    ledger: Path,
    settings: Settings,
    resources: Resources,
    base: str | None,
    server: BudgetServer,
    accepted: tuple[Accepted, ...],
) -> FleetSetup:
    folder = resources.cache_folder
    cache_bytes = resources.cache_bytes
    if folder is not None and resources.ray_address is None:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        cache_bytes = min(cache_bytes, int(FREE_SHARE * shutil.disk_usage(folder).free))
    return FleetSetup(
        endpoint=settings.endpoint,
        token=settings.token,
        timeout_seconds=settings.timeout_seconds,
        patience_seconds=settings.patience_seconds,
        created_at=run.started_at,
        salt=run.salt,
        run=f"{run.id} of {ledger.resolve()} at {run.started_at:.3f}",
        base=base,
        cache_folder=folder,
        cache_bytes=cache_bytes,
        budget=server.address,
        accepted=accepted,
    )


def _engine(entry: Entry, ledger: Path, resources: Resources) -> Engine:
    plan = WorkerPlan(
        entry=entry,
        threads=resources.threads,
        spool=spool_folder(ledger).resolve(),
        lock=worker_lock_path(ledger).resolve(),
        environment=ONE_CORE,
    )
    if resources.engine == "local":
        return LocalEngine(
            plan,
            workers=resources.workers,
            memory_bytes=resources.memory_bytes,
            job_seconds=resources.job_seconds,
        )
    try:
        from pipelines.engines.ray import RayEngine
    except ImportError as error:
        raise CouldNotConclude("The engine ray needs Ray; install it with `pip install 'hubaudit[ray]'`.") from error
    return RayEngine(
        plan,
        workers=resources.workers,
        address=resources.ray_address,
        memory_bytes=resources.memory_bytes,
        job_seconds=resources.job_seconds,
    )


def _own_address() -> str:
    """Return the address under which the nodes of a cluster reach this machine."""
    from pipelines.engines.ray import own_address

    return own_address()
