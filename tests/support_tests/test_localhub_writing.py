"""The real client writes to the local server: commits, pull requests, discussions, uploads."""

import base64
import json
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
    metadata_update,
)
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

CARD = "---\nlicense: mit\nbase_model: org/base\n---\n# Tuned\nWith <b>care</b>.\n"


@pytest.fixture
def main(hub_server):
    return hub_server.add_repo("org/tuned", {"README.md": CARD, "a.txt": "one\n", "model.safetensors": b"\0" * 64})


@pytest.fixture
def owner(hub_server):
    return HfApi(token=hub_server.token("org"))


@pytest.fixture
def bot(hub_server):
    return HfApi(token=hub_server.token("audit-bot"))


def add(path, text):
    return [CommitOperationAdd(path_in_repo=path, path_or_fileobj=text.encode())]


def refused(status):
    return pytest.raises(HfHubHTTPError, match=str(status))


def test_whoami(hub_server, bot):
    assert bot.whoami()["name"] == "audit-bot"
    reader = HfApi(token=hub_server.token("r", "read", orgs=["org"]))
    me = reader.whoami()
    assert (me["auth"]["accessToken"]["role"], me["orgs"][0]["name"]) == ("read", "org")


def test_commit_copy_delete(hub_server, main, owner):
    done = owner.create_commit("org/tuned", add("b.txt", "two"), commit_message="Add b", commit_description="why")
    assert hub_server.sha("org/tuned") == done.oid
    operations = [CommitOperationCopy("a.txt", "sub/c.txt"), CommitOperationDelete("a.txt")]
    owner.create_commit("org/tuned", operations, commit_message="Move a")
    assert hub_server.paths("org/tuned") == (".gitattributes", "README.md", "b.txt", "model.safetensors", "sub/c.txt")
    owner.delete_folder("sub", "org/tuned")
    assert "sub/c.txt" not in hub_server.paths("org/tuned")
    assert hub_server.read("org/tuned", "a.txt", main) == b"one\n"


def test_pull_request_from_a_stranger(hub_server, main, bot):
    done = bot.create_commit(
        "org/tuned", add("a.txt", "uno\n"), commit_message="Say it", commit_description="Because.", create_pr=True
    )

    assert (done.pr_num, done.pr_revision) == (1, "refs/pr/1")
    assert hub_server.sha("org/tuned") == main
    assert hub_server.read("org/tuned", "a.txt", "refs/pr/1") == b"uno\n"
    details = bot.get_discussion_details("org/tuned", 1)
    assert (details.status, details.target_branch, details.author) == ("open", "refs/heads/main", "audit-bot")
    assert [event.type for event in details.events] == ["comment", "commit"]
    assert details.events[0].content == "Because."
    assert details.diff == "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+uno\n"

    bot.create_commit("org/tuned", add("b.txt", "x"), commit_message="More", revision="refs/pr/1")
    assert Path(hf_hub_download("org/tuned", "b.txt", revision="refs/pr/1")).read_text() == "x"
    diff = bot.get_discussion_details("org/tuned", 1).diff
    assert diff.endswith("--- /dev/null\n+++ b/b.txt\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n")
    [pull] = bot.list_repo_refs("org/tuned", include_pull_requests=True).pull_requests
    assert (pull.name, pull.target_commit) == ("1", hub_server.sha("org/tuned", "refs/pr/1"))


def test_who_may_commit_where(hub_server, main, bot, owner):
    with refused(403):
        bot.create_commit("org/tuned", add("b.txt", "x"), commit_message="m")
    bot.create_commit("org/tuned", add("b.txt", "x"), commit_message="m", create_pr=True)
    other = HfApi(token=hub_server.token("mallory"))
    with refused(403):
        other.create_commit("org/tuned", add("b.txt", "y"), commit_message="m", revision="refs/pr/1")
    reader = HfApi(token=hub_server.token("audit-bot", "read"))
    with refused(403):
        reader.create_commit("org/tuned", add("b.txt", "y"), commit_message="m", create_pr=True)
    with refused(401):
        HfApi(token=False).create_commit("org/tuned", add("b.txt", "y"), commit_message="m", create_pr=True)
    with pytest.raises(RevisionNotFoundError):
        bot.create_commit("org/tuned", add("b.txt", "y"), commit_message="m", revision=main, create_pr=True)
    hub_server.add_repo("org/closed", {"a.txt": "x"}, pull_requests=False)
    with refused(403):
        bot.create_commit("org/closed", add("b.txt", "y"), commit_message="m", create_pr=True)
    with refused(403):
        list(bot.get_repo_discussions("org/closed"))
    owner.create_commit("org/tuned", add("b.txt", "x"), commit_message="m")
    helper = HfApi(token=hub_server.token("helper", orgs=["org"]))
    assert helper.create_commit("org/tuned", add("c.txt", "x"), commit_message="m").oid == hub_server.sha("org/tuned")


