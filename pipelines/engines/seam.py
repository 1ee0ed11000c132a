"""The seam between a fleet and where its jobs run: what goes to a worker, what comes back, what an engine does.

An outcome travels as bytes (one line of JSON, then the compressed report), the same over a pipe, through Ray's object
store and in a file: no engine depends on how another one serialises, and nothing has to be unpickled to be kept.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol

Ending = Literal["concluded", "nothing_to_compare", "could_not_conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """One repository to scan.

    ``job_id`` and ``attempt_id`` are the ledger's. ``wanted`` is the branch, tag or commit that was asked for ("" for
    the head of main); ``listed`` is the commit that a listing has shown (None when nobody has looked yet), with what
    it said in ``described``. ``known`` are the pins of the last finished scan by the same rules (repository → commit,
    the subject included): when they still hold, there is nothing to do. ``alone`` asks for a worker with no other
    job in it, because this one may have killed the last.
    """

    job_id: int
    attempt_id: int
    repo_id: str
    wanted: str = ""
    listed: str | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """One finding, as short as an overview needs it."""

    rule_id: str
    severity: str
    title: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A finished scan: the figures that a ledger is asked for, and the report itself.

    ``pins`` maps every repository whose head was looked up (the subject, its base, the base's ancestors) to the
    commit that was found, "" where there was none. ``digest`` is the SHA-256 of the report without ``created_at`` and
    ``runtime``: what was measured, not when and how fast. ``report`` is the JSON of ``reports.json_v1``, compressed by
    zlib. ``trouble`` says that a part was left out because the Hub could not be reached: a scan worth repeating.
    """

    repo_id: str
    revision: str
    pins: Mapping[str, str]
    ending: Ending
    problem: str | None
    outcome: str
    score: float
    false_positive_rate: float | None
    relation: str
    status: str
    base_repo: str | None
    base_revision: str | None
    parameters_compared: int
    parameters_total: int
    bytes_read: int
    requests: int
    seconds: float
    created_at: str
    digest: str
    findings: tuple[Noted, ...]
    report: bytes
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """Nothing to do: subject, base and ancestors are at the commits of the last scan."""

    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No report: why (a sentence), the name of the error, and whether trying again later may help."""

    reason: str
    cause: str
    transient: bool
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The worker ended before the job did. ``guilty`` is true when no other job can have ended it."""

    why: str
    guilty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The job was never begun and is given back."""


Answer = Scanned | Unchanged | Failed
Outcome = Answer | Died | Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What became of one submitted job, and which worker says so."""

    job: ScanJob
    outcome: Outcome
    worker: str = ""


Work = Callable[[ScanJob], Answer]
"""What a worker does with a job. It raises nothing: failures are values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How a worker becomes able to work: ``function`` ("module:name") is called with ``setup`` and returns ``Work``.

    Named by text, so that a worker imports it only after its environment is set.
    """

    function: str
    setup: Any

    def open(self) -> Work:
        """Import the function and call it."""
        module, _, name = self.function.partition(":")
        work: Work = getattr(import_module(module), name)(self.setup)
        return work


class Engine(Protocol):
    """Runs jobs in other processes. Used from one thread.

    Every job that was submitted comes back from ``wait`` exactly once, whatever happens to its worker.
    """

    @property
    def slots(self) -> int:
        """Jobs that run at the same time."""

    @property
    def room(self) -> int:
        """How many more jobs may be submitted now: a few more than run, so that no worker waits for the driver."""

    def submit(self, job: ScanJob) -> None:
        """Hand a job to a worker, or keep it until one is free."""

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Return what has finished, after at most so many seconds; empty when nothing has."""

    def drain(self) -> None:
        """Begin no further job: those not begun come back as ``Returned``."""

    def close(self) -> None:
        """End all workers, at once."""


def encode(answer: Answer) -> bytes:
    """Return an answer as bytes: a line of JSON that names its kind, then the report if it has one."""
    parts = asdict(answer)
    body: bytes = parts.pop("report", b"")
    return json.dumps({"kind": type(answer).__name__, **parts}).encode() + b"\n" + body


def decode(raw: bytes) -> Answer:
    """Return the answer that ``encode`` wrote.

    Raises:
        ValueError: the bytes are not a whole answer.
    """
    head, newline, body = raw.partition(b"\n")
    try:
        parts = json.loads(head)
        kind = parts.pop("kind")
        if not newline:
            raise ValueError("cut short")
        if kind == "Scanned":
            parts["findings"] = tuple(Noted(**item) for item in parts["findings"])
            return Scanned(**parts, report=body)
        return {"Unchanged": Unchanged, "Failed": Failed}[kind](**parts)  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these bytes are not the outcome of a job ({error})") from error
