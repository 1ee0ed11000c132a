"""Documents are written whole or not at all."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from pipelines.output import FORMATS, check_targets, pair_outputs, write_document
from pipelines.whole_file import whole_file
from reports.formats import RENDERERS


def test_text_and_bytes_are_written(tmp_path: Path) -> None:
    write_document("häh\n", str(tmp_path / "a.txt"))
    write_document(b"\x00\xff", str(tmp_path / "b.bin"))
    assert (tmp_path / "a.txt").read_bytes() == "häh\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"


def test_an_existing_file_is_replaced_and_no_temporary_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    write_document("new", str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "new"


def test_the_file_is_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    write_document("x", str(tmp_path / "a.txt"))
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) & 0o400


def test_a_folder_that_is_missing_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_document("x", str(tmp_path / "no" / "a.txt"))
    assert caught.value.filename == str(tmp_path / "no" / "a.txt"), "not the name of a temporary file"
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        write_document("x", str(tmp_path / "d"))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, whole_file(tmp_path / "a.txt"):
        Path("/dev/full").write_bytes(b"x" * 10_000)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old and longer")
    (tmp_path / "link.json").symlink_to("real.json")
    write_document("new", str(tmp_path / "link.json"))
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_document("x", str(pipe))
        assert read.result(timeout=60) == "x"
    assert pipe.is_fifo()


def test_an_error_of_a_library_keeps_its_text(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a column is odd"), whole_file(tmp_path / "a.txt"):
        raise OSError("a column is odd")


@pytest.mark.parametrize(
    ("formats", "outputs", "expected"),
    [
        (("json", "html"), ("a.html",), [("json", "-"), ("html", "a.html")]),
        (("html", "json"), ("a.html",), [("html", "a.html"), ("json", "-")]),
        (("json", "html"), ("a",), [("json", "a"), ("html", "-")]),
        (("html", "table", "sarif"), ("a.html", "a.sarif"), [("html", "a.html"), ("table", "-"), ("sarif", "a.sarif")]),
        (("json", "json"), ("a.json",), [("json", "a.json"), ("json", "-")]),
        (("json",), (), [("json", "-")]),
    ],
)
def test_the_format_without_a_file_goes_to_stdout(formats, outputs, expected) -> None:
    assert pair_outputs(formats, outputs) == expected


@pytest.mark.parametrize("second", ["a.json", "./a.json", "folder/../a.json"])
def test_one_file_under_two_spellings_is_refused(second: str) -> None:
    with pytest.raises(click.UsageError, match=r"two formats would go to .*a\.json"):
        pair_outputs(("json", "html"), ("a.json", second))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(click.UsageError, match="empty"):
        check_targets([("json", "")])


def test_stdout_ends_with_a_newline(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_document("x", "-")
    assert capfdbinary.readouterr().out == b"x\n"


def test_the_names_of_the_formats_are_those_of_the_renderers() -> None:
    assert tuple(RENDERERS) == FORMATS


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.json", "json"), ("a.cdx.json", "cyclonedx"), ("bom.json", "cyclonedx"), ("A.CDX.JSON", "cyclonedx")],
)
def test_the_suffix_says_the_format(name: str, expected: str) -> None:
    assert pair_outputs((), (f"folder/{name}",)) == [(expected, f"folder/{name}")]
