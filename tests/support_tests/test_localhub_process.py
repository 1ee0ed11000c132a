"""The local server as a process of its own, and its pages for people."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "localhub", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )


def test_publishes_a_folder_until_terminated(tmp_path):
    repo = tmp_path / "org" / "model"
    (repo / "sub").mkdir(parents=True)
    (repo / "config.json").write_text('{"model_type": "bert"}')
    (repo / "sub" / "model.bin").write_bytes(b"\0" * 100)
    (tmp_path / "stray.txt").write_text("not a repository")

    with start("--folder", str(tmp_path), "--token", "hf_mine=bot", "--cdn") as process:
        word, endpoint = process.stdout.readline().split()
        api = HfApi(endpoint=endpoint, token="hf_mine")
        files = set(api.list_repo_files("org/model"))
        done = api.create_commit("org/model", [CommitOperationAdd("a.txt", b"x")], commit_message="Add", create_pr=True)
        page = httpx2.get(done.pr_url)
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=10)

    assert word == "endpoint"
    assert files == {".gitattributes", "config.json", "sub/model.bin"}
    assert page.status_code == 200
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("options", [["--folder", "/does/not/exist"], ["--token", "nonsense"]])
def test_bad_options_are_usage_errors(options):
    with start(*options) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert options[1] in errors


def test_pages_escape_everything(hub_server):
    evil = "<script>alert(1)</script>"
    hub_server.add_repo("org/m", {"README.md": f"# {evil}", f"{evil}.txt": "x"})
    api = HfApi(token=hub_server.token("bot"))
    change = [CommitOperationAdd("a.txt", f"{evil}\n".encode())]
    api.create_commit("org/m", change, commit_message=f"T {evil}", commit_description=evil, create_pr=True)
    api.rename_discussion("org/m", 1, f"New {evil}")

    for path in ("org/m", "org/m/discussions/1"):
        page = httpx2.get(f"{hub_server.endpoint}/{path}")
        assert page.status_code == 200
        assert "&lt;script&gt;" in page.text
        assert "<script" not in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "+&lt;script&gt;alert(1)" in page.text
    assert httpx2.get(f"{hub_server.endpoint}/org/m/discussions/2").status_code == 404


def test_pages_of_private_repositories_are_hidden(hub_server):
    hub_server.add_repo("org/secret", {"README.md": "hush"}, private=True)
    assert httpx2.get(f"{hub_server.endpoint}/org/secret").status_code == 401
    assert httpx2.get(f"{hub_server.endpoint}/api/nothing").status_code == 404
