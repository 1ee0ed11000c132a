import os
from pathlib import Path

import pytest
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from quickhub import pinned, quick_hub
from scripted import reply, scripted

from scanner.errors import (
    BadReference,
    CouldNotConclude,
    FileNotFound,
    FileTooLarge,
    HubUnreachable,
    RepoGated,
    RepoNotFound,
    RepoUnavailable,
    RevisionNotFound,
)
from scanner.hub import Hub, loses_encryption
from scanner.records import RepoRef
from scanner.refs import RepoSpec, parse_spec

CARD = "---\nbase_model: org/base\ntags: [x]\n---\nHello\n"
WEIGHTS = bytes(range(256)) * 64


@pytest.fixture
def server(hub_server: LocalHub) -> LocalHub:
    hub_server.add_repo("org/name", {"README.md": CARD, "sub/é ?#.txt": "odd name", "model.safetensors": WEIGHTS})
    return hub_server


def test_a_branch_is_pinned_to_its_commit(server: LocalHub) -> None:
    first = server.sha("org/name")
    server.set_ref("org/name", "refs/heads/v1", first)
    second = server.commit("org/name", {"x.txt": "y"})
    hub = quick_hub(server)
    assert pinned(hub, "org/name") == RepoRef(repo_id="org/name", revision=second)
    for revision in ("v1", first, first[:10]):
        assert pinned(hub, f"org/name@{revision}").revision == first
    assert pinned(hub, f"{server.endpoint}/org/name/tree/v1").revision == first
    assert hub.requests == len(server.log) == 5


def test_a_renamed_repository_goes_by_its_present_name(server: LocalHub) -> None:
    server.redirect("old/name", "org/name")
    server.redirect("name", "org/name")
    hub = quick_hub(server)
    assert pinned(hub, "old/name").repo_id == "org/name"
    assert pinned(hub, "name").repo_id == "org/name"


def test_describing_after_resolving_costs_one_request(server: LocalHub) -> None:
    issues = [{"path": "x.pkl", "level": "unsafe"}]
    server.add_repo("org/flagged", {"README.md": CARD}, security={"scansDone": True, "filesWithIssues": issues})
    hub = quick_hub(server)
    ref = pinned(hub, "org/flagged")
    about = hub.describe(ref)
    assert hub.requests == 2
    assert about["sha"] == ref.revision
    assert (about["base_models"], about["relation"]) == (("org/base",), "finetune")
    assert "base_model:finetune:org/base" in about["tags"]
    assert about["gated"] is False
    assert about["security"] == {"done": True, "issues": ({"path": "x.pkl", "level": "unsafe"},)}
    assert quick_hub(server).describe(ref) == about


def test_the_listing_is_whole_over_many_pages(server: LocalHub) -> None:
    server.configure(page_size=7)
    server.add_repo("org/many", {f"d{n // 10}/f{n}.txt": str(n) for n in range(40)})
    hub = quick_hub(server)
    ref = pinned(hub, "org/many")
    files = hub.files(ref)
    assert {f.path for f in files} == {".gitattributes", *(f"d{n // 10}/f{n}.txt" for n in range(40))}
    assert all(f.size_bytes > 0 and f.blob_id for f in files)
    assert hub.requests == 1 + 7  # 41 files and 4 folders


def test_the_listing_states_the_declared_hashes(server: LocalHub) -> None:
    hub = quick_hub(server)
    files = {f.path: f for f in hub.files(pinned(hub, "org/name"))}
    assert len(files["model.safetensors"].sha256 or "") == 64
    assert files["README.md"].sha256 is None


def test_an_endless_listing_is_refused(server: LocalHub, monkeypatch) -> None:
    monkeypatch.setattr("scanner.hub.MAX_FILES", 3)
    hub = quick_hub(server)
    with pytest.raises(CouldNotConclude, match="more than 3 files"):
        hub.files(pinned(hub, "org/name"))


