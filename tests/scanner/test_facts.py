import json
from pathlib import Path

import pytest
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from quickhub import pinned, quick_hub

from scanner.errors import HubUnreachable, RepoGated
from scanner.facts import LIMIT_BYTES, MAX_NAMED_SKIPS, collect
from scanner.records import RepoFacts

CARD = "---\nbase_model: org/base\n---\nText\n"
CONFIG = {"model_type": "bert", "_name_or_path": "org/base"}
FILES = {
    "README.md": CARD,
    "config.json": json.dumps(CONFIG),
    "adapter_config.json": '{"base_model_name_or_path": "org/base"}',
    "generation_config.json": "{}",
    "mergekit_config.yml": "models: []\n",
    "model.safetensors": b"\0" * 100,
    "sub/config.json": "not looked at",
}


def check(facts: RepoFacts) -> None:
    assert facts.card.base_models == ("org/base",)
    assert facts.card.text == CARD
    assert facts.config == CONFIG
    assert facts.adapter_config == {"base_model_name_or_path": "org/base"}
    assert facts.generation_config == {}
    assert facts.mergekit_config == "models: []\n"
    assert facts.skips == ()
    assert facts.file("sub/config.json")
    assert facts.file("nope") is None


def test_a_repository_costs_two_requests_and_one_for_each_small_file(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", FILES)
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/name")
    before = hub.requests
    facts = collect(ref, hub)
    check(facts)
    assert facts.ref == ref
    assert facts.hub["base_models"] == ("org/base",)
    assert facts.hub["security"] is not None
    assert hub.requests - before == 2 + 5
    assert hub_server.log.count("model.safetensors") == 0


def test_a_folder_gives_the_same_facts(tmp_path: Path) -> None:
    for name, content in FILES.items():
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    hub = quick_hub("http://127.0.0.1:9")
    facts = collect(pinned(hub, str(tmp_path)), hub)
    check(facts)
    assert facts.hub == {}
    assert hub.requests == 0


def test_a_bare_repository_has_bare_facts(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/bare", {})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/bare"), hub)
    assert [entry.path for entry in facts.files] == [".gitattributes"]
    assert facts.card.text is None
    assert facts.config is None
    assert facts.skips == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "It is not JSON"),
        ('{"a":' * 100_000, "nested deeper than 64"),
        ("[1]", "It is not a JSON object"),
        ('{"a": 1, "a": 2}', "gives the key 'a' twice"),
        ('{"a": NaN}', "holds NaN"),
        ("x" * (LIMIT_BYTES["config.json"] + 1), "more than the 4,194,304 that are read"),
        (b"\xff\xfe{}", "It is not JSON"),
    ],
    ids=["broken", "deep", "list", "twice", "nan", "large", "binary"],
)
def test_a_config_that_cannot_be_used_is_a_skip(hub_server: LocalHub, content, why: str) -> None:
    hub_server.add_repo("org/name", {**FILES, "config.json": content})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/name"), hub)
    assert facts.config is None
    assert facts.adapter_config is not None
    (skip,) = facts.skips
    assert skip.what == "config.json"
    assert why in skip.why


def test_a_broken_card_is_a_fact_with_a_problem(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", {"README.md": "---\nbase_model: [\n---\n"})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/name"), hub)
    assert facts.card.metadata is None
    assert facts.card.problem


def test_a_small_file_that_vanished_or_is_forbidden_is_a_skip(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", FILES)
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/name")
    hub_server.faults.add(Status(code=404, headers={"X-Error-Code": "EntryNotFound"}), path="/generation_config.json")
    hub_server.faults.add(Status(code=403), path="/adapter_config.json")
    facts = collect(ref, hub)
    assert {skip.what for skip in facts.skips} == {"generation_config.json", "adapter_config.json"}
    assert facts.config == CONFIG


def test_a_gated_repository_is_an_error(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/gated", FILES, gated="auto")
    hub = quick_hub(hub_server)
    with pytest.raises(RepoGated, match="accept its terms"):
        collect(pinned(hub, "org/gated"), hub)


@pytest.mark.parametrize("path", ["/config.json", "/tree/", "securityStatus"])
def test_a_broken_network_is_an_error_and_never_an_absence(hub_server: LocalHub, path: str) -> None:
    hub_server.add_repo("org/name", FILES)
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/name")
    hub_server.faults.add(Status(code=502), path=path, times=FOR_EVER)
    with pytest.raises(HubUnreachable, match="502"):
        collect(ref, hub)


def test_hostile_file_names_are_skipped_and_never_used(hub_server: LocalHub) -> None:
    hostile = ["../../etc/passwd", "/abs", "a\nb", "a\x1b[31m", "..", "x\u202ey"]
    plain = ["<script>alert(1)</script>.txt", "%2e%2e/x", "a b?#&.txt"]
    hub_server.add_repo("org/odd", {**dict.fromkeys([*hostile, *plain], "x"), "config.json": json.dumps(CONFIG)})
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/odd")
    facts = collect(ref, hub)
    assert {entry.path for entry in facts.files} == {".gitattributes", "config.json", *plain}
    assert {skip.what for skip in facts.skips} == {ascii(name) for name in hostile}
    assert all((skip.what + skip.why).isprintable() for skip in facts.skips)
    assert [hub.read_text(ref, name, limit_bytes=9) for name in plain] == ["x", "x", "x"]


def test_a_thousand_hostile_names_do_not_fill_the_report(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/odd", {f"\n{number}": "x" for number in range(1000)})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/odd"), hub)
    assert len(facts.skips) == MAX_NAMED_SKIPS + 1
    assert facts.skips[-1].what == f"{1000 - MAX_NAMED_SKIPS} more files"
