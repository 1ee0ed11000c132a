from pathlib import Path

import pytest

from pipelines.publishing.consent import card_opts_out, is_own, read_list
from scanner.errors import BadReference


def test_a_list_names_repositories_and_owners(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"# people who said no\r\nOrg/Model  # in May\r\n\r\nacme/*\r\nsomebody\r\n")
    found = read_list(path)
    assert "org/model" in found
    assert "ORG/MODEL" in found
    assert "org/model-2" not in found
    assert "acme/anything" in found
    assert "somebody/x" in found
    assert "acme2/x" not in found


@pytest.mark.parametrize("line", ["org/model extra", "a/b/c", "*", "*/x", "https://huggingface.co/a/b", "org/\x1b[2J"])
def test_a_list_that_cannot_be_understood_protects_nobody_and_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list"
    path.write_text(f"fine/one\n{line}\n")
    with pytest.raises(BadReference, match="line 2"):
        read_list(path)


@pytest.mark.parametrize(
    "value", ["false", "False", "off", "no", "never", '"no"', "opt-out", "{publish: false}", "{publish: no}"]
)
def test_these_say_no(value: str) -> None:
    assert card_opts_out(f"---\nlicense: mit\nhubaudit: {value}\n---\n# T\n".encode())


@pytest.mark.parametrize("value", ["true", "yes", "", "maybe", "{publish: true}", "[no]", "0.1"])
def test_these_do_not(value: str) -> None:
    assert not card_opts_out(f"---\nlicense: mit\nhubaudit: {value}\n---\n# T\n".encode())


def test_only_metadata_counts() -> None:
    assert not card_opts_out(b"# T\n\nhubaudit: false\n")
    assert not card_opts_out(b"---\nx: 1\n---\nhubaudit: false\n")
    assert not card_opts_out(b"")
    assert not card_opts_out(b"\xff\xfe")


def test_ones_own_is_told_by_namespace() -> None:
    assert is_own("Me/model", user="me", orgs=())
    assert is_own("Org/model", user="me", orgs=["org"])
    assert not is_own("me-too/model", user="me", orgs=["org"])
