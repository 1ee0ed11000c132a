"""The real client reads from the local server."""

import hashlib
import json
import time
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, get_safetensors_metadata, hf_hub_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from localhub.blobs import Declared
from localhub.cards import check_card
from safetensors.torch import save

CARD = "---\nbase_model: org/base\nlicense: mit\ntags: [demo]\nreleased: 2024-01-01\n---\n# Tuned\n"


def weights(rows=4):
    return save(
        {"w": torch.arange(rows * 8, dtype=torch.float32).reshape(rows, 8), "b": torch.zeros(3, dtype=torch.bfloat16)}
    )


@pytest.fixture
def tuned(hub_server):
    hub_server.add_repo("org/base", {"config.json": '{"model_type": "bert"}', "model.safetensors": weights()})
    return hub_server.add_repo(
        "org/tuned",
        {
            "README.md": CARD,
            "config.json": '{"model_type": "bert", "architectures": ["BertModel"]}',
            "model.safetensors": weights(),
            "sub/dir/notes.txt": "deep",
        },
    )


def test_model_info_derives_from_files(hub_server, tuned):
    info = HfApi().model_info("org/tuned", files_metadata=True, securityStatus=True)

    assert info.sha == tuned
    assert {"base_model:org/base", "base_model:finetune:org/base", "license:mit", "demo"} <= set(info.tags)
    assert info.safetensors.parameters == {"F32": 32, "BF16": 3}
    assert info.safetensors.total == 35
    assert info.config == {"model_type": "bert", "architectures": ["BertModel"]}
    assert info.card_data.base_model == "org/base"
    assert info.security_repo_status["scansDone"] is True
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings}
    assert sizes["model.safetensors"] == len(weights())
    assert hub_server.log.count("/api/models/org/tuned") == len(hub_server.log) == 1
    assert HfApi().model_info("org/base", expand=["childrenModelCount"]).children_model_count == 1


def test_expand_gives_base_models(tuned):
    info = HfApi().model_info("org/tuned", expand=["baseModels", "sha"])

    assert info.base_models["relation"] == "finetune"
    assert [model["id"] for model in info.base_models["models"]] == ["org/base"]
    assert info.tags is None


def test_list_models_filters_sorts_and_pages(hub_server):
    for number in range(8):
        hub_server.add_repo(
            f"org/m{number}", {"README.md": f"---\nbase_model: org/base\n---\n{number}"}, downloads=number
        )
    hub_server.add_repo("other/m9", {"README.md": "---\nbase_model: [org/base, org/more]\n---\n"})
    hub_server.add_repo("org/hidden", {"README.md": CARD}, private=True)
    hub_server.configure(page_size=3)
    api = HfApi()

    found = [model.id for model in api.list_models(filter=["base_model:finetune:org/base"], sort="downloads")]
    assert found == [f"org/m{number}" for number in range(7, -1, -1)]
    assert hub_server.log.count("/api/models?", status=200) == 3
    assert [model.id for model in api.list_models(filter=["base_model:merge:org/base", "base_model:org/more"])] == [
        "other/m9"
    ]
    assert len(list(api.list_models(author="org", limit=4))) == 4
    assert [model.id for model in api.list_models(search="M9")] == ["other/m9"]
    shown = next(iter(api.list_models(author="other", expand=["sha", "lastModified", "gated"])))
    assert shown.sha == hub_server.sha("other/m9")


def test_tree_pages_and_paths_info(hub_server, tuned):
    hub_server.configure(page_size=2)
    api = HfApi()

    paths = [item.path for item in api.list_repo_tree("org/tuned", recursive=True)]
    assert paths == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "sub",
        "sub/dir",
        "sub/dir/notes.txt",
    ]
    assert hub_server.log.count("/tree/") == 4
    assert [item.path for item in api.list_repo_tree("org/tuned", "sub/dir")] == ["sub/dir/notes.txt"]
    file, folder = api.get_paths_info("org/tuned", ["model.safetensors", "sub", "absent"], expand=True)
    assert (file.lfs.sha256, file.lfs.size) == (hashlib.sha256(weights()).hexdigest(), len(weights()))
    assert file.last_commit.title == "Upload files"
    assert file.security.status == "safe"
    assert folder.path == "sub"


