import io
from pathlib import Path

import pytest
from actionrunner import commands_in, outputs_in

from pipelines.actions.protocol import ANNOTATIONS_SHOWN, Runner

HOSTILE = [
    "::error::x",
    "  ::set-output name=a::b",
    "\t::add-mask::x",
    "##[add-path]/x",
    "text ##[set-env name=A;]b",
    "\x1b[0m::error::x",
    "\r::error::x",
    "a\u2028::error::x",
    "::stop-commands::t",
]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_said_is_a_command(stream: io.StringIO, text: str) -> None:
    Runner({}, stream).say(text)
    assert [name for name, _, _ in commands_in(stream.getvalue())] == ["stop-commands"]
    inner = "\n".join(line for line in stream.getvalue().splitlines() if not line.startswith("::"))
    assert commands_in(inner) == []
    assert "\x1b" not in inner


def test_commands_work_again_after_something_was_said(stream: io.StringIO) -> None:
    runner = Runner({}, stream)
    runner.say("::error::one")
    runner.annotate("notice", "title", "two")
    assert commands_in(stream.getvalue())[-1] == ("notice", "title=title", "two")


@pytest.mark.parametrize("text", [*HOSTILE, "100% a:b,c", "x\n::error::y", "file=x,line=1"])
def test_an_annotation_is_one_command(stream: io.StringIO, text: str) -> None:
    Runner({}, stream).annotate("error", text, text)
    ((name, properties, data),) = commands_in(stream.getvalue())
    assert name == "error"
    assert properties.count("=") == 1 + text.count("=")
    assert "," not in properties
    assert "\n" not in data


def test_surplus_annotations_are_only_said(stream: io.StringIO) -> None:
    runner = Runner({}, stream)
    for number in range(ANNOTATIONS_SHOWN + 3):
        runner.annotate("error", "t", f"number {number}")
    assert [name for name, _, _ in commands_in(stream.getvalue())].count("error") == ANNOTATIONS_SHOWN
    assert "t: number 12" in stream.getvalue()


def test_outputs_are_one_line_each(tmp_path: Path, stream: io.StringIO) -> None:
    file = tmp_path / "out"
    runner = Runner({"GITHUB_OUTPUT": str(file)}, stream)
    runner.output("verdict", "pass")
    runner.output("report-path", "a=b<<c")
    with pytest.raises(ValueError, match="spans lines"):
        runner.output("verdict", "x\nverdict=pass")
    assert outputs_in(file.read_text()) == {"verdict": "pass", "report-path": "a=b<<c"}


def test_the_summary_stays_below_the_limit(tmp_path: Path, stream: io.StringIO) -> None:
    file = tmp_path / "summary"
    runner = Runner({"GITHUB_STEP_SUMMARY": str(file)}, stream)
    assert runner.summarise("x" * 600_000)
    assert not runner.summarise("y" * 600_000)
    assert runner.summarise("## short")
    assert file.stat().st_size < 1 << 20
    assert not Runner({}, stream).summarise("nowhere to go")