@pytest.mark.parametrize("cdn", [False, True])
def test_small_files_are_read_whole_and_never_written(server: LocalHub, cdn: bool, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Path(os.environ["HF_HOME"])
    before = sorted(home.rglob("*"))  # other tests of this process have used the client's cache
    server.configure(cdn=cdn)
    hub = quick_hub(server)
    ref = pinned(hub, "org/name")
    assert hub.read_text(ref, "README.md", limit_bytes=1000) == CARD
    assert hub.read_text(ref, "sub/é ?#.txt", limit_bytes=1000) == "odd name"
    assert hub.read_bytes(ref, "model.safetensors", limit_bytes=len(WEIGHTS)) == WEIGHTS
    assert hub.requests == len(server.log) == (5 if cdn else 4)
    assert hub.bytes_received >= len(WEIGHTS)
    assert list(tmp_path.iterdir()) == []
    assert sorted(home.rglob("*")) == before


def test_a_small_file_that_is_too_large_is_not_read_to_its_end(server: LocalHub) -> None:
    server.add_repo("org/big", {"README.md": "x" * 9_000_000})
    hub = quick_hub(server)
    ref = pinned(hub, "org/big")
    with pytest.raises(FileTooLarge, match=r"'README.md' of org/big is larger than the 1,000 bytes"):
        hub.read_bytes(ref, "README.md", limit_bytes=1000)
    assert hub.bytes_received < 3_000_000


def test_text_that_is_not_utf8_is_replaced(server: LocalHub) -> None:
    server.add_repo("org/latin", {"README.md": b"caf\xe9"})
    hub = quick_hub(server)
    assert hub.read_text(pinned(hub, "org/latin"), "README.md", limit_bytes=99) == "caf\ufffd"


@pytest.mark.parametrize("path", ["../../org/other/resolve/main/x", "/x", "a/../x", "a\nb", "a\x1b[1m", "", "a//b"])
def test_names_that_lead_elsewhere_are_never_asked_for(server: LocalHub, path: str) -> None:
    hub = quick_hub(server)
    ref = pinned(hub, "org/name")
    before = hub.requests
    for read in (lambda: hub.read_bytes(ref, path, limit_bytes=9), lambda: hub.locate(ref, path)):
        with pytest.raises(FileNotFound, match="not a plain relative file name") as caught:
            read()
        assert str(caught.value).isprintable()
    assert hub.requests == before


def test_private_gated_and_missing_are_told_apart(server: LocalHub) -> None:
    server.add_repo("org/private", {"x": "y"}, private=True)
    server.add_repo("org/gated", {"README.md": CARD, "model.safetensors": WEIGHTS}, gated="manual")
    hub = quick_hub(server)
    for name in ("org/private", "org/missing"):
        with pytest.raises(RepoNotFound, match=f"{name} does not exist on the Hub or is private; .* set HF_TOKEN"):
            pinned(hub, name)
    gated = pinned(hub, "org/gated")
    assert hub.describe(gated)["gated"] == "manual"
    steps = f"org/gated is gated; accept its terms at {server.endpoint}/org/gated, then set HF_TOKEN"
    with pytest.raises(RepoGated, match=steps):
        hub.read_bytes(gated, "README.md", limit_bytes=1000)
    with pytest.raises(RepoGated, match=steps):
        hub.locate(gated, "model.safetensors")

    stranger = quick_hub(server, token=server.token("eve"))
    with pytest.raises(RepoNotFound, match="use a token that may read it"):
        pinned(stranger, "org/private")
    with pytest.raises(RepoGated, match="this token may not read it"):
        stranger.locate(gated, "model.safetensors")

    server.grant("ann", "org/gated")
    server.grant("ann", "org/private")
    ann = quick_hub(server, token=server.token("ann", "read"))
    assert pinned(ann, "org/private")
    assert ann.read_bytes(gated, "model.safetensors", limit_bytes=1 << 20) == WEIGHTS


def test_missing_revisions_and_files_are_told_apart(server: LocalHub) -> None:
    hub = quick_hub(server)
    with pytest.raises(RevisionNotFound, match=r"org/name has no revision 'nope'; see .*/org/name/commits"):
        pinned(hub, "org/name@nope")
    ref = pinned(hub, "org/name")
    with pytest.raises(FileNotFound, match=f"org/name has no file 'nope.txt' at {ref.revision}"):
        hub.read_bytes(ref, "nope.txt", limit_bytes=9)
    with pytest.raises(FileNotFound):
        hub.locate(ref, "nope.txt")
    gone = RepoRef(repo_id="org/name", revision="f" * 40)
    with pytest.raises(RevisionNotFound):
        hub.files(gone)


def test_a_disabled_repository_and_a_bad_token_are_named(server: LocalHub) -> None:
    server.add_repo("org/taken-down", {"x": "y"}, disabled=True)
    with pytest.raises(RepoUnavailable, match="disabled access to org/taken-down"):
        pinned(quick_hub(server), "org/taken-down")
    with pytest.raises(RepoUnavailable, match="refused the token"):
        pinned(quick_hub(server, token="hf_invented"), "org/name")


def test_a_refusal_is_not_asked_for_again(server: LocalHub) -> None:
    hub = quick_hub(server)
    with pytest.raises(RepoNotFound):
        pinned(hub, "org/missing")
    assert hub.requests == 1


def test_errors_of_the_hub_are_worded_when_reading_small_files(server: LocalHub) -> None:
    hub = quick_hub(server)
    ref = pinned(hub, "org/name")
    server.faults.add(Status(code=503), path="/resolve/", times=2)
    assert hub.read_text(ref, "README.md", limit_bytes=1000) == CARD
    server.faults.add(Status(code=500), path="/resolve/", times=FOR_EVER)
    with pytest.raises(HubUnreachable, match=r"'README.md' of org/name could not be read: .* 500 \(3 attempts\)"):
        hub.read_text(ref, "README.md", limit_bytes=1000)
    assert server.log.count("/resolve/") == 6


def test_a_foreign_storage_never_sees_the_token(server: LocalHub) -> None:
    server.configure(cdn=True)
    server.add_repo("org/private", {"model.safetensors": WEIGHTS}, private=True)
    hub = quick_hub(server, token=server.token("org"))
    ref = pinned(hub, "org/private")
    assert hub.read_bytes(ref, "model.safetensors", limit_bytes=1 << 20) == WEIGHTS
    assert hub.read_range(hub.locate(ref, "model.safetensors"), 5, 9) == WEIGHTS[5:9]
    hub_side, cdn_side = server.log.matching(side="hub"), server.log.matching(side="cdn")
    assert all(record.authorized for record in hub_side)
    assert len(cdn_side) == 2
    assert not any(record.authorized for record in cdn_side)


def test_a_stored_token_stays_at_its_own_endpoint(server: LocalHub, monkeypatch) -> None:
    server.register_token("hf_stored", "org")
    monkeypatch.setenv("HF_TOKEN", "hf_stored")
    pinned(quick_hub(server), "org/name")
    assert server.log.matching()[0].authorized
    with scripted(lambda _: reply(b"{}", 404)) as elsewhere:
        with pytest.raises(RepoNotFound):
            pinned(quick_hub(elsewhere.endpoint), "org/name")
        hub = quick_hub(elsewhere.endpoint)
        with pytest.raises(FileNotFound):
            hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
    assert len(elsewhere.calls) == 2
    assert all("authorization" not in call.headers for call in elsewhere.calls)


def test_commits_are_newest_first_and_as_many_as_wanted(server: LocalHub) -> None:
    for number in range(4):
        server.commit("org/name", {"n.txt": str(number)}, title=f"step {number}")
    hub = quick_hub(server)
    commits = hub.commits(pinned(hub, "org/name"), 3)
    assert [commit.title for commit in commits] == ["step 3", "step 2", "step 1"]
    assert commits[0].commit == server.sha("org/name")


def test_models_are_listed_page_by_page(server: LocalHub) -> None:
    server.configure(page_size=2)
    for number in range(5):
        server.add_repo(f"org/m{number}", {"README.md": CARD}, downloads=number)
    server.add_repo("org/other", {"README.md": "---\nbase_model: org/else\n---\n"})
    hub = quick_hub(server)
    found = hub.list_models(author="org", tags=("base_model:finetune:org/base",), sort="downloads", limit=4)
    assert hub.requests == 0
    assert next(found)["id"] == "org/m4"
    assert hub.requests == 1
    assert [model["id"] for model in found] == ["org/m3", "org/m2", "org/m1"]
    assert hub.requests == 2


def test_a_listing_that_fails_names_the_endpoint(server: LocalHub) -> None:
    server.faults.add(Status(code=400), path="/api/models?")
    with pytest.raises(RepoUnavailable, match=f"answered 400 when asked for {server.endpoint}"):
        list(quick_hub(server).list_models(author="org"))


def test_a_version_is_sent_and_need_not_be_known(server: LocalHub, monkeypatch) -> None:
    pinned(quick_hub(server), "org/name")
    monkeypatch.setattr("scanner.hub_session.DISTRIBUTION", "no-such-distribution")
    pinned(quick_hub(server), "org/name")
    known, unknown = (record.user_agent for record in server.log)
    assert known.startswith("hubaudit/")
    assert unknown.startswith("hubaudit/0;")


@pytest.mark.parametrize(
    ("asked", "given", "weaker"),
    [
        ("https://hub/x", "http://cdn/x", True),
        ("https://hub/x", "https://cdn/x", False),
        ("http://127.0.0.1/x", "http://127.0.0.1:1/x", False),
        ("https://hub/x", "ftp://cdn/x", True),
    ],
)
def test_encryption_is_not_given_up_on_the_way_to_the_storage(asked: str, given: str, weaker: bool) -> None:
    assert loses_encryption(asked, given) is weaker


@pytest.mark.parametrize(
    "body",
    [b"<html>Please log in</html>", b"", b"[]", b"{}", b'{"id": 3}', b'"x"', b"null", b"[" * 100_000],
    ids=lambda body: body[:12],
)
def test_something_that_is_not_a_hub_is_called_that(body: bytes) -> None:
    with scripted(lambda _: reply(body)) as server, pytest.raises(CouldNotConclude) as caught:
        pinned(quick_hub(server.endpoint, attempts=1), "org/name")
    assert "org/name" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "body", [b"{}", b"[3]", b'[{"type": "file"}]', b'[{"type":"file","path":"x","size":-1,"oid":"a"}]']
)
def test_a_listing_that_is_none_is_called_that(body: bytes) -> None:
    with scripted(lambda _: reply(body)) as server:
        hub = quick_hub(server.endpoint, attempts=1)
        ref = RepoRef(repo_id="org/name", revision="a" * 40)
        if body == b"{}":  # an empty object reads as an empty list to the client
            assert hub.files(ref) == ()
        else:
            with pytest.raises(HubUnreachable, match="does not answer like a Hub"):
                hub.files(ref)


