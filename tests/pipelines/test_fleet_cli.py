import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fleets import make_family, publish
from ledgers import NOW, begin, select
from lightjobs import scanned
from localhub.server import LocalHub

from pipelines.cli import cli
from pipelines.engines.seam import Failed
from pipelines.ledger import Ledger
from pipelines.ledger_selection import Wanted
from reports.json_v1 import load

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def invoke(hub_server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "1")
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(cli, ["fleet", *map(str, words)])


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger with one finding of each kind, a failure and something left to do."""
    path = tmp_path / "fleet.sqlite"
    with Ledger(path) as opened:
        run = begin(opened)
        names = [f"org/{name}" for name in ("pass", "fail", "review", "inconclusive", "gone", "due")]
        select(opened, run, *(Wanted(repo_id=name, family="org/base") for name in names))
        with opened.writing():
            for job in opened.claim(run, 5, now=NOW):
                kind = job.repo_id.removeprefix("org/")
                if kind == "gone":
                    why = Failed(reason="It is \x1b[31mgone.", cause="RepoNotFound", transient=False)
                    opened.failed(run, job, why, now=NOW)
                else:
                    score = {"pass": 0.1, "fail": 0.99, "review": 0.7, "inconclusive": 0.0}[kind]
                    opened.scanned(run, job, scanned(job, outcome=kind, score=score), now=NOW)
    return path


@pytest.mark.slow
def test_a_fleet_of_real_models_from_plan_to_page(
    invoke: Invoke, hub_server: LocalHub, family: Path, tmp_path: Path
) -> None:
    publish(hub_server, family)
    planned = invoke("--author", "pico", "--plan", "--log", "json")
    plan = json.loads(planned.stdout)
    assert (plan["repos"], plan["to_scan"], plan["bases"]) == (7, 7, 1)
    assert plan["candidate_bytes"] > 100_000
    assert not (tmp_path / "fleet.sqlite").exists()

    done = invoke("--author", "pico", "--workers", "1", "--threads", "2", "--log", "json", "--retry-wait", "0.01")
    assert done.exit_code in {1, 3}, done.output
    assert "6 done, 1 failed, 0 pending of 7" in done.stdout
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events].count("scanned") == 6
    assert {event["cause"] for event in events if event["event"] == "failed"} == {"RepoGated"}

    status = json.loads(invoke("status", "--format", "json").stdout)
    assert {key: status[key] for key in ("done", "failed", "pending", "total")} == {
        "done": 6, "failed": 1, "pending": 0, "total": 7,
    }  # fmt: skip
    report = load(invoke("show", "pico/honest").stdout_bytes)
    assert report.lineage.status == "verified"
    assert report.subject.revision == hub_server.sha("pico/honest")

    hub_server.log.clear()
    again = invoke("--author", "pico", "--workers", "1")
    assert "(now: 0 scanned, 0 unchanged, 0 failed)" in again.stdout
    assert hub_server.log.count("/resolve/") == 0
    quiet = invoke("--author", "pico", "--since", "2099-01-01", "--fail-on", "never")
    assert quiet.exit_code == 3, quiet.output  # for the gated one, which is still on record
    replanned = json.loads(invoke("--author", "pico", "--plan", "--log", "json").stdout)
    assert (replanned["unchanged"], replanned["to_scan"]) == (6, 1)

    assert invoke("page", "--output", "fleet.html").exit_code == 0
    assert "pico/poisoned" in (tmp_path / "fleet.html").read_text()


def test_status_for_people_and_for_programs(invoke: Invoke, ledger: Path) -> None:
    shown = invoke("status").stdout
    assert "4 done, 1 failed, 1 pending, 6 in all" in shown
    assert shown.index("org/fail") < shown.index("org/review")
    assert "1 × RepoNotFound" in shown
    assert "\x1b" not in shown
    counted = json.loads(invoke("status", "--format", "json").stdout)
    assert (counted["done"], counted["failed"], counted["pending"], counted["total"]) == (4, 1, 1, 6)
    assert counted["verdicts"] == {"fail": 1, "review": 1, "inconclusive": 1, "pass": 1, "failed": 1}


def test_retry_makes_failures_due(invoke: Invoke, ledger: Path) -> None:
    assert "0 due again" in invoke("retry", "--cause", "RepoGated").stdout
    assert "1 due again" in invoke("retry", "org/gone", "org/other").stdout
    assert json.loads(invoke("status", "--format", "json").stdout)["pending"] == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--plan"], 2, "give one of --author"),
        (["--author", "a", "--search", "b"], 2, "give one of --author"),
        (["--author", "", "--plan"], 2, "--author is empty"),
        (["--search", " ", "--plan"], 2, "--search is empty"),
        (["--base", "", "--plan"], 2, "--base is empty"),
        (["--models", "ids.txt", "--min-downloads", "5"], 2, "filter when you write it"),
        (["--models", "ids.txt", "--gated", "open"], 2, "filter when you write it"),
        (["--author", "a", "--max-age", "soon"], 2, "is not a moment"),
        (["--author", "a", "--cache-size", "much"], 2, "is not a size"),
        (["--author", "a", "--since", "last"], 2, "no finished run yet"),
        (["--base", "../x", "--plan"], 2, "is not a repository"),
        (["--author", "a", "--engine", "hf-jobs"], 2, "--bucket"),
        (["status", "--ledger", "none.sqlite"], 3, "no ledger at"),
        (["show", "org/none"], 3, "no ledger at"),
        (["export"], 2, "give --parquet"),
        (["--author", "nobody"], 4, "0 done"),
    ],
)
def test_wrong_words_end_with_a_sentence(
    invoke: Invoke, tmp_path: Path, words: list[str], code: int, text: str
) -> None:
    (tmp_path / "ids.txt").write_text("org/a\n")
    done = invoke(*words)
    assert done.exit_code == code, done.output
    assert text in done.output
    assert "Traceback" not in done.output


def test_a_stop_file_keeps_a_run_from_beginning(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "fleet.sqlite.stop").touch()
    done = invoke("--author", "org")
    assert done.exit_code == 3
    assert "remove it first" in done.stderr
    assert not (tmp_path / "fleet.sqlite").exists()


def test_stopping_needs_a_ledger_that_somebody_could_be_driving(invoke: Invoke, ledger: Path) -> None:
    assert "ends soon" in invoke("stop").stdout
    assert ledger.with_name("fleet.sqlite.stop").exists()
    mistyped = invoke("stop", "--ledger", "flet.sqlite")
    assert mistyped.exit_code == 3
    assert "no ledger at flet.sqlite" in mistyped.stderr
    assert not ledger.with_name("flet.sqlite.stop").exists()


def test_two_drivers_on_one_ledger(invoke: Invoke, ledger: Path) -> None:
    with Ledger(ledger):
        done = invoke("--author", "org")
        assert done.exit_code == 3
        assert "in use by another hubaudit" in done.stderr
        assert invoke("status").exit_code == 0


def test_a_ledger_from_a_newer_version(invoke: Invoke, ledger: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(ledger)) as db:
        db.execute("PRAGMA user_version = 99")
    done = invoke("status")
    assert done.exit_code == 3
    assert "upgrade hubaudit" in done.stderr


def test_an_hf_job_is_shown_and_started_only_with_yes(
    invoke: Invoke, hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub_server.token("me"))
    words = [
        "--author",
        "org",
        "--min-downloads",
        "5",
        "--engine",
        "hf-jobs",
        "--bucket",
        "me/ledgers",
        "--workers",
        "8",
    ]
    shown = invoke(*words)
    assert shown.exit_code == 0, shown.output
    assert "hubaudit fleet --author org --min-downloads 5 --workers 8 --engine local --ledger" in shown.stdout
    assert "dry run" in shown.stderr
    assert hub_server._state.jobs == []
    started = invoke(*words, "--yes")
    assert started.exit_code == 0, started.output
    (job,) = hub_server._state.jobs
    assert f"/jobs/me/{job['id']}" in started.stdout


def test_a_baseline_is_read_before_anything_is_asked(invoke: Invoke, hub_server: LocalHub, tmp_path: Path) -> None:
    broken = tmp_path / "accepted.yml"
    broken.write_text("suppressions:\n  - fingerprint: 8f3a1c0b5d7e9f21\n")
    done = invoke("--author", "pico", "--baseline", broken)
    assert done.exit_code == 2
    assert "line 2" in done.stderr
    travels = invoke("--author", "pico", "--baseline", broken, "--engine", "hf-jobs", "--bucket", "me/x")
    assert travels.exit_code == 2
    assert "does not travel" in travels.stderr
    assert len(hub_server.log) == 0


def test_results_become_a_dataset_only_with_yes(
    invoke: Invoke, hub_server: LocalHub, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub_server.token("me"))
    shown = invoke("publish", "--publish-to", "me/results")
    assert shown.exit_code == 0, shown.output
    assert "dry run" in shown.stderr
    assert "private" in shown.stdout
    assert len(hub_server.log) == 0
    blocked = invoke("publish", "--publish-to", "me/results", "--public", "--yes")
    assert blocked.exit_code == 1
    assert "--disclose" in blocked.stderr
    assert len(hub_server.log) == 0
    done = invoke("publish", "--publish-to", "me/results", "--jsonl", "--yes")
    assert done.exit_code == 0, done.output
    assert hub_server.paths("datasets/me/results") == (".gitattributes", "README.md", "data/results.jsonl")
    lines = hub_server.read("datasets/me/results", "data/results.jsonl").splitlines()
    assert [json.loads(line)["repo_id"] for line in lines][:2] == ["org/pass", "org/fail"]
