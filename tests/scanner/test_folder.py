import os
from pathlib import Path

import pytest

from scanner.errors import BadReference, CouldNotConclude, FileNotFound, FileTooLarge, RepoUnavailable
from scanner.folder import list_folder, read_file
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.refs import RepoSpec, parse_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here = tmp_path / "model"
    (here / "sub").mkdir(parents=True)
    (here / "b.json").write_text("{}")
    (here / "sub" / "a.txt").write_bytes(b"\xffabc")
    (here / ".git").mkdir()
    (here / ".git" / "HEAD").write_text("x")
    blob = tmp_path / "blob"
    blob.write_bytes(b"12345")
    (here / "model.safetensors").symlink_to(blob)  # as in the cache of the Hub client
    (here / "broken").symlink_to(tmp_path / "nothing")
    (here / "outside").symlink_to("/etc", target_is_directory=True)
    os.mkfifo(here / "pipe")
    return here


def test_regular_files_are_listed_and_nothing_else(folder: Path) -> None:
    assert [(e.path, e.size_bytes) for e in list_folder(str(folder))] == [
        ("b.json", 2),
        ("model.safetensors", 5),
        ("sub/a.txt", 4),
    ]


def test_a_file_is_read_within_its_limit(folder: Path) -> None:
    assert read_file(str(folder), "model.safetensors", limit_bytes=5) == b"12345"
    with pytest.raises(FileTooLarge, match=r"'model.safetensors' is larger than the 4 bytes"):
        read_file(str(folder), "model.safetensors", limit_bytes=4)


@pytest.mark.parametrize("path", ["missing", "pipe", "broken", "sub", "../blob", "/etc/passwd", "a\nb"])
def test_what_is_not_a_file_of_the_folder_is_not_found(folder: Path, path: str) -> None:
    with pytest.raises(FileNotFound) as caught:
        read_file(str(folder), path, limit_bytes=100)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
def test_a_file_that_cannot_be_read_says_why(folder: Path) -> None:
    (folder / "config.json").symlink_to("/proc/self/mem")
    with pytest.raises(RepoUnavailable, match=r"'config.json' cannot be read: Input/output error"):
        read_file(str(folder), "config.json", limit_bytes=100)


def test_too_many_files_are_refused(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("scanner.folder.MAX_FILES", 2)
    with pytest.raises(CouldNotConclude, match="more than 2 files"):
        list_folder(str(folder))


def test_a_vanished_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CouldNotConclude, match="is gone"):
        list_folder(str(tmp_path / "gone"))
    with pytest.raises(BadReference, match="is not an existing folder"):
        Hub().resolve(RepoSpec(text="x", path=str(tmp_path / "gone")))


def test_the_hub_reads_folders_without_a_request(folder: Path) -> None:
    hub = Hub()
    ref = hub.resolve(parse_spec(str(folder)))
    assert ref == RepoRef(path=str(folder))
    assert len(hub.files(ref)) == 3
    assert hub.read_text(ref, "sub/a.txt", limit_bytes=10) == "\ufffdabc"
    assert hub.describe(ref) == {}
    assert hub.commits(ref, 5) == ()
    assert hub.requests == 0