def test_declared_identities_are_shown_as_claimed(hub_server):
    lie = "ab" * 32
    hub_server.add_repo("org/liar", {"model.safetensors": Declared(file=weights(), sha256=lie, xet_hash="cd" * 32)})

    [file] = HfApi().get_paths_info("org/liar", ["model.safetensors"])

    assert file.lfs.sha256 == lie
    assert file.xet_hash == "cd" * 32
    assert hub_server.read("org/liar", "model.safetensors") == weights()


def test_commits_refs_and_revisions(hub_server, tuned):
    second = hub_server.commit("org/tuned", {"config.json": "{}"}, title="Second")
    hub_server.set_ref("org/tuned", "refs/tags/v1", tuned)
    hub_server.commit("org/tuned", {"extra.txt": "x"}, ref="refs/heads/dev")
    api = HfApi()

    assert [commit.title for commit in api.list_repo_commits("org/tuned")] == [
        "Second",
        "Upload files",
        "initial commit",
    ]
    refs = api.list_repo_refs("org/tuned", include_pull_requests=True)
    assert {branch.name for branch in refs.branches} == {"main", "dev"}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", tuned)]
    assert refs.pull_requests == []
    assert api.model_info("org/tuned", revision="v1").sha == tuned
    assert api.model_info("org/tuned", revision=second[:8]).sha == second
    assert api.file_exists("org/tuned", "extra.txt", revision="dev")
    assert not api.file_exists("org/tuned", "extra.txt")


@pytest.mark.parametrize("cdn", [False, True])
def test_download_goes_through_the_cache(hub_server, tuned, cdn):
    hub_server.configure(cdn=cdn)
    token = hub_server.token("alice")

    path = hf_hub_download("org/tuned", "model.safetensors", token=token)

    with Path(path).open("rb") as file:
        assert file.read() == weights()
    assert tuned in path
    before = len(hub_server.log)
    hf_hub_download("org/tuned", "model.safetensors", revision=tuned, token=token)
    assert len(hub_server.log) == before
    assert [record.authorized for record in hub_server.log.matching(side="cdn")] == [False] * cdn
    assert ModelCard.load("org/tuned").data.base_model == "org/base"


@pytest.mark.parametrize("cdn", [False, True])
def test_safetensors_metadata_sharded(hub_server, cdn):
    shards = {
        "model-00001-of-00002.safetensors": weights(2),
        "model-00002-of-00002.safetensors": save({"v": torch.ones(5)}),
    }
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {
            "w": "model-00001-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "v": "model-00002-of-00002.safetensors",
        },
    }
    hub_server.add_repo("org/big", {**shards, "model.safetensors.index.json": json.dumps(index)})
    hub_server.configure(cdn=cdn)

    metadata = get_safetensors_metadata("org/big")

    assert metadata.sharded
    assert metadata.parameter_count == {"F32": 21, "BF16": 3}
    assert HfApi().model_info("org/big").safetensors.parameters == {"F32": 21, "BF16": 3}
    direct = HfApi().get_sharded_safetensors_metadata("org/big", filename="model.safetensors.index.json")
    assert direct.weight_map == metadata.weight_map


