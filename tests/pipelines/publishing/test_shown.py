import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from stopwatch import at_most

from pipelines.publishing.shown import unified_diff

LINES = st.lists(st.sampled_from(["a", "b", "c", "", "same"]), max_size=30).map("\n".join)


def apply(folder: Path, shown: str) -> None:
    subprocess.run(["git", "apply", "-p1", "--whitespace=nowarn"], cwd=folder, input=shown, text=True, check=True)


@settings(max_examples=60, deadline=None)
@given(before=LINES, start=st.integers(0, 100), end=st.integers(0, 100), inserted=LINES)
def test_the_diff_is_one_that_git_applies(tmp_path_factory, before: str, start: int, end: int, inserted: str) -> None:
    start, end = sorted((min(start, len(before)), min(end, len(before))))
    after = before[:start] + inserted + before[end:]
    folder = tmp_path_factory.mktemp("diff")
    path = folder / "README.md"
    path.write_text(before)
    shown = unified_diff(before.encode(), after.encode(), "README.md")
    if shown:
        apply(folder, shown)
    assert path.exists() or not after
    assert (path.read_text() if path.exists() else "") == after


def test_no_change_shows_nothing() -> None:
    assert unified_diff(b"x", b"x", "README.md") == ""


def test_a_large_block_is_replaced_as_a_whole(tmp_path: Path) -> None:
    before = "head\n" + "".join(f"old {n}\n" for n in range(1000)) + "tail\n"
    after = "head\n" + "".join(f"new {n}\n" for n in range(900)) + "tail\n"
    (tmp_path / "README.md").write_text(before)
    shown = unified_diff(before.encode(), after.encode(), "README.md")
    apply(tmp_path, shown)
    assert (tmp_path / "README.md").read_text() == after


def test_text_made_to_be_slow_is_fast() -> None:
    rows = [f"{number % 397}\n" for number in range(40_000)]
    with at_most(5):
        unified_diff("".join(rows).encode(), "".join(reversed(rows)).encode(), "README.md")


def test_control_characters_are_shown_not_sent() -> None:
    shown = unified_diff("\x1b[2J\u202e\tx\r\n\x85".encode() + b"\xff", b"y", "README.md")
    assert "-\\x1b[2J\\u202e\tx\n" in shown
    assert not set(shown) & {"\x1b", "\u202e", "\r", "\x85"}