def test_stale_parent(hub_server, main, owner, bot):
    hub_server.commit("org/tuned", {"a.txt": "meanwhile\n"})
    with refused(412):
        owner.create_commit("org/tuned", add("a.txt", "late"), commit_message="m", parent_commit=main)
    bot.create_commit("org/tuned", add("b.txt", "x"), commit_message="m", create_pr=True, parent_commit=main)
    assert hub_server.read("org/tuned", "a.txt", "refs/pr/1") == b"one\n"
    assert "a.txt" not in bot.get_discussion_details("org/tuned", 1).diff


def test_nothing_changed_opens_nothing(hub_server, main, bot):
    done = bot.create_commit("org/tuned", add("a.txt", "one\n"), commit_message="m", create_pr=True)
    assert done.pr_url is None
    assert hub_server.discussions("org/tuned") == ()
    assert hub_server.log.count("/commit/", method="POST") == 0


def test_merge(hub_server, main, owner, bot):
    bot.create_commit("org/tuned", add("a.txt", "uno\n"), commit_message="Better", create_pr=True)
    bot.create_commit("org/tuned", [CommitOperationDelete("a.txt")], commit_message="Away", create_pr=True)
    with refused(403):
        bot.merge_pull_request("org/tuned", 1)
    owner.merge_pull_request("org/tuned", 1, comment="Thanks")

    details = owner.get_discussion_details("org/tuned", 1)
    assert (details.status, details.merge_commit_oid) == ("merged", hub_server.sha("org/tuned"))
    assert "+uno" in details.diff
    assert hub_server.read("org/tuned", "a.txt") == b"uno\n"
    assert hub_server.discussions("org/tuned")[0].comments == ("Thanks",)
    with refused(409):
        owner.merge_pull_request("org/tuned", 1)
    with refused(409):
        owner.merge_pull_request("org/tuned", 2)
    assert owner.get_discussion_details("org/tuned", 2).conflicting_files == ["a.txt"]
    assert hub_server.read("org/tuned", "a.txt") == b"uno\n"
    with refused(409):
        owner.change_discussion_status("org/tuned", 1, "open")


def test_card_pushes(hub_server, main, owner, bot):
    card = ModelCard.load("org/tuned")
    card.text += "\nAudited.\n"
    card.push_to_hub("org/tuned", create_pr=True, token=bot.token)
    assert hub_server.read("org/tuned", "README.md", "refs/pr/1").endswith(b"\nAudited.\n")
    metadata_update("org/tuned", {"pipeline_tag": "fill-mask"}, token=owner.token)
    assert owner.model_info("org/tuned").pipeline_tag == "fill-mask"
    broken = add("README.md", "---\nlicense: [mit\n---\n")
    with pytest.raises(ValueError, match="YAML"):
        owner.create_commit("org/tuned", broken, commit_message="m")
    listed = add("README.md", "---\nbase_model: {a: 1}\n---\n")
    with pytest.raises(ValueError, match="base_model"):
        owner.create_commit("org/tuned", listed, commit_message="m")


def test_discussions(hub_server, main, owner, bot):
    opened = bot.create_discussion("org/tuned", "A question", description="Why?")
    draft = bot.create_pull_request("org/tuned", "An idea")
    bot.create_commit("org/tuned", add("b.txt", "x"), commit_message="Ready", create_pr=True)
    assert (opened.num, draft.num, draft.status) == (1, 2, "draft")

    said = owner.comment_discussion("org/tuned", 1, "Because <script>")
    edited = owner.edit_discussion_comment("org/tuned", 1, said.id, "Since.")
    assert (edited.content, edited.edited, edited.number_of_edits) == ("Since.", True, 1)
    assert "<script>" not in edited._event["data"]["history"][0]["html"]
    with refused(403):
        bot.edit_discussion_comment("org/tuned", 1, said.id, "No!")
    with pytest.warns(UserWarning, match="irreversible"):
        owner.hide_discussion_comment("org/tuned", 1, said.id)
    owner.rename_discussion("org/tuned", 1, "The question")
    owner.change_discussion_status("org/tuned", 1, "closed", comment="Done")
    stranger = HfApi(token=hub_server.token("mallory"))
    with refused(403):
        stranger.rename_discussion("org/tuned", 1, "Mine now")

    first = bot.get_discussion_details("org/tuned", 1)
    assert [event.type for event in first.events] == ["comment", "comment", "title-change", "comment", "status-change"]
    assert (first.title, first.status, first.events[1].hidden) == ("The question", "closed", True)

    def listed(**how):
        return [one.num for one in bot.get_repo_discussions("org/tuned", **how)]

    assert listed() == [3, 2, 1]
    assert listed(discussion_type="pull_request", author="audit-bot", discussion_status="open") == [3, 2]
    assert listed(discussion_type="discussion", discussion_status="closed") == [1]
    assert listed(author="nobody") == []
    with refused(404):
        bot.get_discussion_details("org/tuned", 9)


