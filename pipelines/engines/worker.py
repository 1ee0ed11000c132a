"""One worker process of the local engine: takes jobs from a pipe, works on a few at a time, says what came of them.

Several jobs share a process because most of a job's time is waiting for the network, while a process with the
numerics loaded takes hundreds of megabytes. A worker ends itself when its driver is gone, however that ended: the
driver holds the other end of a pipe on which nothing is ever sent.
"""

import contextlib
import fcntl
import os
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from pipelines.engines.seam import Answer, Entry, Failed, ScanJob, Work, encode
from pipelines.spool import leave

EXIT_ORPHAN: Final = 70
_TEXT_LIMIT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What a worker needs to begin.

    ``threads`` jobs run at a time. ``spool`` is where finished answers are left (None: nowhere), ``lock`` the file
    that is held, shared, for as long as the worker lives. ``environment`` is set before anything heavy is imported.
    """

    entry: Entry
    threads: int
    spool: Path | None = None
    lock: Path | None = None
    environment: Mapping[str, str] | None = None


class JobThreads:
    """Runs jobs on threads and reports through a function: also what a Ray actor does inside."""

    def __init__(self, work: Work, *, spool: Path | None) -> None:
        self._work = work
        self._spool = spool

    def answer(self, job: ScanJob) -> bytes:
        """Work on one job and return the encoded answer, which then also lies in the spool."""
        begun = time.monotonic()
        try:
            answer: Answer = self._work(job)
        except Exception as error:  # noqa: BLE001 - a bug in one scan must not end the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:_TEXT_LIMIT]
            reason = f"internal error ({what}); nothing was concluded. Report it."
            answer = Failed(reason=reason, cause="InternalError", transient=False)
        if isinstance(answer, Failed):
            answer = replace(answer, seconds=round(time.monotonic() - begun, 3))
        raw = encode(answer)
        if self._spool is not None:
            # A full disk: the answer still goes to the driver, which then meets the same disk and says so.
            with contextlib.suppress(OSError):
                leave(self._spool, job, raw)
        return raw


def run(plan: WorkerPlan, jobs: Connection, life: Connection) -> None:
    """Serve the pipe until the driver closes it. The body of a worker process.

    Messages from the driver: a ``ScanJob``; ``"drain"``. To the driver: ``("ready",)``, ``("begun", job_id)``,
    ``("done", job_id, raw, rss_bytes)``, ``("returned", job_id)``.
    """
    # Ctrl-C reaches the whole group of processes; what is in flight is finished nevertheless.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(plan.environment or {})
    if plan.lock is not None:
        fcntl.flock(os.open(plan.lock, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_SH)
    threading.Thread(target=_end_with, args=(life,), daemon=True, name="life").start()
    leave_folder(plan)
    with contextlib.suppress(EOFError, OSError):
        _Worker(plan, jobs).serve()
    os._exit(0)  # threads may still wait for the network on behalf of nobody


def leave_folder(plan: WorkerPlan) -> None:
    """Go where no folder can be taken for a model of the same name: the spool holds files alone."""
    os.chdir(plan.spool or tempfile.mkdtemp(prefix="hubaudit-"))


class _Worker:
    def __init__(self, plan: WorkerPlan, jobs: Connection) -> None:
        self._pipe = jobs
        self._send_lock = threading.Lock()
        self._queue: deque[ScanJob] = deque()
        self._wake = threading.Condition()
        self._job_threads = JobThreads(plan.entry.open(), spool=plan.spool)
        for number in range(plan.threads):
            threading.Thread(target=self._work, daemon=True, name=f"job-{number}").start()
        self._send(("ready",))

    def serve(self) -> None:
        while True:
            message = self._pipe.recv()
            with self._wake:
                if message == "drain":
                    while self._queue:
                        self._send(("returned", self._queue.popleft().job_id))
                else:
                    self._queue.append(message)
                    self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._queue:
                    self._wake.wait()
                job = self._queue.popleft()
                self._send(("begun", job.job_id))
            raw = self._job_threads.answer(job)
            self._send(("done", job.job_id, raw, _rss_bytes()))

    def _send(self, message: tuple[object, ...]) -> None:
        with self._send_lock:
            self._pipe.send(message)


def _rss_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _end_with(life: Connection) -> None:
    """End this process when the other end of the pipe is closed."""
    with contextlib.suppress(OSError, EOFError):
        wait([life])
    os._exit(EXIT_ORPHAN)
