"""What every command does with an error: one sentence, the right exit code, and the traceback only on demand."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pipelines.command import ends_with_a_sentence
from scanner.errors import BadReference, CouldNotConclude, NothingToCompare

ERRORS = {
    "reference": (BadReference("No such model."), 2, "No such model."),
    "unsure": (CouldNotConclude("The weights could not be read."), 3, "The weights could not be read."),
    "nothing": (NothingToCompare("There is no base."), 4, "There is no base."),
    "disk": (OSError(28, "No space left on device", "/full"), 3, "No space left on device: /full"),
    "bug": (ZeroDivisionError("division by zero"), 3, "internal error (ZeroDivisionError: division by zero)"),
}


@click.group()
@click.option("--debug", is_flag=True)
def root(debug: bool) -> None:
    """Stand in for the tool's own group, which has the same flag."""


@root.command()
@click.argument("name")
@ends_with_a_sentence
def fail(name: str) -> None:
    """Raise one of the errors."""
    raise ERRORS[name][0]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_sentence_and_a_code(name: str) -> None:
    _, code, words = ERRORS[name]
    done = CliRunner().invoke(root, ["fail", name])
    assert done.exit_code == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ERRORS)
def test_debug_shows_where_it_was_raised(name: str) -> None:
    error, code, words = ERRORS[name]
    done = CliRunner().invoke(root, ["--debug", "fail", name])
    assert done.exit_code == code
    assert "NoneType" not in done.stderr
    assert "Traceback (most recent call last)" in done.stderr
    assert f"raise ERRORS[name][0]\n{type(error).__module__.removeprefix('builtins')}".rstrip() in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"hubaudit: {words}")


def test_an_interrupt_does_not_say_that_something_was_found() -> None:
    @root.command()
    @ends_with_a_sentence
    def wait() -> None:
        raise KeyboardInterrupt

    done = CliRunner().invoke(root, ["wait"])
    assert done.exit_code == 3
    assert done.stderr == "hubaudit: interrupted; nothing was concluded, and the same command can be run again.\n"


def test_the_bars_of_the_client_library_are_for_terminals_alone() -> None:
    code = (
        "import os\n"
        "os.environ.pop('HF_HUB_DISABLE_PROGRESS_BARS', None)\n"
        "from pipelines.cli import cli\n"
        "cli(['explain', 'HA201'], standalone_mode=False)\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "raise SystemExit(0 if are_progress_bars_disabled() else 7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
