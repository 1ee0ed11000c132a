"""The log of a purification beside a report: shown when it is about the same model, ignored when it is anything else."""

import json
from pathlib import Path
from typing import Any

import pytest
import sample_reports
from click.testing import CliRunner

from pipelines.cli import cli
from reports.formats import render
from reports.json_v1 import dump, load
from reports.purification import with_purification

REPORT = sample_reports.poisoned_row()


def log(**changes: Any) -> bytes:
    rates = {"accuracy": {"value": 0.912}, "attacks": [{"success": {"value": 0.98}}, {"success": {"value": 0.2}}]}
    cured = {"accuracy": {"value": 0.905}, "attacks": [{"success": {"value": 0.07}}]}
    content = {
        "subject": {"repo_id": "demo/reviews-poisoned-row", "path": None},
        "method": "e-pur",
        "chosen": "Two rows <b>were</b> reset.",
        "before": {"outcome": "fail", "score": 0.98},
        "after": {"outcome": "pass", "score": 0.12},
        "evaluation": {"before": rates, "after": cured},
        "gate": {"words": ["Nothing is found any more."]},
    }
    return json.dumps(content | changes).encode()


def test_the_page_shows_before_and_after() -> None:
    report = with_purification(REPORT, log())
    assert report.purification is not None
    assert (report.purification.before.attack_success, report.purification.after.accuracy) == (0.98, 0.905)
    page = render(report, "html")
    for text in ("Before and after the purification", "e-pur", "&lt;b&gt;were", "Clean accuracy", "Attack success"):
        assert text in page
    assert "<b>were" not in page
    assert "Nothing is found any more." in page
    assert load(dump(report)) == report


def test_without_data_there_are_no_rates() -> None:
    report = with_purification(REPORT, log(evaluation=None))
    assert report.purification is not None
    assert report.purification.before.accuracy is None
    assert "Clean accuracy" not in render(report, "html")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        log(subject={"repo_id": "other/model"}),
        log(subject=None),
        log(method=7),
        log(before={"outcome": "safe", "score": 0.1}),
        log(after={"outcome": "pass"}),
        log(after={"outcome": "pass", "score": True}),
        log(evaluation={"before": {}}),
        log(evaluation=[1]),
        log(gate=3),
        log(after={"outcome": "pass", "score": float("nan")}),
    ],
)
def test_any_other_file_is_ignored(raw: bytes) -> None:
    assert with_purification(REPORT, raw) == REPORT


def test_a_report_beside_its_log_is_rendered_with_it(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(dump(REPORT))
    words = ["report", str(tmp_path / "report.json"), "--format", "html"]
    assert "Purification" not in CliRunner().invoke(cli, words).stdout
    (tmp_path / "purification.json").write_bytes(log())
    assert "Before and after the purification" in CliRunner().invoke(cli, words).stdout
