"""What a run tells the person or the program that watches it: a bar on a terminal, or a line of JSON per event.

Both go to stderr; stdout belongs to results. Text from strangers is cleaned before it is shown, and JSON escapes it.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any, Self

from pipelines.engines.seam import Answer, Failed, ScanJob, Scanned
from pipelines.fleet import Observer
from pipelines.ledger_views import OUTCOMES
from reports.safe_text import clean_line

JOB_BYTES = 1 << 20
"""What a job costs beside its bytes, in bytes: the time left is reckoned in bytes plus this per job."""


class Several:
    """Tells several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        """Pass it on."""
        for one in self._observers:
            one.began(total=total, due=due, due_bytes=due_bytes)

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        """Pass it on."""
        for one in self._observers:
            one.ended(job, answer, again=again)

    def note(self, event: str, text: str) -> None:
        """Pass it on."""
        for one in self._observers:
            one.note(event, text)


class Worst:
    """Remembers the worst verdict of a run."""

    def __init__(self) -> None:
        self.repo_id: str | None = None
        self.outcome = OUTCOMES[-1]
        self.score = -1.0
        self.rule: str | None = None

    def see(self, found: Scanned) -> None:
        """Compare with one more scan."""
        mine, new = ((OUTCOMES.index(o), -s) for o, s in ((self.outcome, self.score), (found.outcome, found.score)))
        if new < mine:
            self.repo_id, self.outcome, self.score = found.repo_id, found.outcome, found.score
            self.rule = found.findings[0].rule_id if found.findings else None

    def __str__(self) -> str:
        if self.repo_id is None:
            return "nothing found yet"
        rule = f", {self.rule}" if self.rule else ""
        return clean_line(f"{self.outcome} {self.score:.2f} {self.repo_id}{rule}", limit=90)


class JsonLog:
    """Writes a line of JSON per event: ``time`` (Unix), ``event``, and what belongs to it."""

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        """Write ``began``."""
        self._write("began", total=total, due=due, due_bytes=due_bytes)

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        """Write ``scanned``, ``unchanged`` or ``failed``."""
        facts: dict[str, Any] = {"repo": job.repo_id, "requests": answer.requests, "again": again}
        match answer:
            case Scanned():
                facts |= {
                    "revision": answer.revision,
                    "outcome": answer.outcome,
                    "score": answer.score,
                    "findings": [note.rule_id for note in answer.findings],
                    "seconds": answer.seconds,
                    "bytes_read": answer.bytes_read,
                }
            case Failed():
                facts |= {"cause": answer.cause, "reason": answer.reason, "seconds": answer.seconds}
            case _:
                pass
        self._write(type(answer).__name__.lower(), **facts)

    def note(self, event: str, text: str) -> None:
        """Write the event."""
        self._write(event, text=text)

    def _write(self, event: str, **facts: Any) -> None:
        self._stream.write(json.dumps({"time": round(self._clock(), 3), "event": event, **facts}) + "\n")
        self._stream.flush()


class Bar:
    """A bar on a terminal: jobs, time left, repositories and bytes per second, the worst verdict so far."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._worst = Worst()
        self._began = time.monotonic()
        self._bytes = 0
        self._jobs = 0
        self._console = Console(stderr=True)
        self._work = Progress(
            TextColumn("{task.fields[jobs]}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[worst]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._due = 0
        self._mean = 0.0
        self._task = self._work.add_task("fleet", total=None, jobs="", rate="", worst="")

    def __enter__(self) -> Self:
        self._work.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._work.stop()

    def began(self, *, total: int, due: int, due_bytes: int) -> None:  # noqa: ARG002
        """Set the scale."""
        self._due = due
        self._mean = due_bytes / due if due else 0.0
        self._work.update(self._task, total=due_bytes + JOB_BYTES * due, jobs=f"0/{due}")

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        """Move on."""
        if again:
            return
        self._jobs += 1
        if isinstance(answer, Scanned):
            self._worst.see(answer)
            self._bytes += answer.bytes_read
        seconds = max(0.1, time.monotonic() - self._began)
        size = self._mean if job.size_bytes is None else job.size_bytes
        self._work.update(
            self._task,
            advance=JOB_BYTES + size,
            jobs=f"{self._jobs}/{self._due}",
            rate=f"{self._jobs / seconds:.1f} repos/s {self._bytes / seconds / 1e6:.0f} MB/s",
            worst=str(self._worst),
        )

    def note(self, event: str, text: str) -> None:  # noqa: ARG002
        """Print it above the bar."""
        self._console.print(clean_line(f"hubaudit: {text}", limit=300), markup=False, highlight=False)


class Silent:
    """Says nothing."""

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        """Say nothing."""

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        """Say nothing."""

    def note(self, event: str, text: str) -> None:
        """Say nothing."""
