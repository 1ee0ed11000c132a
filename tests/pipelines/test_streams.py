"""Closed and full standard streams, as a shell leaves them to the real command."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sample_reports import rank_one

from pipelines.streams import CLOSED
from reports.json_v1 import dump

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the shell closes the streams")

TOLD = f"hubaudit: {CLOSED}\n"
REPORT = ("report", "saved.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one saved report."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "saved.json").write_bytes(dump(rank_one()))
    return folder


def run(folder: Path, *words: str, streams: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as ``sh`` does when ``streams`` stands at the end of its line."""
    line = f"exec {shlex.join([sys.executable, '-m', 'pipelines', *words])} {streams}"
    return subprocess.run(["/bin/sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [REPORT, ("explain", "HA201"), ("--help",), ("--version",)])
def test_a_closed_stdout_is_told_in_a_sentence(folder: Path, words: tuple[str, ...]) -> None:
    done = run(folder, *words, streams=">&-")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", TOLD)


def test_a_scan_is_refused_before_it_begins(folder: Path) -> None:
    done = run(folder, "scan", "./nowhere", streams=">&-")
    assert (done.returncode, done.stderr) == (3, TOLD), "not that there is no such folder"


def test_both_closed_still_say_that_nothing_was_written(folder: Path) -> None:
    done = run(folder, *REPORT, streams=">&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_a_closed_stderr_takes_nothing_from_stdout(folder: Path) -> None:
    done = run(folder, *REPORT, streams="2>&-")
    assert done.returncode == 0
    assert done.stdout == run(folder, *REPORT, streams="").stdout != ""
    assert run(folder, "nonsense", streams="2>&-").returncode == 2


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_is_written_whatever_is_closed(folder: Path, tmp_path: Path, streams: str) -> None:
    done = run(
        folder, *REPORT, "--output", str(tmp_path / "a.md"), "--output", str(tmp_path / "a.json"), streams=streams
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.json").read_bytes() == (folder / "saved.json").read_bytes()
    assert (tmp_path / "a.md").stat().st_size > 500


def test_no_file_gets_the_number_of_a_closed_stream_here_or_in_a_child(tmp_path: Path) -> None:
    code = (
        "import os, subprocess\n"
        "from pipelines.streams import stand_in_for_closed_streams\n"
        "stand_in_for_closed_streams()\n"
        "kept = open('kept', 'w')\n"
        "subprocess.run(['/bin/sh', '-c', 'echo stray; echo stray >&2'], check=True)\n"
        "os.write(1, b'stray'); os.write(2, b'stray')\n"
        "kept.write(str(kept.fileno()))\n"
    )
    line = f"exec {shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert int((tmp_path / "kept").read_text()) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("words", [REPORT, ("--help",)])
def test_a_full_stdout_is_told_in_a_sentence(folder: Path, words: tuple[str, ...]) -> None:
    done = run(folder, *words, streams=">/dev/full")
    assert (done.returncode, done.stderr) == (3, "hubaudit: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_stderr_never_reads_as_a_finding(folder: Path) -> None:
    assert run(folder, "nonsense", streams="2>/dev/full").returncode == 3