def test_another_commit_than_the_one_asked_for_is_noticed(server: LocalHub) -> None:
    def wrong_commit(_):
        return reply(b"", x_repo_commit="b" * 40, etag='"x"', content_length="5")

    with scripted(wrong_commit) as lying, pytest.raises(HubUnreachable, match="another commit"):
        quick_hub(lying.endpoint).locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
    body = b'{"id":"org/name","sha":"' + b"b" * 40 + b'"}'
    with scripted(lambda _: reply(body)) as lying, pytest.raises(HubUnreachable, match="another commit"):
        pinned(quick_hub(lying.endpoint), "org/name@" + "a" * 40)


def test_a_file_without_a_size_is_not_located() -> None:
    with scripted(lambda _: b"HTTP/1.1 200 OK\r\nETag: x\r\nConnection: close\r\n\r\n") as server:
        hub = quick_hub(server.endpoint)
        with pytest.raises(HubUnreachable, match="does not say how large 'x' of org/name is"):
            hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")


@pytest.mark.parametrize("location", ["http://[", "http://a:b/", "\\\\", "file:///etc/passwd", "//", ""])
def test_a_senseless_address_is_an_error_in_our_words(location: str) -> None:
    answer = reply(b"", 302, location=location, etag='"x"', x_linked_size="5")

    def read(hub: Hub) -> bytes:
        return hub.read_range(hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x"), 0, 5)

    with scripted(lambda _: answer) as server, pytest.raises(HubUnreachable) as caught:
        read(quick_hub(server.endpoint))
    assert "of org/name" in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_empty_repository_has_nothing_to_pin() -> None:
    with scripted(lambda _: reply(b'{"id":"org/name"}')) as server, pytest.raises(RevisionNotFound, match="no commit"):
        pinned(quick_hub(server.endpoint), "org/name")


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://huggingface.co", "http://", "http://[", "\x1b"])
def test_an_endpoint_has_to_be_a_url(endpoint: str) -> None:
    with pytest.raises(BadReference, match="correct HF_ENDPOINT") as caught:
        Hub(endpoint)
    assert str(caught.value).isprintable()


def test_offline_mode_is_said(server: LocalHub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="offline mode is on; unset HF_HUB_OFFLINE"):
        quick_hub(server).resolve(parse_spec("org/name"))
    assert len(server.log) == 0


def test_an_id_that_the_client_refuses_is_a_bad_reference(server: LocalHub) -> None:
    with pytest.raises(BadReference, match="cannot be a repository"):
        quick_hub(server).resolve(RepoSpec(text="x", repo_id="org/na--me"))


def test_a_storage_without_encryption_is_not_read(server: LocalHub, monkeypatch) -> None:
    """The local server speaks plain HTTP, so only the wiring of the rule above is tried here."""
    monkeypatch.setattr("scanner.hub.loses_encryption", lambda asked, given: True)
    hub = quick_hub(server)
    with pytest.raises(HubUnreachable, match="unencrypted address; it is not read"):
        hub.locate(pinned(hub, "org/name"), "model.safetensors")