def test_ranges(hub_server, tmp_path):
    content = bytes(range(256)) * 8192
    on_disk = tmp_path / "big.bin"
    on_disk.write_bytes(content)
    hub_server.add_repo("org/data", {"big.bin": on_disk, "memory.bin": content, "empty.bin": b""})
    with httpx2.Client() as client:
        for name in ("big.bin", "memory.bin"):
            url = f"{hub_server.endpoint}/org/data/resolve/main/{name}"
            for header, start, stop in [
                ("5-9", 5, 10),
                ("2000000-", 2000000, None),
                ("-7", -7, None),
                ("0-99999999", 0, None),
            ]:
                reply = client.get(url, headers={"Range": f"bytes={header}"})
                assert reply.status_code == 206
                assert reply.content == content[start:stop]
                first = start % len(content)
                assert (
                    reply.headers["Content-Range"] == f"bytes {first}-{first + len(reply.content) - 1}/{len(content)}"
                )
            assert client.get(url).content == content
            past = client.get(url, headers={"Range": f"bytes={len(content)}-"})
            assert (past.status_code, past.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
            head = client.head(url)
            assert (head.headers["Content-Length"], head.content) == (str(len(content)), b"")
            several = client.get(url, headers={"Range": "bytes=0-1,4-5"})
            assert (several.status_code, len(several.content)) == (200, len(content))
        assert client.get(f"{hub_server.endpoint}/org/data/resolve/main/empty.bin").content == b""
    assert hub_server.log.bytes_sent("big.bin") == hub_server.log.bytes_sent("memory.bin")
    assert hub_server.log.count("big.bin", ranged=True) == 6


def test_signed_addresses_expire(hub_server, tuned):
    hub_server.configure(cdn=True, cdn_url_seconds=-1)
    with httpx2.Client(follow_redirects=True) as client:
        assert client.get(f"{hub_server.endpoint}/org/tuned/resolve/main/model.safetensors").status_code == 403
        hub_server.configure(cdn_url_seconds=60)
        assert client.get(f"{hub_server.endpoint}/org/tuned/resolve/main/model.safetensors").content == weights()
        forged = hub_server.log.matching(side="cdn")[-1].target.replace("Signature=", "Signature=0")
        assert client.get(hub_server.cdn_endpoint + forged).status_code == 403


def test_errors_become_the_clients_exceptions(hub_server, tuned):
    hub_server.add_repo("org/secret", {"README.md": "x"}, private=True)
    hub_server.add_repo("org/gated", {"README.md": "x"}, gated="manual")
    hub_server.add_repo("org/gone", {"README.md": "x"}, disabled=True)
    stranger, owner = hub_server.token("alice"), hub_server.token("org")
    api = HfApi()

    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/absent")
    for token in (None, stranger):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("org/secret", token=token)
        with pytest.raises(GatedRepoError):
            hf_hub_download("org/gated", "README.md", token=token)
        with pytest.raises(GatedRepoError):
            api.auth_check("org/gated", token=token)
    assert api.model_info("org/gated").gated == "manual"
    assert api.model_info("org/secret", token=owner).private
    hub_server.grant("alice", "org/gated")
    assert hf_hub_download("org/gated", "README.md", token=stranger)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tuned", revision="nowhere")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("org/tuned", "absent.txt")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/tuned", "absent"))
    with pytest.raises(DisabledRepoError):
        api.model_info("org/gone")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api.model_info("org/tuned", token="hf_wrong")


def test_renamed_repositories_redirect(hub_server, tuned):
    hub_server.redirect("tuned-of-old", "org/tuned")
    hub_server.redirect("org/before", "org/tuned")

    assert HfApi().model_info("tuned-of-old").id == "org/tuned"
    assert HfApi().model_info("org/before", revision="main", files_metadata=True).siblings[0].size
    assert hf_hub_download("tuned-of-old", "config.json")


def test_hostile_names_and_broken_cards_are_served_as_they_are(hub_server):
    names = ["../up.txt", "line\nbreak.txt", "<b>\u202e\x1b[31m.txt", "a b+c%2Fd.txt"]
    hub_server.add_repo(
        "org/odd",
        {
            **dict.fromkeys(names, "x"),
            "README.md": "---\nbase_model: [unclosed\n---\n",
            "model.safetensors": b"\xff" * 64,
        },
    )

    info = HfApi().model_info("org/odd")
    assert {sibling.rfilename for sibling in info.siblings} >= set(names)
    assert info.safetensors is None
    with httpx2.Client() as client:
        reply = client.get(f"{hub_server.endpoint}/org/odd/resolve/main/line%0Abreak.txt")
        assert (reply.status_code, reply.text) == (200, "x")
        missing = client.get(f"{hub_server.endpoint}/org/odd/tree/%0d%0aX-Bad:%201")
        assert "x-bad" not in missing.headers


