"""The driver of a fleet: claims jobs, hands them to an engine, and writes down what comes back.

One loop, one thread, one writer. Each turn is one transaction of the ledger: answers are kept and new jobs claimed
together, so a turn costs one write to the disk however many jobs it moves. What is in memory is what is in flight.

Whether a failure is final is decided here, by ``Patience``: a repository that is gone stays gone; a Hub that answers
503 is asked again later, each time later than before; a job that ends its workers is given up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipelines import spool
from pipelines.engines.seam import (
    Answer,
    Died,
    Engine,
    Failed,
    Finished,
    Outcome,
    Returned,
    ScanJob,
    Scanned,
    Unchanged,
    decode,
)
from pipelines.ledger import Ledger
from pipelines.ledger_selection import Run

IDLE_SECONDS = 0.5
"""The longest that the loop waits before it looks at the stop signs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPatience:
    """How often a job is tried, and how long to wait in between.

    A transient failure is repeated ``tries`` times in all, ``wait_seconds`` later, then twice that, and so on. A job
    may certainly end ``deaths`` workers. When ``outage`` transient failures have come in a row, with nothing good in
    between, the Hub itself is taken to be out of reach: for ``outage_seconds`` (doubling up to sixteen times that)
    nothing is claimed, then one job at a time is tried, and none of those failures counts.
    """

    tries: int = 4
    wait_seconds: float = 30.0
    deaths: int = 2
    outage: int = 12
    outage_seconds: float = 15.0


class Observer(Protocol):
    """Hears what a run does; called from the driver's thread, after the ledger has it."""

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        """The loop begins; ``total`` jobs are in the run, ``due`` of them, with ``due_bytes``, are to be done."""

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        """A job was answered; ``again`` is true when it will be tried once more."""

    def note(self, event: str, text: str) -> None:
        """Something happened that is no job's answer."""


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """What one call of ``drive`` did. ``stopped`` says why it ended early, or is None."""

    scanned: int = 0
    repeated: int = 0
    unchanged: int = 0
    failed: int = 0
    recovered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None
    driver_seconds: float = 0.0
    """Time that the driver did not spend waiting for answers: its own work, and that of the disk."""
    driver_cpu_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Outage:
    """Whether the Hub seems out of reach."""

    patience: FleetPatience
    in_a_row: int = 0
    pause: float = 0.0
    until: float = 0.0

    @property
    def is_on(self) -> bool:
        return self.in_a_row >= self.patience.outage

    def good(self) -> None:
        self.in_a_row, self.pause, self.until = 0, 0.0, 0.0

    def bad(self, now: float) -> None:
        self.in_a_row += 1
        if self.is_on and now >= self.until:
            longest = 16 * self.patience.outage_seconds
            self.pause = min(longest, 2 * self.pause or self.patience.outage_seconds)
            self.until = now + self.pause


def keep_spooled(ledger: Ledger, folder: Path, *, now: float) -> int:
    """Write down the answers that a killed driver did not hear of; return how many. Before ``Ledger.recover``."""
    folder.mkdir(parents=True, exist_ok=True)
    spool.tidy(folder)
    kept = 0
    for job_id, attempt_id, answer, path in spool.found(folder):
        known = ledger.attempt(job_id, attempt_id)
        if answer is not None and known is not None:
            run, job = known
            with ledger.writing():
                match answer:
                    case Scanned():
                        ledger.scanned(run, job, answer, now=now, worker="spool")
                    case Unchanged():
                        ledger.unchanged(run, job, answer, now=now, worker="spool")
                    case Failed(transient=False):
                        ledger.failed(run, job, answer, now=now, worker="spool")
                    case Failed():
                        ledger.defer(job, answer, counted=True, now=now, worker="spool")
            kept += 1
        path.unlink(missing_ok=True)
    return kept


