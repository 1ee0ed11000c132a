import dataclasses
from datetime import date
from pathlib import Path

import pytest
from localhub.server import LocalHub
from quickhub import quick_hub
from sample_reports import honest

import pipelines.actions.memory
from audit.records import AuditReport
from pipelines.actions.inputs import Target
from pipelines.actions.memory import Memory
from reports.json_v1 import dump

TARGET = Target(model="demo/model")


@pytest.fixture
def report(hub_server: LocalHub) -> AuditReport:
    model = hub_server.add_repo("demo/model", {"a": "1"})
    base = hub_server.add_repo("demo/small-encoder", {"a": "1"})
    plain = honest()
    return dataclasses.replace(
        plain,
        subject=dataclasses.replace(plain.subject, repo_id="demo/model", revision=model),
        lineage=dataclasses.replace(
            plain.lineage, base=dataclasses.replace(plain.lineage.base, repo_id="demo/small-encoder", revision=base)
        ),
    )


def keep(
    folder: Path, report: AuditReport, target: Target = TARGET, code: int = 0, baseline: Path | None = None
) -> None:
    path = folder / "new.json"
    path.write_bytes(dump(report))
    Memory(folder / "ledger", baseline=baseline).keep(target, report, path, code)


def recall(folder: Path, server: LocalHub, target: Target = TARGET, baseline: Path | None = None) -> int | None:
    memory = Memory(folder / "ledger", baseline=baseline)
    return memory.recall(target, quick_hub(server), folder / "recalled.json")


def test_an_unchanged_model_is_remembered(tmp_path: Path, hub_server: LocalHub, report: AuditReport) -> None:
    assert recall(tmp_path, hub_server) is None
    keep(tmp_path, report, code=1)
    assert recall(tmp_path, hub_server) == 1
    assert (tmp_path / "recalled.json").read_bytes() == dump(report)


@pytest.mark.parametrize("repo_id", ["demo/model", "demo/small-encoder"])
def test_a_new_commit_on_either_side_is_scanned(
    tmp_path: Path, hub_server: LocalHub, report: AuditReport, repo_id: str
) -> None:
    keep(tmp_path, report)
    hub_server.commit(repo_id, {"b": "2"})
    assert recall(tmp_path, hub_server) is None


def test_other_wishes_are_scanned(tmp_path: Path, hub_server: LocalHub, report: AuditReport) -> None:
    baseline = tmp_path / "baseline"
    baseline.write_text("suppressions: [{fingerprint: 77aa90cdee120034, reason: known, expires: 2999-01-01}]")
    keep(tmp_path, report, baseline=baseline)
    assert recall(tmp_path, hub_server, baseline=baseline) == 0
    assert recall(tmp_path, hub_server) is None
    assert recall(tmp_path, hub_server, Target(model="demo/model", base="x/y"), baseline) is None
    assert recall(tmp_path, hub_server, Target(model="demo/model", fail_on="never"), baseline) is None
    accepted = "suppressions: [{fingerprint: 8f3a1c0b5d7e9f21, reason: known, expires: 2999-01-01}]"
    baseline.write_text(accepted)
    assert recall(tmp_path, hub_server, baseline=baseline) is None
    keep(tmp_path, report, baseline=baseline)
    assert recall(tmp_path, hub_server, baseline=baseline) == 0


def test_an_acceptance_that_has_ended_since_is_scanned_again(
    tmp_path: Path, hub_server: LocalHub, report: AuditReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = tmp_path / "baseline"
    baseline.write_text("suppressions: [{fingerprint: 8f3a1c0b5d7e9f21, reason: known, expires: 2026-12-31}]")
    for day, found in (("2026-12-30", None), ("2026-12-31", 0), ("2027-01-01", None)):
        monkeypatch.setattr(pipelines.actions.memory, "today", lambda day=day: date.fromisoformat(day))
        assert recall(tmp_path, hub_server, baseline=baseline) == found
        if found is None:
            keep(tmp_path, report, baseline=baseline)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_what_did_not_conclude_is_tried_again(
    tmp_path: Path, hub_server: LocalHub, report: AuditReport, code: int
) -> None:
    keep(tmp_path, report, code=code)
    assert recall(tmp_path, hub_server) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"demo/model": 1}',
        '{"demo/model": {"key": "k", "exit_code": 0, "heads": {}, "report": "../x.json"}}',
    ],
)
def test_a_damaged_memory_is_none(tmp_path: Path, hub_server: LocalHub, report: AuditReport, content: str) -> None:
    keep(tmp_path, report)
    (tmp_path / "ledger" / "index.json").write_text(content)
    assert recall(tmp_path, hub_server) is None


def test_a_lost_report_is_made_again(tmp_path: Path, hub_server: LocalHub, report: AuditReport) -> None:
    keep(tmp_path, report)
    for path in (tmp_path / "ledger").glob("*.json"):
        if path.name != "index.json":
            path.unlink()
    assert recall(tmp_path, hub_server) is None


def test_folders_are_not_remembered(tmp_path: Path, hub_server: LocalHub, report: AuditReport) -> None:
    local = dataclasses.replace(
        report, subject=dataclasses.replace(report.subject, repo_id=None, path="/x", revision=None)
    )
    keep(tmp_path, local, Target(model="/x"))
    assert recall(tmp_path, hub_server, Target(model="/x")) is None