def test_commit_ids_do_not_depend_on_the_clock(hub_server):
    first = hub_server.add_repo("org/same", {"a.txt": "a"})
    hub_server.reset()
    assert hub_server.add_repo("org/same", {"a.txt": "a"}) == first
    assert hub_server.add_repo("org/same", {"a.txt": "b"}) != first


@pytest.mark.parametrize(
    ("files", "relation"),
    [
        ({"README.md": "---\nbase_model: o/b\n---\n"}, "finetune"),
        ({"README.md": "---\nbase_model: [o/b, o/c]\n---\n"}, "merge"),
        ({"README.md": "---\nbase_model: o/b\nbase_model_relation: quantized\n---\n"}, "quantized"),
        ({"README.md": "---\nbase_model: o/b\n---\n", "adapter_config.json": "{}"}, "adapter"),
        ({"README.md": "---\nbase_model: o/b\n---\n", "m.gguf": b"GGUF"}, "quantized"),
        ({"README.md": "---\nbase_model: o/b\n---\n", "config.json": '{"quantization_config": {}}'}, "quantized"),
    ],
)
def test_relation_is_declared_or_inferred(hub_server, files, relation):
    hub_server.add_repo("org/m", files)
    info = HfApi().model_info("org/m", expand=["baseModels", "tags"])
    assert info.base_models["relation"] == relation
    assert f"base_model:{relation}:o/b" in info.tags


@pytest.mark.parametrize("declared", ["./local/path", "https://example.org/o/b", "[1, {a: b}]", "null", "''"])
def test_bases_that_are_no_repositories_have_no_entry(hub_server, declared):
    hub_server.add_repo("org/m", {"README.md": f"---\nbase_model: {declared}\n---\n"})
    info = HfApi().model_info("org/m", expand=["baseModels", "cardData"])
    assert info.base_models is None


@pytest.mark.parametrize(
    ("card", "errors", "warnings"),
    [
        ("---\nlicense: mit\n---\n", 0, 0),
        ("no metadata", 0, 1),
        ("---\n# only a comment\n---\n", 0, 1),
        ("---\n- a\n- list\n---\n", 1, 0),
        ("---\na: [\n---\n", 1, 0),
        ("---\nlicense: {a: b}\nbase_model: [1]\n---\n", 2, 0),
    ],
)
def test_card_validation(card, errors, warnings):
    found = check_card(card)
    assert (len(found[0]), len(found[1])) == (errors, warnings)


def test_xet_tokens_only_where_configured(hub_server):
    hub_server.add_repo("org/m", {"w.bin": Declared(file=b"x", xet_hash="cd" * 32)})
    head = httpx2.head(f"{hub_server.endpoint}/org/m/resolve/main/w.bin")
    assert head.headers["X-Xet-Hash"] == "cd" * 32
    address = head.links["xet-auth"]["url"]
    assert httpx2.get(address).status_code == 404
    hub_server.configure(xet_cas_url="local:///nowhere")
    reply = httpx2.get(address)
    assert reply.json()["casUrl"] == reply.headers["X-Xet-Cas-Url"] == "local:///nowhere"


def test_folders_are_published_from_where_they_lie(hub_server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("from disk")
    hub_server.add_repo("org/m", {"b.txt": "from memory"}, folder=tmp_path)
    assert hub_server.paths("org/m") == (".gitattributes", "b.txt", "sub/a.txt")
    paths = {"paths": ["sub/a.txt", "absent"], "expand": True}
    [found] = httpx2.post(f"{hub_server.endpoint}/api/models/org/m/paths-info/main", json=paths).json()
    assert (found["size"], found["lastCommit"]["title"]) == (9, "Upload files")


def test_a_thousand_repositories_list_quickly(hub_server):
    for number in range(1000):
        hub_server.add_repo(f"org/m{number}", {"README.md": f"---\nbase_model: org/base\nlicense: mit\n---\n{number}"})
    hub_server.configure(page_size=100)
    started = time.monotonic()
    assert (
        len(list(HfApi().list_models(filter="base_model:org/base", expand=["sha", "childrenModelCount"], limit=150)))
        == 150
    )
    assert time.monotonic() - started < 10
