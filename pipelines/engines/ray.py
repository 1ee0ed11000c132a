"""The Ray engine: the same jobs on Ray actors, on this machine or on a cluster (``pip install 'hubaudit[ray]'``).

Each of ``workers`` actors runs ``threads`` jobs at a time; what comes back are the same bytes as from a local worker.
Without an address, Ray is started here and belongs to this run: when its raylet dies, Ray is started again and what
was in flight is given back without blame. On a cluster, Ray itself moves actors off nodes that have died.
"""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Final

# Read when Ray is imported: no usage statistics.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import psutil
import ray
from ray.exceptions import RayError, TaskCancelledError

from pipelines.engines.seam import Died, Finished, Returned, ScanJob, decode
from pipelines.engines.worker import JobThreads, WorkerPlan, leave_folder
from scanner.errors import CouldNotConclude

HEALTH_SECONDS: Final = 1.0
"""How often the raylet is looked after."""
MAX_STARTS: Final = 50
"""Ray is started so often in one run, at most."""
MAX_STILLBORN: Final = 5
_LOOPBACK_OBJECTS: Final = 256 << 20
"""Bytes of Ray's object store on this machine: answers of a megabyte, a few at a time."""


class RayWorker:
    """One actor: what ``pipelines.engines.worker`` is to the local engine."""

    def __init__(self, plan: WorkerPlan) -> None:
        """Take the workers' lock, where there is one, and become able to work."""
        if plan.lock is not None:
            fcntl.flock(os.open(plan.lock, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_SH)
        leave_folder(plan)
        self._threads = JobThreads(plan.entry.open(), spool=plan.spool)

    def pid(self) -> int:
        """Return the process id; answers only when the actor is able to work."""
        return os.getpid()

    def answer(self, job: ScanJob) -> tuple[bytes, int]:
        """Work on a job; return the encoded answer and the resident size of the process in bytes."""
        return self._threads.answer(job), int(psutil.Process().memory_info().rss)


@dataclass(slots=True, eq=False, kw_only=True)
class _Actor:
    """An actor as the driver sees it: what it works on, by reference, and since when."""

    name: str
    handle: Any
    birth: Any
    width: int
    held: dict[Any, ScanJob] = field(default_factory=dict)
    begun: dict[Any, float] = field(default_factory=dict)
    pid: int | None = None
    solitary: bool = False
    retiring: bool = False
    ending: str | None = None
    culprit: int | None = None


class RayEngine:
    """Runs jobs on Ray actors. Implements ``pipelines.engines.seam.Engine``."""

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        workers: int,
        address: str | None = None,
        memory_bytes: int | None = None,
        job_seconds: float | None = None,
    ) -> None:
        """Start Ray here, or connect to a cluster.

        Args:
            plan: what a worker does. Spool and lock are files of this machine and not used on a cluster.
            workers: actors at a time, besides at most one for a job that must be alone.
            address: of a cluster, as for ``ray.init``; None starts Ray on this machine.
            memory_bytes: resident size beyond which an actor is replaced; no limit when None.
            job_seconds: the longest that a job may run before its actor is ended; no limit when None.

        Raises:
            CouldNotConclude: Ray cannot be started or reached.
        """
        self._plan = plan if address is None else replace(plan, spool=None, lock=None)
        self._workers = workers
        self._address = address
        self._memory_bytes = memory_bytes
        self._job_seconds = job_seconds
        self._live: list[_Actor] = []
        self._waiting: deque[ScanJob] = deque()
        self._alone: deque[ScanJob] = deque()
        self._out: list[Finished] = []
        self._draining = False
        self._made = 0
        self._starts = 0
        self._stillborn = 0
        self._looked = 0.0
        self._raylet: psutil.Process | None = None
        self._start()

    @property
    def slots(self) -> int:
        """Jobs that run at the same time."""
        return self._workers * self._plan.threads

    @property
    def room(self) -> int:
        """How many more jobs may be submitted now."""
        if self._draining:
            return 0
        held = sum(len(one.held) for one in self._live) + len(self._waiting) + len(self._alone)
        return max(0, self.slots + self._workers - held)

    @property
    def raylet_pid(self) -> int | None:
        """The process id of the raylet that was started here."""
        return self._raylet.pid if self._raylet else None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the actors that have answered."""
        return tuple(one.pid for one in self._live if one.pid is not None)

    def submit(self, job: ScanJob) -> None:
        """Hand a job to an actor, or keep it until one is free."""
        (self._alone if job.alone else self._waiting).append(job)
        self._feed()

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Return what has finished, after at most so many seconds.

        Raises:
            CouldNotConclude: actors cannot be started, or Ray not again.
        """
        if not self._out:
            self._hear(timeout_seconds)
        self._look_after_raylet()
        self._end_overdue()
        self._feed()
        finished, self._out = self._out, []
        return finished

    def drain(self) -> None:
        """Begin no further job: those not begun come back as ``Returned``."""
        self._draining = True
        while self._waiting or self._alone:
            job = (self._waiting or self._alone).popleft()
            self._out.append(Finished(job=job, outcome=Returned()))

    def close(self) -> None:
        """End all actors at once; Ray too, if it was started here."""
        for one in self._live:
            with contextlib.suppress(Exception):
                ray.kill(one.handle)
        self._end_processes()
        self._live.clear()
        ray.shutdown()

    def _start(self) -> None:
        self._starts += 1
        if self._starts > MAX_STARTS:
            raise CouldNotConclude(f"Ray has ended {MAX_STARTS} times during this run; look at its logs, or use local.")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if self._address is None:
            # One core more than workers: for the job that has to be alone.
            options |= {"num_cpus": self._workers + 1, "num_gpus": 0, "include_dashboard": False}
            options |= {"object_store_memory": _LOOPBACK_OBJECTS, "address": "local"}
        else:
            options["address"] = self._address
        try:
            ray.init(**options)
        except Exception as error:
            where = f"reached at {self._address}" if self._address else "started"
            raise CouldNotConclude(f"Ray could not be {where} ({type(error).__name__}: {error}).") from error
        if self._address is None:
            children = psutil.Process().children(recursive=True)
            self._raylet = next((child for child in children if child.name() == "raylet"), None)

    def _feed(self) -> None:
        """Give waiting jobs to actors that are able to work, and make actors while there are fewer than allowed."""
        usable = [one for one in self._live if not one.solitary and not one.retiring and one.ending is None]
        missing = min(len(self._waiting), self._workers - len(usable))
        usable += [self._spawn(self._plan.threads) for _ in range(missing)]
        born = [one for one in usable if one.pid is not None]
        while self._waiting and born:
            target = min(born, key=lambda one: len(one.held))
            if len(target.held) >= target.width:
                break
            self._give(target, self._waiting.popleft())
        single = next((one for one in self._live if one.solitary), None)
        if self._alone and single is None:
            self._spawn(1).solitary = True
        elif self._alone and single is not None and single.pid is not None and not single.retiring:
            self._give(single, self._alone.popleft())
            single.retiring = True

    def _spawn(self, threads: int) -> _Actor:
        self._made += 1
        environment = dict(self._plan.environment or {})
        if self._address is None:
            # Workers on this machine import what the driver imports, from where it does.
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        make = ray.remote(RayWorker).options(
            max_concurrency=threads + 1,  # one for `pid`
            max_restarts=0,
            max_task_retries=0,
            num_cpus=1,
            runtime_env={"env_vars": environment} if environment else None,
            scheduling_strategy="SPREAD" if self._address else "DEFAULT",
        )
        handle: Any = make.remote(replace(self._plan, environment=None))
        one = _Actor(name=f"ray-{self._made}", handle=handle, birth=handle.pid.remote(), width=threads)
        self._live.append(one)
        return one

    def _give(self, one: _Actor, job: ScanJob) -> None:
        reference = one.handle.answer.remote(job)
        one.held[reference] = job
        one.begun[reference] = time.monotonic()

    def _hear(self, timeout_seconds: float) -> None:
        """Take every answer, and every death, that has arrived."""
        pending = {reference: one for one in self._live for reference in one.held}
        births = {one.birth: one for one in self._live if one.pid is None}
        if not pending and not births:
            return
        first, _ = ray.wait([*pending, *births], num_returns=1, timeout=min(timeout_seconds, HEALTH_SECONDS))
        if not first:
            return
        ready, _ = ray.wait([*pending, *births], num_returns=len(pending) + len(births), timeout=0)
        dead: dict[_Actor, str] = {}
        for reference in ready:
            one = pending.get(reference) or births[reference]
            try:
                value = ray.get(reference)
            except (RayError, TaskCancelledError) as error:
                dead.setdefault(one, _why(error))
                continue
            if reference in births:
                one.pid, self._stillborn = value, 0
            else:
                self._took(one, reference, *value)
        if dead and self._raylet is not None and not _alive(self._raylet):
            return  # all of them ended with their raylet, which `_look_after_raylet` sees to
        for one, why in dead.items():
            self._bury(one, why)

    def _took(self, one: _Actor, reference: Any, raw: bytes, rss_bytes: int) -> None:
        one.begun.pop(reference)
        self._out.append(Finished(job=one.held.pop(reference), outcome=decode(raw), worker=one.name))
        if self._memory_bytes is not None and rss_bytes > self._memory_bytes:
            one.retiring = True
        if one.retiring and not one.held:
            self._live.remove(one)
            ray.kill(one.handle)

    def _bury(self, one: _Actor, why: str) -> None:
        """Note the end of an actor and give back what it held."""
        self._live.remove(one)
        why = one.ending or why
        if one.pid is None:
            self._stillborn += 1
            if self._stillborn >= MAX_STILLBORN:
                raise CouldNotConclude(f"The last {MAX_STILLBORN} Ray actors ended before they could begin ({why}).")
        for job in one.held.values():
            guilty = job.job_id == one.culprit if one.culprit is not None else len(one.held) == 1 or job.alone
            blameless = one.culprit is not None and not guilty
            outcome = Returned() if blameless else Died(why=why, guilty=guilty)
            self._out.append(Finished(job=job, outcome=outcome, worker=one.name))

    def _look_after_raylet(self) -> None:
        """Start Ray again when the raylet that was started here has died; what was in flight is given back."""
        now = time.monotonic()
        if self._raylet is None or (now - self._looked < HEALTH_SECONDS and _alive(self._raylet)):
            return
        self._looked = now
        if _alive(self._raylet):
            return
        # Before anything is given back: what still runs must not finish a job that somebody else begins again.
        self._end_processes()
        for one in self._live:
            self._out += [Finished(job=job, outcome=Returned()) for job in one.held.values()]
        self._live.clear()
        with contextlib.suppress(Exception):
            ray.shutdown()
        self._start()

    def _end_processes(self) -> None:
        """End the processes of all actors on this machine, and wait until they are gone."""
        if self._address is not None:
            return
        known = [psutil.Process(pid) for pid in self.pids if psutil.pid_exists(pid)]
        for process in known:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(known, timeout=5)

    def _end_overdue(self) -> None:
        if self._job_seconds is None:
            return
        now = time.monotonic()
        for one in self._live:
            late = [one.held[ref] for ref, begun in one.begun.items() if now - begun > self._job_seconds]
            if late and one.pid is not None and one.ending is None:
                one.culprit = late[0].job_id
                one.ending = f"it took longer than {self._job_seconds:.0f} s and was ended"
                ray.kill(one.handle)


def own_address() -> str:
    """Return the address of this machine as the nodes of a cluster see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737): nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _why(error: Exception) -> str:
    # The last line says what happened; those above are Ray's and the traceback.
    last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
    return f"the Ray actor ended unexpectedly ({type(error).__name__}: {''.join(last)[:200]})"