class Driver:
    """Drives one run to its end, or until it is asked to stop."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        run: Run,
        *,
        observer: Observer,
        patience: FleetPatience | None = None,
        should_stop: Callable[[], str | None] = lambda: None,
        spool_folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a driver.

        Args:
            ledger: with the jobs of the run selected, and the traces of earlier drivers cleared.
            engine: where jobs run; it is closed by its owner.
            run: the run.
            observer: hears what happens.
            patience: what is repeated, and when.
            should_stop: asked each turn; a reason ends the run once what is in flight has finished.
            spool_folder: where workers leave answers.
            clock: Unix time.
        """
        self._ledger = ledger
        self._engine = engine
        self._run = run
        self._observer = observer
        self._patience = patience or FleetPatience()
        self._should_stop = should_stop
        self._spool = spool_folder
        self._clock = clock
        self._in_flight: dict[int, ScanJob] = {}
        self._outage = _Outage(patience=self._patience)
        self._summary = RunSummary()

    def drive(self) -> RunSummary:
        """Work until no job is due, or until asked to stop and nothing is in flight.

        Raises:
            LedgerError: the ledger cannot be written; answers not yet kept lie in the spool.
            CouldNotConclude: the engine cannot start workers.
        """
        began, cpu, waited = time.perf_counter(), time.process_time(), 0.0
        finished: list[Finished] = []
        while True:
            self._look_for_stop()
            claimed = self._turn(finished)
            for job in claimed:
                self._engine.submit(job)
            if not self._in_flight:
                pause = self._until_next()
                if pause is None:
                    break
                time.sleep(min(pause, IDLE_SECONDS))
                finished = []
                continue
            asleep = time.perf_counter()
            finished = self._engine.wait(IDLE_SECONDS)
            waited += time.perf_counter() - asleep
        self._summary.driver_seconds = time.perf_counter() - began - waited
        self._summary.driver_cpu_seconds = time.process_time() - cpu
        return self._summary

    def _look_for_stop(self) -> None:
        if self._summary.stopped is None and (reason := self._should_stop()) is not None:
            self._summary.stopped = reason
            self._observer.note("stopping", f"{reason}; finishing {len(self._in_flight)} jobs in flight")
            self._engine.drain()

    def _until_next(self) -> float | None:
        """Return how long nothing can be done, in seconds, or None when nothing is left."""
        due = None if self._summary.stopped else self._ledger.next_due(self._run)
        return None if due is None else max(0.01, due - self._clock(), self._outage.until - self._clock())

    def _turn(self, finished: list[Finished]) -> list[ScanJob]:
        """Keep what has come back and claim what there is room for, in one transaction."""
        room = self._room()
        if not finished and not room:
            return []
        now = self._clock()
        heard: list[tuple[ScanJob, Answer, bool]] = []
        with self._ledger.writing():
            for one in finished:
                heard += self._keep(one, now)
            claimed = self._ledger.claim(self._run, room, now=now) if room else []
        for one in finished:
            self._in_flight.pop(one.job.job_id, None)
            self._clear_spool(one.job)
        self._in_flight |= {job.job_id: job for job in claimed}
        for job, answer, again in heard:
            self._count(answer, again=again)
            self._observer.ended(job, answer, again=again)
        return claimed

    def _room(self) -> int:
        if self._summary.stopped:
            return 0
        if self._outage.is_on:
            probing = not self._in_flight and self._clock() >= self._outage.until
            return 1 if probing else 0
        return self._engine.room

    def _keep(self, one: Finished, now: float) -> list[tuple[ScanJob, Answer, bool]]:
        """Write one outcome down; return the job, its answer and whether it comes again, if it was answered."""
        outcome = self._late_answer(one) if isinstance(one.outcome, Died | Returned) else one.outcome
        job, run, ledger = one.job, self._run, self._ledger
        match outcome:
            case Returned():
                ledger.give_back(job, now=now)
                return []
            case Died():
                deaths = ledger.died(job, outcome, now=now, worker=one.worker)
                self._observer.note("died", f"{job.repo_id}: {outcome.why}")
                if deaths < self._patience.deaths:
                    return []
                why = f"Scanning it ended {deaths} worker processes: {outcome.why}."
                given_up = Failed(reason=why, cause="WorkerDied", transient=False)
                ledger.failed(run, job, given_up, now=now, worker=one.worker)
                return [(job, given_up, False)]
            case Scanned(trouble=str()):
                self._outage.bad(now)
                # The network tore holes into it: repeated, and kept with its holes only after the last try.
                again = self._again(one, _torn(outcome), now)
                if not again:
                    self._keep_scan(one, outcome, now)
                return [(job, outcome, again)]
            case Scanned():
                self._outage.good()
                self._keep_scan(one, outcome, now)
                return [(job, outcome, False)]
            case Unchanged():
                self._outage.good()
                ledger.unchanged(run, job, outcome, now=now, worker=one.worker)
                return [(job, outcome, False)]
            case Failed(transient=True):
                self._outage.bad(now)
                again = self._again(one, outcome, now)
                if not again:
                    ledger.failed(run, job, outcome, now=now, worker=one.worker)
                return [(job, outcome, again)]
            case Failed():
                self._outage.good()
                ledger.failed(run, job, outcome, now=now, worker=one.worker)
                return [(job, outcome, False)]

    def _keep_scan(self, one: Finished, found: Scanned, now: float) -> None:
        if not self._ledger.scanned(self._run, one.job, found, now=now, worker=one.worker):
            self._summary.repeated += 1

    def _again(self, one: Finished, why: Failed, now: float) -> bool:
        """Make a job due again later, unless it has been tried often enough; say which."""
        counted = not self._outage.is_on
        tries = self._ledger.defer(one.job, why, counted=counted, now=now, worker=one.worker)
        if tries >= self._patience.tries:
            return False
        self._ledger.postpone(one.job, now + self._patience.wait_seconds * 2 ** max(0, tries - 1))
        return True

    def _late_answer(self, one: Finished) -> Outcome:
        """Return the answer that a worker left in the spool before it died, else the news of its death."""
        if self._spool is None:
            return one.outcome
        try:
            return decode(spool.place(self._spool, one.job).read_bytes())
        except (OSError, ValueError):
            return one.outcome

    def _clear_spool(self, job: ScanJob) -> None:
        if self._spool is not None:
            spool.place(self._spool, job).unlink(missing_ok=True)

    def _count(self, answer: Answer, *, again: bool) -> None:
        if again:
            return
        match answer:
            case Scanned():
                self._summary.scanned += 1
                self._summary.outcomes[answer.outcome] = self._summary.outcomes.get(answer.outcome, 0) + 1
            case Unchanged():
                self._summary.unchanged += 1
            case Failed():
                self._summary.failed += 1


def _torn(found: Scanned) -> Failed:
    """Return the failure that a scan with holes amounts to."""
    return Failed(
        reason=str(found.trouble),
        cause="HubUnreachable",
        transient=True,
        requests=found.requests,
        seconds=found.seconds,
    )
