"""The work of ``hubaudit serve``: takes jobs from the queue, scans each in a process of its own, publishes or answers.

A scan that breaks, hangs or is killed ends its own process; the job is tried again later, a few times. When the
server stops, the scan is stopped as well and its job waits in the queue for the next start.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audit.records import AuditReport
from pipelines.command import Exit, sentence
from pipelines.publish import Publisher
from pipelines.publishing.errors import OptedOut
from pipelines.scan_process import ScanDone, ScanRequest, run_scan
from pipelines.serving.queue import Job, Queue
from reports.json_v1 import load
from reports.safe_text import clean_line
from reports.wording import headline
from scanner.errors import BadReference, HubAuditError

RETRY_SECONDS = (60.0, 600.0, 3600.0)
"""Pauses before the second, third and fourth attempt; then the job has failed."""
POLL_SECONDS = 1.0
"""How soon a job is begun that became due by the clock; one that arrives is begun at once."""
NOTE_CHARS = 500

log = logging.getLogger("hubaudit.serve")


@dataclass(slots=True)
class Tally:
    """What the workers have done since the start. Thread-safe."""

    endings: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, ending: str, seconds: float) -> None:
        """Count one attempt."""
        with self.lock:
            self.endings[ending] = self.endings.get(ending, 0) + 1
            self.seconds += seconds


class Workers:
    """Threads that each do one job at a time.

    Args:
        queue: where the jobs are.
        publisher: publishes and answers.
        reports: folder for the JSON reports, one per repository.
        environment: variables for the scans.
        form: how to publish the audit of a new commit: ``section``, ``pr``, ``discussion``, or ``none``.
        timeout_seconds: of one scan.
        count: how many threads.
        retry_seconds: pauses between attempts.
        clock: Unix time.
    """

    def __init__(
        self,
        queue: Queue,
        publisher: Publisher,
        *,
        reports: Path,
        environment: Mapping[str, str],
        form: str = "none",
        timeout_seconds: float = 3600.0,
        count: int = 1,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tally = Tally()
        self._queue = queue
        self._publisher = publisher
        self._reports = reports
        self._environment = environment
        self._form = form
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._scans: dict[int, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Begin to work."""
        self._reports.mkdir(parents=True, exist_ok=True)
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look into the queue now."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether all threads are at work."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Stop the scans and wait for the threads; what was under way is due again."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            for process in self._scans.values():
                process.terminate()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            job = self._queue.claim(now=self._clock())
            if job is None:
                self._wake.wait(POLL_SECONDS)
                continue
            begun = time.monotonic()
            try:
                ending = self._do(job)
            except Exception as error:
                log.exception("job %d", job.id)
                ending = self._again(job, f"internal error ({type(error).__name__})", finally_failed=True)
            self.tally.add(ending, time.monotonic() - begun)

    def _do(self, job: Job) -> str:
        """Do one job and settle it in the queue; return how it ended."""
        path = self._reports / f"{job.repo_id.replace('/', '--')}.{job.id}.json"
        try:
            done = self._scan(job, path)
            if self._stop.is_set():
                self._queue.give_back(job)
                return "interrupted"
            return self._settle(job, done, path)
        finally:
            _keep_as_newest(path, self._reports / f"{job.repo_id.replace('/', '--')}.json")

    def _scan(self, job: Job, path: Path) -> ScanDone:
        def started(process: subprocess.Popen[str]) -> None:
            with self._lock:
                self._scans[job.id] = process
                if self._stop.is_set():
                    process.terminate()

        try:
            return run_scan(
                ScanRequest(model=job.model, output=path),
                self._environment,
                timeout_seconds=self._timeout_seconds,
                started=started,
            )
        finally:
            with self._lock:
                self._scans.pop(job.id, None)

    def _settle(self, job: Job, done: ScanDone, path: Path) -> str:
        match done.code:
            case Exit.NOTHING_FOUND | Exit.FINDING:
                report = load(path.read_bytes())
            case Exit.NOTHING_TO_COMPARE:
                return self._done(job, "there is nothing to compare with")
            case Exit.USAGE:
                return self._failed(job, _last_line(done.log))
            case _:
                why = f"stopped after {self._timeout_seconds:.0f} s" if done.timed_out else _last_line(done.log)
                return self._again(job, why)
        try:
            told = self._tell(job, report)
        except (OptedOut, BadReference) as error:
            return self._done(job, f"{headline(report)}; {sentence(error)}")
        except HubAuditError as error:
            return self._again(job, sentence(error))
        return self._done(job, f"{headline(report)}; {told}")

    def _tell(self, job: Job, report: AuditReport) -> str:
        """Answer who asked, or publish as configured; return what was done."""
        if job.thread is not None:
            key = job.cause.removeprefix("comment:")
            return self._publisher.answer(report, repo_id=job.repo_id, number=job.thread, key=key)
        if self._form == "none" or report.verdict.outcome == "inconclusive":
            return "not published"
        plan, what = self._publisher.publish_report(report, form=self._form)
        return what or plan.blocked or "already up to date"

    def _done(self, job: Job, note: str) -> str:
        self._queue.done(job, note[:NOTE_CHARS], now=self._clock())
        log.info("job %d done: %s: %s", job.id, job.model, clean_line(note))
        return "done"

    def _failed(self, job: Job, note: str) -> str:
        self._queue.failed(job, note[:NOTE_CHARS], now=self._clock(), again_at=None)
        log.warning("job %d failed: %s: %s", job.id, job.model, clean_line(note))
        return "failed"

    def _again(self, job: Job, note: str, *, finally_failed: bool = False) -> str:
        """Try a job again later, unless that was its last attempt."""
        if finally_failed or job.tries >= len(self._retry_seconds):
            return self._failed(job, note)
        now = self._clock()
        self._queue.failed(job, note[:NOTE_CHARS], now=now, again_at=now + self._retry_seconds[job.tries])
        log.info("job %d again later: %s: %s", job.id, job.model, clean_line(note))
        return "retried"


def _keep_as_newest(path: Path, newest: Path) -> None:
    """Keep one report per repository."""
    if path.exists():
        path.replace(newest)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return clean_line(lines[-1], limit=NOTE_CHARS) if lines else "the scan ended without a word"
