"""Declarations of a base that lead nowhere, back, or to what nobody should run: clear words and the right exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from descents import drifted, random_body, write
from localhub.server import LocalHub

from pipelines.cli import cli
from reports.formats import RENDERERS
from reports.json_v1 import load

BASE = random_body(1)
MINE = drifted(BASE, seed=11)


@pytest.fixture
def hub(hub_server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "2")
    hub_server.add_repo("org/base", folder=write(tmp_path / "base", BASE))
    return hub_server


def added(hub: LocalHub, tmp_path: Path, name: str, front: str, **files: bytes) -> None:
    hub.add_repo(f"org/{name}", folder=write(tmp_path / name, MINE))
    hub.commit(f"org/{name}", {"README.md": f"---\n{front}\n---\n".encode(), **files})


def scanned(model: str, tmp_path: Path) -> tuple[int, dict[str, Any], str]:
    """The exit code, the report, and what the terminal shows."""
    target = tmp_path / "report.json"
    words = ["--quiet", "scan", model, "--format", "json", "--output", str(target), "--format", "table"]
    done = CliRunner().invoke(cli, words)
    assert "internal error" not in done.output
    for renderer in RENDERERS.values():
        assert renderer.render(load(target.read_bytes()))
    return done.exit_code, json.loads(target.read_text()), " ".join(done.output.split())


def rules(report: dict[str, Any]) -> set[str]:
    return {finding["rule_id"] for finding in report["findings"]}


def test_a_base_that_is_gone_is_declared_all_the_same(hub: LocalHub, tmp_path: Path) -> None:
    added(hub, tmp_path, "orphan", "base_model: org/vanished")
    code, report, shown = scanned("org/orphan", tmp_path)
    assert code == 3
    assert report["lineage"]["base"] == {"repo_id": "org/vanished", "path": None, "revision": None}
    assert report["lineage"]["status"] == "unverified"
    assert "HA102" in rules(report)
    assert "HA104" not in rules(report), "a base is declared"
    assert "org/vanished does not exist on the Hub or is private" in shown
    assert "No base is declared" not in shown


def test_a_model_that_names_only_itself_is_told_once(hub: LocalHub, tmp_path: Path) -> None:
    added(hub, tmp_path, "itself", "base_model: org/itself")
    code, report, shown = scanned("org/itself", tmp_path)
    assert code == 4
    assert report["lineage"]["base"] is None
    assert report["lineage"]["conflicts"] == [
        "card base_model, Hub baseModels and Hub tags declare the model itself as its base."
    ]
    assert shown.count("declare the model itself") >= 1


def test_two_models_that_declare_each_other(hub: LocalHub, tmp_path: Path) -> None:
    added(hub, tmp_path, "one", "base_model: org/two")
    added(hub, tmp_path, "two", "base_model: org/one")
    code, report, _ = scanned("org/one", tmp_path)
    assert code in {0, 1, 3}
    assert report["lineage"]["base"]["repo_id"] == "org/two"
    assert report["lineage"]["relation"] == "identical"


def test_a_base_that_needs_its_own_code_is_compared_without_it(hub: LocalHub, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    config = {"model_type": "made_up", "auto_map": {"AutoModel": "modeling_trap.Trap"}, "architectures": ["Trap"]}
    hub.commit(
        "org/base",
        {"config.json": json.dumps(config).encode(), "modeling_trap.py": f"open({str(ran)!r}, 'w')\n".encode()},
    )
    added(hub, tmp_path, "mine", "base_model: org/base")
    _, report, _ = scanned("org/mine", tmp_path)
    assert report["lineage"]["status"] == "verified"
    assert report["coverage"]["parameters_compared"] == report["coverage"]["parameters_total"] > 0
    assert not ran.exists()


def test_the_table_says_what_it_cost(hub: LocalHub, tmp_path: Path) -> None:
    added(hub, tmp_path, "mine", "base_model: org/base")
    before = len(hub.log)
    _, report, shown = scanned("org/mine", tmp_path)
    assert report["runtime"]["requests"] == len(hub.log) - before > 0
    assert f", {report['runtime']['requests']} requests, peak memory" in shown


def test_defaults_are_held_against_no_base_that_was_not_read(hub: LocalHub, tmp_path: Path) -> None:
    settings = json.dumps({"temperature": 0.6, "eos_token_id": 2}).encode()
    added(hub, tmp_path, "orphan", "base_model: org/vanished", **{"generation_config.json": settings})
    _, report, _ = scanned("org/orphan", tmp_path)
    assert "HA722" not in rules(report)
    added(hub, tmp_path, "mine", "base_model: org/base", **{"generation_config.json": settings})
    assert "HA722" in rules(scanned("org/mine", tmp_path)[1])
