"""The habits that hold from the first commit, enforced: import rules, style, types, and what importing may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
HEAVY = ("torch", "transformers", "numba", "matplotlib", "huggingface_hub", "peft", "pandas")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize(
    "command",
    [
        ["lint-imports", "--no-cache"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_tool_is_content(command: list[str]) -> None:
    done = run(str(BIN / command[0]), *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import pipelines.cli", HEAVY),
        ("import reports.formats, reports.json_v1, reports.markdown", HEAVY),
        (
            "import audit.run, audit.rulebook",
            ("torch", "transformers", "numba", "matplotlib", "huggingface_hub"),
        ),
        ("import scanner.hub, scanner.facts", ("torch", "transformers", "numba", "matplotlib")),
        ("import scanner.drift.measure, scanner.alignment", ("torch", "transformers", "matplotlib")),
    ],
)
def test_importing_stays_cheap(statement: str, forbidden: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print([m for m in {forbidden!r} if m in sys.modules])"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pipelines.__main__ import main\n"
        "sys.argv = ['hubaudit', '--help']\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_workflows_are_valid_and_clean() -> None:
    workflows = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    assert workflows
    valid = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *workflows)
    assert valid.returncode == 0, valid.stdout + valid.stderr
    clean = run(str(BIN / "zizmor"), "--offline", "--no-progress", ".github")
    assert clean.returncode == 0, clean.stdout + clean.stderr


def test_a_foreign_package_of_the_same_name_is_refused(tmp_path: Path) -> None:
    shadow = tmp_path / "reports"
    shadow.mkdir()
    (shadow / "__init__.py").write_text('"""Somebody else\'s reports."""\n')
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "is not hubaudit's" in done.stderr
    assert "Traceback" not in done.stderr
