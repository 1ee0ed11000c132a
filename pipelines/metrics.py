"""OpenTelemetry metrics of a fleet, for whoever has it installed and configured (``pip install hubaudit[otel]``).

Without the package, or without a configured provider, nothing is recorded and nothing is sent. The names follow the
project's own: ``hubaudit.fleet.*``. Repository names are never attributes: they are strangers' and unbounded.
"""

from typing import Any, Protocol

from pipelines.engines.seam import Answer, Failed, ScanJob, Scanned


class _Counter(Protocol):
    def add(self, amount: int, attributes: dict[str, str] | None = None) -> None: ...


class _Histogram(Protocol):
    def record(self, amount: float, attributes: dict[str, str] | None = None) -> None: ...


class FleetMetrics:
    """An observer of a run that counts."""

    def __init__(self, meter: Any | None = None) -> None:
        """Use a meter, or the global one when OpenTelemetry is installed, or none."""
        meter = meter or _global_meter()
        self._jobs: _Counter | None = None
        if meter is None:
            return
        self._jobs = meter.create_counter("hubaudit.fleet.jobs", description="Jobs by what became of them")
        self._requests: _Counter = meter.create_counter("hubaudit.fleet.requests", description="HTTP requests")
        self._bytes: _Counter = meter.create_counter("hubaudit.fleet.bytes", unit="By", description="Weights read")
        self._seconds: _Histogram = meter.create_histogram("hubaudit.fleet.scan.duration", unit="s")
        self._deaths: _Counter = meter.create_counter("hubaudit.fleet.worker.deaths")

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        """Nothing to count yet."""

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:  # noqa: ARG002
        """Count an answer."""
        if self._jobs is None:
            return
        kind = {"outcome": type(answer).__name__.lower()}
        if isinstance(answer, Scanned):
            kind = {"outcome": answer.outcome}
            self._seconds.record(answer.seconds, kind)
            self._bytes.add(answer.bytes_read)
        elif isinstance(answer, Failed):
            kind["cause"] = answer.cause
        self._jobs.add(1, {**kind, "again": str(again).lower()})
        self._requests.add(answer.requests)

    def note(self, event: str, text: str) -> None:  # noqa: ARG002
        """Count deaths."""
        if self._jobs is not None and event == "died":
            self._deaths.add(1)


def _global_meter() -> Any | None:
    try:
        from opentelemetry import metrics
    except ImportError:
        return None
    return metrics.get_meter("hubaudit")
