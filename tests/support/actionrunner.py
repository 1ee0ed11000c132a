"""Runs the steps of a composite action as a GitHub runner would, and watches what they try to tell it.

Expressions are the few kinds that ``action.yml`` uses. Steps with ``uses`` are other people's and are skipped; what
they would have set is given. Scripts run with the very command line of the runner's ``shell: bash``, and every line
of output is read for commands as the runner reads it (actions/runner, ActionCommand.cs).
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
COMMAND = re.compile(r"::([\w-]+)(?: (.*?))?::(.*)", re.DOTALL)


@dataclass
class Ran:
    """What a job with the action as its one step came to."""

    outputs: dict[str, str]
    code: int
    log: str
    commands: list[tuple[str, str, str]]
    summary: str
    skipped: list[str] = field(default_factory=list)


def run_action(
    path: Path,
    inputs: Mapping[str, str],
    *,
    workspace: Path,
    temp: Path,
    environment: Mapping[str, str],
    outside: Mapping[str, str],
) -> Ran:
    """Run an action.

    Args:
        path: the ``action.yml``.
        inputs: as ``with:`` gives them; the others have their defaults.
        workspace: the working directory of the job.
        temp: RUNNER_TEMP.
        environment: variables that the job has besides those of the runner.
        outside: values of expressions that steps with ``uses`` would set.
    """
    action = yaml.safe_load(path.read_text())
    unknown = set(inputs) - set(action["inputs"])
    assert not unknown, f"the runner would warn about {unknown}"
    values = dict(outside) | {"github.action_path": str(path.parent)}
    for name, declared in action["inputs"].items():
        values[f"inputs.{name}"] = str(inputs.get(name, declared.get("default", "")))
    ran = Ran({}, 0, "", [], "")
    for number, step in enumerate(action["runs"]["steps"]):
        if "uses" in step:
            ran.skipped.append(step["uses"])
            continue
        assert step["shell"] == "bash"
        assert not EXPRESSION.search(step["run"]), "an expression in a script is an injection"
        output, summary = temp / f"output-{number}", temp / f"summary-{number}"
        for file in (output, summary):
            file.touch()
        script = temp / f"step-{number}.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=workspace,
            env={
                **environment,
                **{name: _filled(str(value), values) for name, value in step.get("env", {}).items()},
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(summary),
                "GITHUB_ACTIONS": "true",
                "GITHUB_TOKEN": "ghs_never_for_children",
                "RUNNER_TEMP": str(temp),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=300,
        )
        text = done.stdout.decode("utf-8", "replace")
        ran.log += text
        ran.commands += commands_in(text)
        ran.summary += summary.read_text()
        for name, value in outputs_in(output.read_text()).items():
            values[f"steps.{step.get('id')}.outputs.{name}"] = value
        ran.code = done.returncode
        if ran.code:
            break
    for name, declared in action["outputs"].items():
        ran.outputs[name] = _filled(declared["value"], values)
    return ran


def commands_in(log: str) -> list[tuple[str, str, str]]:
    """Return the commands that a runner would obey in a log: name, properties and data."""
    found: list[tuple[str, str, str]] = []
    resume: str | None = None
    for line in re.split(r"\r\n|\n|\r", log):
        text = line.lstrip()
        if resume is not None:
            resume = None if text.startswith(f"::{resume}::") else resume
            continue
        match = COMMAND.match(text)
        old = text.find("##[")
        if match:
            found.append((match[1].lower(), match[2] or "", match[3]))
            resume = match[3].strip() if match[1].lower() == "stop-commands" else None
        elif old >= 0 and "]" in text[old:]:
            found.append((f"##[{text[old + 3 :].split(']')[0]}", "", text))
    return found


def outputs_in(text: str) -> dict[str, str]:
    """Read a file of outputs as the runner does: ``name=value``, or ``name<<DELIMITER`` to a line of its own."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        name, equals, value = line.partition("=")
        if "<<" in name:
            name, _, delimiter = line.partition("<<")
            parts: list[str] = []
            for part in lines:
                if part == delimiter:
                    break
                parts.append(part)
            value = "\n".join(parts)
        else:
            assert equals, f"the runner would refuse {line!r}"
        found[name] = value
    return found


def _filled(text: str, values: Mapping[str, str]) -> str:
    return EXPRESSION.sub(lambda found: values.get(found[1], ""), text)


def job_environment(**changes: Any) -> dict[str, str]:
    """Return an environment like that of a fresh job: a path, a home, and what is given."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {name: str(value) for name, value in changes.items()}
