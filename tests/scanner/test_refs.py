from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import BadReference
from scanner.refs import as_repo_id, parse_spec

LOCAL = "http://127.0.0.1:8123"


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("org/name", "org/name", None),
        ("gpt2", "gpt2", None),
        ("  org/name\n", "org/name", None),
        ("org/name@main", "org/name", "main"),
        ("gpt2@607a30d", "gpt2", "607a30d"),
        ("org/name@refs/pr/12", "org/name", "refs/pr/12"),
        ("Org-1/na.me_2@v1.0+x", "Org-1/na.me_2", "v1.0+x"),
        ("https://huggingface.co/org/name", "org/name", None),
        ("http://huggingface.co/org/name/", "org/name", None),
        ("https://hf.co/gpt2", "gpt2", None),
        ("huggingface.co/org/name", "org/name", None),
        ("https://huggingface.co/gpt2/tree/main", "gpt2", "main"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3", "org/name", "refs/pr/3"),
        ("https://huggingface.co/org/name/tree/refs/pr/3/sub", "org/name", "refs/pr/3"),
        ("https://huggingface.co/org/name/blob/dev/config.json?x=1#L3", "org/name", "dev"),
        ("https://huggingface.co/org/name/resolve/dev/model.safetensors", "org/name", "dev"),
        ("https://huggingface.co/org/name/commit/" + "a" * 40, "org/name", "a" * 40),
        ("https://huggingface.co/org/name/discussions/4", "org/name", None),
        (f"{LOCAL}/org/name/tree/v2", "org/name", "v2"),
    ],
)
def test_ids_and_urls_are_read(text: str, repo_id: str, revision: str | None) -> None:
    spec = parse_spec(text, endpoint=LOCAL)
    assert (spec.repo_id, spec.revision, spec.path) == (repo_id, revision, None)
    assert spec.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a/b/c",
        "org/",
        "org//name",
        "-org/name",
        "org/name.",
        "org/na--me",
        "org/na..me",
        "org/name.git",
        "org/name@",
        "org/name@a b",
        "org/name@../../x",
        "org/name@-x",
        "org/näme",
        "org/na\x1b[31mme",
        "org/na\nme",
        "x" * 97,
        "x" * 300,
        "o/" + "x" * 2000,
        "<b>org</b>/name",
        "https://github.com/org/name",
        "https://huggingface.co.evil.example/org/name",
        "https://user:secret@huggingface.co/org/name",
        "https://huggingface.co/",
        "https://huggingface.co/datasets/org/name",
        "https://huggingface.co/spaces/org/name",
        "https://huggingface.co/org/name/tree/a%20b",
        "https://[::1/org/name",
        "ftp://huggingface.co/org/name",
        "file:///etc",
        "./missing",
        "../missing",
        "/missing/folder",
        "~nobody-of-that-name/x",
    ],
)
def test_everything_else_is_refused_in_one_sentence(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadReference) as caught:
        parse_spec(text)
    message = str(caught.value)
    assert message.endswith("give org/name, org/name@revision, a Hub URL or a local folder.")
    assert message.isprintable()
    assert "secret" not in message
    assert len(message) < 600


def test_loopback_urls_need_the_endpoint() -> None:
    with pytest.raises(BadReference, match="is not a URL of the Hub"):
        parse_spec(f"{LOCAL}/org/name")


def test_an_existing_folder_wins_unless_a_revision_is_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert parse_spec("org/name").path == "org/name"
    assert parse_spec("org").path == "org"
    assert parse_spec("./org").path == "org"
    assert parse_spec(str(tmp_path / "org")).path == str(tmp_path / "org")
    assert parse_spec("org/name@main").repo_id == "org/name"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_spec("~/org").path == str(tmp_path / "org")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(BadReference, match="is a file and no folder; give"):
        parse_spec(str(file))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("org/name", "org/name"),
        (" org/name ", "org/name"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("https://huggingface.co/org/name", "org/name"),
        ("https://huggingface.co/org/name/tree/main", "org/name"),
        ("huggingface.co/org/name", "org/name"),
        ("https://example.com/org/name", None),
        ("https://huggingface.co/datasets/org/name", None),
        ("./output/checkpoint-500", None),
        ("/home/me/model", None),
        ("~/model", None),
        ("C:\\models\\x", None),
        ("a/b/c", None),
        ("none", None),
        ("None", None),
        ("unknown", None),
        ("", None),
        ("[org/name](https://huggingface.co/org/name)", None),
        ("<script>alert(1)</script>", None),
        ("org/name\norg/other", None),
        ("x" * 5000, None),
        (["org/name"], None),
        (None, None),
        (7, None),
        (True, None),
    ],
)
def test_a_card_value_is_an_id_or_nothing(value: object, expected: str | None) -> None:
    assert as_repo_id(value) == expected


@given(st.text(max_size=40) | st.from_regex(r"[\w.-]{1,9}(/[\w.-]{1,9})?", fullmatch=True))
def test_every_accepted_id_is_one_that_the_client_accepts(text: str) -> None:
    accepted = as_repo_id(text)
    if accepted is None:
        return
    try:
        validate_repo_id(accepted)
    except HFValidationError as error:
        raise AssertionError(accepted) from error
