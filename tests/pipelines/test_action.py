"""The GitHub Action, its steps executed as the runner would, on real checkpoints served by the local Hub."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from actionrunner import Ran, commands_in, job_environment, outputs_in, run_action
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from picozoo import pico_folder, publish_pico

from pipelines.action import main

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"
Job = Callable[..., Ran]


@pytest.fixture
def job(hub_server: LocalHub, tmp_path: Path) -> Job:
    """Run the action as the only step of a job."""
    publish_pico(hub_server)
    temp, workspace = tmp_path / "temp", tmp_path / "work"
    for made in (temp, workspace):
        made.mkdir()
    # What the install step makes is there already, as on the second use within a job.
    (temp / "hubaudit-venv").symlink_to(Path(sys.executable).parent.parent)
    environment = job_environment(
        HF_ENDPOINT=hub_server.endpoint,
        HF_HOME=tmp_path / "home",
        HUBAUDIT_STATE=tmp_path / "state",
        HUBAUDIT_PATIENCE="0.1",
    )

    def run(**inputs: str) -> Ran:
        return run_action(
            ACTION,
            {name.replace("_", "-"): value for name, value in inputs.items()},
            workspace=workspace,
            temp=temp,
            environment=environment,
            outside={"steps.python.outputs.python-path": sys.executable},
        )

    run.workspace = workspace  # type: ignore[attr-defined]
    return run


def test_action_and_workflows_are_valid_and_clean() -> None:
    tools = Path(sys.executable).parent
    for command in (
        ["check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/scheduled-audit.yml"],
        [
            "zizmor",
            "--offline",
            "--no-progress",
            "--persona=auditor",
            "action.yml",
            ".github/workflows/scheduled-audit.yml",
        ],
    ):
        done = subprocess.run([tools / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_and_the_schedule_asks_for_little() -> None:
    import re

    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/scheduled-audit.yml").read_text())
    action = yaml.safe_load(ACTION.read_text())
    (only,) = workflow["jobs"].values()
    used = [step["uses"] for step in (*only["steps"], *action["runs"]["steps"]) if "uses" in step]
    assert len(used) == 7
    assert [name for name in used if not re.search(r"@[0-9a-f]{40}$", name)] == ["$/"]
    assert workflow["permissions"] == {}
    assert only["permissions"] == {"contents": "read", "security-events": "write"}
    given = next(step["with"] for step in only["steps"] if step["uses"] == "$/")
    assert set(given) <= set(action["inputs"])


def test_a_job_over_a_configuration_and_its_repetition(job: Job, hub_server: LocalHub) -> None:
    """One honest, one poisoned and one missing model; then the same again, with the ledger of the first job."""
    workspace: Path = job.workspace  # type: ignore[attr-defined]
    (workspace / "hubaudit.yml").write_text(
        "fail-on: fail\nmodels:\n- pico/honest\n- model: pico/poisoned\n  base: pico/base\n  revision: main\n- pico/missing\n"
    )
    token = hub_server.token("audit-bot")
    inputs = {"config": "hubaudit.yml", "formats": "html, markdown", "ledger": "ledger", "output": "reports"}
    inputs |= {"publish": "pr", "token": token}
    ran = job(**inputs)
    assert ran.code == 1, ran.log
    assert ran.outputs["verdict"] == "fail"
    assert ran.outputs["exit-code"] == "1"
    assert int(ran.outputs["findings-count"]) >= 1
    assert ran.outputs["report-path"] == "reports"
    assert ran.outputs["sarif-path"] == "reports/sarif"
    names = sorted(path.name for path in (workspace / "reports").rglob("*.*"))
    assert names == [
        *(f"001-pico--honest.{suffix}" for suffix in ("html", "json", "md", "sarif")),
        *(f"002-pico--poisoned--main.{suffix}" for suffix in ("html", "json", "md", "sarif")),
    ]
    for path in (workspace / "reports" / "sarif").iterdir():
        assert json.loads(path.read_text())["version"] == "2.1.0"
    assert ran.summary.count("## ") >= 2
    assert [(name, properties) for name, properties, _ in ran.commands if name != "stop-commands"] == [
        ("error", "title=pico/poisoned@main"),
        ("warning", "title=pico/missing"),
    ]
    assert "ghs_never_for_children" not in ran.log
    # What is severe is for the owner first; the honest model gets its pull request.
    (thread,) = hub_server.discussions("pico/honest")
    assert thread.author == "audit-bot"
    assert f"opened {hub_server.endpoint}/pico/honest/discussions/1" in ran.log
    assert hub_server.discussions("pico/poisoned") == ()
    assert "not published without --disclose" in ran.log
    assert token not in ran.log + ran.summary

    shutil.rmtree(workspace / "reports")
    hub_server.log.clear()
    again = job(**inputs)
    assert again.outputs == ran.outputs
    assert again.log.count("unchanged since its last audit") == 2
    assert hub_server.log.count("model.safetensors") == 0
    assert len(hub_server.discussions("pico/honest")) == 1
    assert sorted(path.name for path in (workspace / "reports").rglob("*.*")) == names


def test_one_model_gives_files(job: Job) -> None:
    ran = job(models="pico/poisoned", sarif_file="out.sarif", fail_on="never", summary="false")
    assert ran.code == 0, ran.log
    assert ran.outputs["verdict"] == "fail"
    assert ran.outputs["sarif-path"] == "out.sarif"
    assert json.loads(Path(ran.outputs["report-path"]).read_text())["subject"]["repo_id"] == "pico/poisoned"
    assert ran.summary == ""


def test_templates_of_ones_own(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "summary.md.jinja").write_text("## Ours: {{ subject | code }}\n")
    ran = job(models="pico/honest", template_dir=str(folder), fail_on="never")
    assert ran.code == 0, ran.log
    assert ran.summary.startswith("## Ours: `pico/honest@")
    (folder / "summary.md.jinja").write_text("{% for %}")
    broken = job(models="pico/honest", template_dir=str(folder))
    assert broken.code == 2
    assert any("summary.md.jinja" in text for command, _, text in broken.commands if command == "error")


HOSTILE = (
    "::error file=x::owned\n::set-output name=verdict::pass\n##[add-path]/tmp\n$(touch owned) `touch owned` ' \" \\ ; &"
)


INPUTS = (
    "models",
    "config",
    "base",
    "revision",
    "fail-on",
    "formats",
    "publish",
    "output",
    "summary",
    "ledger",
    "baseline",
    "template-dir",
)


def test_no_input_reaches_a_shell(job: Job, tmp_path: Path) -> None:
    ran = job(**{name.replace("-", "_"): HOSTILE for name in INPUTS})
    assert ran.code == 2
    assert ran.outputs["exit-code"] == "2"
    assert ran.outputs["verdict"] == ""
    assert {command for command, _, _ in ran.commands} == {"error"}
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize("name", INPUTS)
def test_no_input_reaches_the_runner(hub_server: LocalHub, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out"
    environment = job_environment(
        HF_ENDPOINT=hub_server.endpoint, RUNNER_TEMP=tmp_path, GITHUB_OUTPUT=output, HUBAUDIT_PATIENCE="0.1"
    )
    environment |= {"INPUT_MODELS": "not/there", f"INPUT_{name.upper().replace('-', '_')}": HOSTILE}
    stream = io.StringIO()
    code = main(environment, stream)
    commands = commands_in(stream.getvalue())
    assert code in {2, 3}
    assert outputs_in(output.read_text()).get("verdict", "inconclusive") == "inconclusive"
    assert {command for command, _, _ in commands} <= {"stop-commands", "error", "warning"}
    assert all("," not in properties for _, properties, _ in commands)


def test_a_model_that_tries_to_speak_to_the_runner(job: Job, hub_server: LocalHub) -> None:
    """Names and cards of a repository are in the log, in annotations and in the summary, and do nothing there."""
    payload = "::error::owned ##[add-path]/tmp"
    card = f"---\nbase_model: '{payload}'\ntags: ['{payload}']\n---\n::add-mask::e\n"
    hub_server.add_repo(
        "pico/hostile", {"README.md": card, "::set-output name=x::y": "1"}, folder=pico_folder() / "pico" / "honest"
    )
    ran = job(models="pico/hostile", base="pico/nothing")
    assert ran.code == 3
    assert {command for command, _, _ in ran.commands} == {"stop-commands", "warning"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "No model is named"),
        ({"MODELS": "pico/honest", "FAIL_ON": "sometimes"}, "fail-on is 'sometimes'; it takes review, fail, never"),
        ({"CONFIG": "missing.yml"}, "No such file or directory: missing.yml"),
    ],
)
def test_what_is_wrong_with_the_inputs_is_said(inputs: dict[str, str], said: str) -> None:
    stream = io.StringIO()
    assert main({f"INPUT_{name}": value for name, value in inputs.items()}, stream) in {2, 3}
    ((level, _, message),) = commands_in(stream.getvalue())
    assert level == "error"
    assert said in message


def test_an_author_whose_listing_fails_is_no_pass(hub_server: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("authors: [pico]\n")
    hub_server.faults.add(Status(code=503), path="/api/models?", times=FOR_EVER)
    environment = {
        "INPUT_CONFIG": str(tmp_path / "c.yml"),
        "HF_ENDPOINT": hub_server.endpoint,
        "HUBAUDIT_PATIENCE": "0.1",
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "out"),
    }
    stream = io.StringIO()
    assert main(environment, stream) == 3
    assert (tmp_path / "out").read_text() == "exit-code=3\n"


def test_an_author_without_models_is_nothing_to_compare(hub_server: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("authors: [nobody]\n")
    environment = {
        "INPUT_CONFIG": str(tmp_path / "c.yml"),
        "HF_ENDPOINT": hub_server.endpoint,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "out"),
    }
    assert main(environment, io.StringIO()) == 4
    assert "verdict=inconclusive" in (tmp_path / "out").read_text()