def test_discussion_pages(hub_server, main, bot):
    for number in range(23):
        bot.create_discussion("org/tuned", f"Number {number}")
    assert len(list(bot.get_repo_discussions("org/tuned"))) == 23
    assert hub_server.log.count("/discussions?", method="GET") in {3, 4}


# The client itself uploads in a way that its HTTP library deprecates.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_lfs_upload_and_create_repo(hub_server, tmp_path):
    api = HfApi(token=hub_server.token("alice"))
    assert api.create_repo("alice/new", private=True) == f"{hub_server.endpoint}/alice/new"
    api.create_repo("alice/new", exist_ok=True)
    with refused(409):
        api.create_repo("alice/new")
    with refused(403):
        api.create_repo("org/mine")
    weights = bytes(range(256)) * 64
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.bin").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    api.upload_folder(repo_id="alice/new", folder_path=folder)
    assert hub_server.read("alice/new", "model.bin") == weights
    assert hub_server.log.count("/repos/alice/new/", method="PUT", side="cdn", status=200) == 1
    api.upload_file(repo_id="alice/new", path_in_repo="copy.bin", path_or_fileobj=weights)
    assert hub_server.log.count("/repos/alice/new/", method="PUT") == 1
    [file] = api.get_paths_info("alice/new", "copy.bin")
    assert file.lfs.size == len(weights)


@pytest.mark.parametrize("path", ["../up.txt", "/abs.txt", "a//b.txt", ".git/config", "a/./b"])
def test_paths_that_leave_the_repository_are_refused(hub_server, main, owner, path):
    lines = [
        {"key": "header", "value": {"summary": "m"}},
        {"key": "file", "value": {"path": path, "content": base64.b64encode(b"x").decode(), "encoding": "base64"}},
    ]
    reply = httpx2.post(
        f"{hub_server.endpoint}/api/models/org/tuned/commit/main",
        content="\n".join(json.dumps(line) for line in lines),
        headers={"Authorization": f"Bearer {owner.token}"},
    )
    assert reply.status_code == 400
    assert hub_server.sha("org/tuned") == main


def test_malformed_commits_are_refused(hub_server, main, owner):
    for body in (
        b"",
        b"{",
        b'{"key": "header"}',
        b'{"key":"header","value":{"summary":"m"}}\n{"key":"lfsFile","value":{"path":"x.bin","oid":"00"}}',
    ):
        reply = httpx2.post(
            f"{hub_server.endpoint}/api/models/org/tuned/commit/main?create_pr=1",
            content=body,
            headers={"Authorization": f"Bearer {owner.token}"},
        )
        assert reply.status_code == 400, body
    assert hub_server.discussions("org/tuned") == ()


def test_a_refused_pull_request_leaves_nothing_behind(hub_server, main, bot):
    with refused(404):
        bot.create_commit("org/tuned", [CommitOperationDelete("absent")], commit_message="m", create_pr=True)
    assert hub_server.discussions("org/tuned") == ()
    assert bot.list_repo_refs("org/tuned", include_pull_requests=True).pull_requests == []


def test_uploads_must_be_what_they_claim(hub_server, owner):
    hub_server.add_repo("org/tuned", {"a.txt": "x"})
    headers = {"Authorization": f"Bearer {owner.token}"}
    wanted = {"oid": "ab" * 32, "size": 1}
    batch = f"{hub_server.endpoint}/org/tuned.git/info/lfs/objects/batch"
    [answer] = httpx2.post(batch, json={"objects": [wanted]}, headers=headers).json()["objects"]
    assert httpx2.put(answer["actions"]["upload"]["href"], content=b"x").status_code == 400
    assert httpx2.post(answer["actions"]["verify"]["href"], json=wanted, headers=headers).status_code == 404


def test_chunked_bodies(hub_server, main, owner):
    lines = [
        b'{"key": "header", "value": {"summary": "Chunks"}}\n',
        b'{"key": "file", "value": {"path": "b.txt", "content": "eA==", "encoding": "base64"}}\n',
    ]
    url = f"{hub_server.endpoint}/api/models/org/tuned/commit/main"
    with httpx2.Client(headers={"Authorization": f"Bearer {owner.token}"}) as client:
        assert client.post(url, content=iter(lines)).status_code == 200
        assert client.get(f"{hub_server.endpoint}/api/models/org/tuned").json()["sha"] == hub_server.sha("org/tuned")
    assert hub_server.read("org/tuned", "b.txt") == b"x"
