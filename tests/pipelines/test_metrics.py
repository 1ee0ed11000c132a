import builtins
from typing import Any

import pytest
from lightjobs import scanned

from pipelines.engines.seam import Failed, ScanJob, Unchanged
from pipelines.metrics import FleetMetrics

JOB = ScanJob(job_id=1, attempt_id=1, repo_id="org/secret-name")


def play(metrics: FleetMetrics) -> None:
    metrics.began(total=1, due=1, due_bytes=1)
    metrics.ended(JOB, scanned(JOB, outcome="review", requests=6, bytes_read=100, seconds=0.5), again=False)
    metrics.ended(JOB, Failed(reason="org/secret-name", cause="RepoGated", transient=False, requests=1), again=False)
    metrics.ended(JOB, Unchanged(requests=1), again=False)
    metrics.note("died", "org/secret-name")
    metrics.note("other", "x")


def test_what_is_counted() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    play(FleetMetrics(provider.get_meter("test")))
    data = reader.get_metrics_data()
    found = {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    jobs = {point.attributes["outcome"]: point.value for point in found["hubaudit.fleet.jobs"]}
    assert jobs == {"review": 1, "failed": 1, "unchanged": 1}
    assert sum(point.value for point in found["hubaudit.fleet.requests"]) == 8
    assert sum(point.value for point in found["hubaudit.fleet.bytes"]) == 100
    assert found["hubaudit.fleet.scan.duration"][0].sum == 0.5
    assert found["hubaudit.fleet.worker.deaths"][0].value == 1
    assert "secret-name" not in data.to_json()
    provider.shutdown()


def test_without_the_package_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    play(FleetMetrics())
