"""Documents are written whole or not at all."""

import stat
from pathlib import Path

import pytest

from pipelines.output import FORMATS, pair_outputs, write_document
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
    with pytest.raises(OSError):
        write_document("x", str(tmp_path / "no" / "a.txt"))
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError):
        write_document("x", str(tmp_path / "d"))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


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
