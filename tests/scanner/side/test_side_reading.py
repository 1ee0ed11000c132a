"""What counts as the same file, and that each is asked for once."""

import pytest

from scanner.errors import FileNotFound
from scanner.records import FileEntry, RepoRef
from scanner.side.reading import Remembered, same_bytes

REF = RepoRef(path="/x")


def entry(**changes) -> FileEntry:
    return FileEntry(**{"path": "a", "size_bytes": 3, **changes})


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (entry(blob_id="1"), entry(blob_id="1"), True),
        (entry(blob_id="1"), entry(blob_id="2"), False),
        (entry(), entry(), False),
        (entry(blob_id="1"), None, False),
        (entry(blob_id="1"), entry(blob_id="1", size_bytes=4), False),
        # What the uploader claims is believed together with the storage's own hash only.
        (entry(blob_id="1", sha256="s"), entry(blob_id="1", sha256="s"), False),
        (entry(sha256="s", xet_hash="x"), entry(sha256="s", xet_hash="x"), True),
        (entry(sha256="s", xet_hash="x"), entry(sha256="s", xet_hash="y"), False),
        (entry(blob_id="1", sha256="s"), entry(blob_id="1"), False),
    ],
)
def test_the_same_file(mine, theirs, same):
    assert same_bytes(mine, theirs) is same


class Counting:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def read_text(self, ref: RepoRef, path: str, *, limit_bytes: int) -> str:
        self.asked.append(path)
        if path == "gone":
            raise FileNotFound("gone")
        return path


def test_each_file_is_asked_for_once_and_refusals_are_kept():
    reader = Counting()
    kept = Remembered(reader)
    for _ in range(3):
        assert kept.read_text(REF, "a", limit_bytes=9) == "a"
        with pytest.raises(FileNotFound):
            kept.read_text(REF, "gone", limit_bytes=9)
    assert reader.asked == ["a", "gone"]
