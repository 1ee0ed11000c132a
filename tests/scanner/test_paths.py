import pytest

from scanner.paths import is_plain_path, shown

PLAIN = [
    "model.safetensors",
    "sub/dir/file.json",
    "a b.txt",
    "ünï/文件.json",
    ".gitattributes",
    "<b>x</b>",
    "a..b",
    "...",
]
ODD = [
    "",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    ".",
    "..",
    "a\nb",
    "a\rb",
    "a\x00b",
    "\x1b[31mred",
    "a\u202eb",
    "a\u2028b",
    "a\ud800b",
    "C:evil",
    "a\\..\\b",
    "x" * 1025,
]


@pytest.mark.parametrize("path", PLAIN)
def test_ordinary_names_pass(path: str) -> None:
    assert is_plain_path(path)


@pytest.mark.parametrize("path", ODD, ids=ascii)
def test_odd_names_do_not(path: str) -> None:
    assert not is_plain_path(path)


@pytest.mark.parametrize("path", [*PLAIN, *ODD], ids=ascii)
def test_what_is_shown_is_plain_ascii(path: str) -> None:
    assert shown(path).isascii()
    assert shown(path).isprintable()
    assert len(shown(path, 20)) <= 20 * 10 + 10
