"""The local engine: worker processes on this machine, each with a few threads, bounded in memory.

Workers are spawned, never forked, so that they share nothing by accident. One that grows beyond its memory limit is
replaced when it has finished what it holds. One that dies is replaced at once; its jobs come back as ``Died``. When
several jobs ran in it, none of them is known to be guilty, so they are tried again one at a time, each in a process of
its own (``ScanJob.alone``): only the job that really ends processes is given up.
"""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from pipelines.engines.seam import Died, Finished, Returned, ScanJob, decode
from pipelines.engines.worker import WorkerPlan, run
from scanner.errors import CouldNotConclude

AHEAD: Final = 1
"""Jobs per worker that wait in it, so that it need not wait for the driver between two jobs."""
MAX_STILLBORN: Final = 5
"""Workers in a row that end before they can take a job, after which something must be wrong with all of them."""
_CLOSE_SECONDS: Final = 2.0


@dataclass(slots=True, eq=False, kw_only=True)
class _Process:
    """A worker as the driver sees it: what it holds, by job id, and since when it has been working on it."""

    name: str
    process: BaseProcess
    pipe: Connection
    life: Connection
    width: int
    held: dict[int, ScanJob] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    ready: bool = False
    retiring: bool = False
    ending: str | None = None
    culprit: int | None = None


class LocalEngine:
    """Runs jobs in ``workers`` processes of ``threads`` jobs each. Implements ``pipelines.engines.seam.Engine``."""

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        workers: int,
        memory_bytes: int | None = None,
        job_seconds: float | None = None,
    ) -> None:
        """Prepare an engine; processes start with the first jobs.

        Args:
            plan: what a worker does.
            workers: processes at a time, besides at most one for a job that must be alone.
            memory_bytes: resident size beyond which a worker is replaced; no limit when None.
            job_seconds: the longest that a job may run before its worker is ended; no limit when None.
        """
        self._plan = plan
        self._workers = workers
        self._memory_bytes = memory_bytes
        self._job_seconds = job_seconds
        self._context = multiprocessing.get_context("spawn")
        self._live: list[_Process] = []
        self._waiting: deque[ScanJob] = deque()
        self._alone: deque[ScanJob] = deque()
        self._out: list[Finished] = []
        self._started = 0
        self._draining = False
        self._stillborn = 0

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
        return max(0, self.slots + AHEAD * self._workers - held)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers."""
        return tuple(one.process.pid for one in self._live if one.process.pid is not None)

    def submit(self, job: ScanJob) -> None:
        """Hand a job to a worker, or keep it until one is free."""
        (self._alone if job.alone else self._waiting).append(job)
        self._feed()

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Return what has finished, after at most so many seconds.

        Raises:
            CouldNotConclude: no worker can be started.
        """
        if not self._out and self._live:
            handles = [one.pipe for one in self._live] + [one.process.sentinel for one in self._live]
            ready = set(wait(handles, timeout_seconds))
            for one in tuple(self._live):
                if one.pipe in ready or one.process.sentinel in ready:
                    self._listen(one)
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
        for one in self._live:
            with contextlib.suppress(OSError):
                one.pipe.send("drain")

    def close(self) -> None:
        """End all workers, at once."""
        for one in self._live:
            one.life.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for one in self._live:
            one.process.join(max(0.0, deadline - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()
            one.pipe.close()
        self._live.clear()

    def _feed(self) -> None:
        """Give waiting jobs to workers that have room, and start workers while there are fewer than allowed."""
        usable = [one for one in self._live if not one.retiring and one.ending is None and not self._is_solitary(one)]
        while self._waiting:
            # The least loaded first; a new process only when all present ones are busy.
            target = min(usable, key=lambda one: len(one.held), default=None)
            if (target is None or len(target.held) >= target.width) and len(usable) < self._workers:
                target = self._spawn(self._plan.threads)
                usable.append(target)
            if target is None or len(target.held) >= target.width + AHEAD:
                break
            self._give(target, self._waiting.popleft())
        if self._alone and not any(self._is_solitary(one) for one in self._live):
            single = self._spawn(1)
            self._give(single, self._alone.popleft())
            single.retiring = True

    @staticmethod
    def _is_solitary(one: _Process) -> bool:
        return any(job.alone for job in one.held.values())

    def _give(self, one: _Process, job: ScanJob) -> None:
        one.held[job.job_id] = job
        with contextlib.suppress(OSError):  # a dead worker: its end is noticed by `_listen`
            one.pipe.send(job)

    def _spawn(self, threads: int) -> _Process:
        self._started += 1
        pipe, theirs = self._context.Pipe()
        their_life, life = self._context.Pipe(duplex=False)
        plan = replace(self._plan, threads=threads)
        process = self._context.Process(target=run, args=(plan, theirs, their_life), daemon=True)
        process.start()
        theirs.close()
        their_life.close()
        one = _Process(name=f"local-{self._started}", process=process, pipe=pipe, life=life, width=threads)
        self._live.append(one)
        return one

    def _listen(self, one: _Process) -> None:
        """Take all messages of a worker; bury it when it has ended."""
        try:
            while one.pipe.poll():
                self._hear(one, one.pipe.recv())
        except (EOFError, OSError):
            self._bury(one)
            return
        ended = not one.process.is_alive() and not one.pipe.poll()
        if ended or (one.retiring and not one.held):
            self._bury(one)

    def _hear(self, one: _Process, message: tuple[object, ...]) -> None:
        match message:
            case ("ready",):
                one.ready = True
                self._stillborn = 0
            case ("begun", int(job_id)):
                one.begun[job_id] = time.monotonic()
            case ("returned", int(job_id)):
                self._out.append(Finished(job=one.held.pop(job_id), outcome=Returned()))
            case ("done", int(job_id), bytes(raw), int(rss_bytes)):
                one.begun.pop(job_id, None)
                self._out.append(Finished(job=one.held.pop(job_id), outcome=decode(raw), worker=one.name))
                if self._memory_bytes is not None and rss_bytes > self._memory_bytes:
                    one.retiring = True
            case _:
                pass

    def _bury(self, one: _Process) -> None:
        """Note the end of a worker and give back what it held."""
        self._live.remove(one)
        one.life.close()
        one.process.join(_CLOSE_SECONDS)
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
        why = one.ending or f"the worker process ended unexpectedly ({_ending(one.process.exitcode)})"
        for job_id, job in one.held.items():
            if job_id not in one.begun:
                self._out.append(Finished(job=job, outcome=Returned()))
                continue
            guilty = job_id == one.culprit if one.culprit is not None else len(one.begun) == 1 or job.alone
            blameless = one.culprit is not None and not guilty
            outcome = Returned() if blameless else Died(why=why, guilty=guilty)
            self._out.append(Finished(job=job, outcome=outcome, worker=one.name))
        one.pipe.close()
        if not one.ready:
            self._stillborn += 1
            if self._stillborn >= MAX_STILLBORN:
                raise CouldNotConclude(
                    f"The last {MAX_STILLBORN} worker processes ended before they could begin "
                    f"({_ending(one.process.exitcode)}); see their messages above, and try `hubaudit scan` first."
                )

    def _end_overdue(self) -> None:
        """End workers whose job has run for too long; its neighbours go back to the queue without blame."""
        if self._job_seconds is None:
            return
        now = time.monotonic()
        for one in tuple(self._live):
            late = [job_id for job_id, begun in one.begun.items() if now - begun > self._job_seconds]
            if late and one.ending is None:
                one.culprit = late[0]
                one.ending = f"it took longer than {self._job_seconds:.0f} s and was ended"
                one.process.kill()


def _ending(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
