from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from localhub.server import LocalHub
from safetensors.numpy import save

from scanner.base_cache import BaseCache
from scanner.errors import RepoNotFound
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoFacts
from scanner.refs import parse_spec
from scanner.shared_hub import SharedHub
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest


@pytest.fixture
def family(hub_server: LocalHub) -> LocalHub:
    hub_server.add_repo("org/base", {"README.md": "# base", "config.json": "{}", "model.safetensors": weights(0)})
    for number in range(4):
        card = "---\nbase_model: org/base\n---\n"
        hub_server.add_repo(
            f"org/tune{number}", {"README.md": card, "config.json": "{}", "model.safetensors": weights(number + 1)}
        )
    return hub_server


def weights(seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    return save({"a": draw.random((300, 1000), np.float32), "b": draw.random(4000, np.float32)})


def hub_for(server: LocalHub, folder: Path, subject: str, **options: object) -> SharedHub:
    cache = BaseCache(folder, 1 << 30)
    return SharedHub(
        server.endpoint, subject=subject, cache=cache, run="1", first_wait_seconds=0.002, attempts=2,
        timeout_seconds=10.0, **options,
    )  # fmt: skip


def facts_of(hub: Hub, name: str) -> RepoFacts:
    facts = collect(hub.resolve(parse_spec(name)), hub)
    # The server counts a download with each scan.
    return replace(facts, hub={**facts.hub, "downloads": 0})


def tensors_of(hub: Hub, name: str) -> dict[str, bytes]:
    with open_source(facts_of(hub, name), hub) as source:
        wanted = [BlockRequest(name=key, rows=(0, meta.rows_cols[0])) for key, meta in source.table.items()]
        return {block.name: block.values.tobytes() for block in source.stream(wanted)}


def test_the_base_is_read_once_for_all_and_nothing_differs(family: LocalHub, tmp_path: Path) -> None:
    plain = Hub(family.endpoint)
    expected = {name: (facts_of(plain, name), tensors_of(plain, name)) for name in ("org/base", "org/tune0")}
    family.log.clear()
    for number in range(4):
        hub = hub_for(family, tmp_path, f"org/tune{number}")
        assert tensors_of(hub, "org/base") == expected["org/base"][1]
        assert facts_of(hub, "org/base") == expected["org/base"][0]
        subject = tensors_of(hub, f"org/tune{number}")
        if number == 0:
            assert subject == expected["org/tune0"][1]
            assert facts_of(hub, "org/tune0") == expected["org/tune0"][0]
    size = len(weights(0))
    assert family.log.bytes_sent("org/base/resolve/") == size + len("# base") + len("{}")
    assert family.log.count("/api/models/org/base") == 3
    assert hub.pins == {"org/base": family.sha("org/base"), "org/tune3": family.sha("org/tune3")}


def test_requests_per_subject_are_few(family: LocalHub, tmp_path: Path) -> None:
    def scan(name: str) -> int:
        entry = next(item for item in Hub(family.endpoint).list_models(author="org") if item["id"] == name)
        hub = hub_for(family, tmp_path, name, listed=(entry["sha"], entry))
        tensors_of(hub, name)
        tensors_of(hub, "org/base")
        return hub.requests

    scan("org/tune0")
    # Files, security report, card, configuration, weights.
    assert scan("org/tune1") == 5


def test_what_a_listing_said_is_what_the_hub_says(family: LocalHub, tmp_path: Path) -> None:
    listed = next(item for item in Hub(family.endpoint).list_models(author="org") if item["id"] == "org/tune2")
    hub = hub_for(family, tmp_path, "org/tune2", listed=(listed["sha"], {**listed, "tags": list(listed["tags"])}))
    ref = hub.resolve(parse_spec("org/tune2"))
    assert hub.requests == 0
    plain = Hub(family.endpoint)
    assert hub.describe(ref) == plain.describe(plain.resolve(parse_spec("org/tune2")))


def test_a_missing_base_is_asked_for_once_per_run(family: LocalHub, tmp_path: Path) -> None:
    texts = set()
    for number in range(3):
        with pytest.raises(RepoNotFound) as caught:
            hub_for(family, tmp_path, f"org/tune{number}").resolve(parse_spec("org/nobody"))
        texts.add(str(caught.value))
    assert family.log.count("org/nobody") == 1
    assert len(texts) == 1


def test_the_head_of_a_base_is_pinned_for_the_run(family: LocalHub, tmp_path: Path) -> None:
    first = hub_for(family, tmp_path, "org/tune0").resolve(parse_spec("org/base"))
    family.commit("org/base", {"README.md": "# changed"})
    assert hub_for(family, tmp_path, "org/tune1").resolve(parse_spec("org/base")) == first
    later = SharedHub(family.endpoint, subject="org/tune1", cache=BaseCache(tmp_path, 1 << 30), run="2")
    assert later.resolve(parse_spec("org/base")).revision == family.sha("org/base")


def test_a_base_deleted_half_way_is_still_there_for_this_run(family: LocalHub, tmp_path: Path) -> None:
    expected = tensors_of(hub_for(family, tmp_path, "org/tune0"), "org/base")
    facts_of(hub_for(family, tmp_path, "org/tune0"), "org/base")
    family._state.repos.pop("org/base")
    assert tensors_of(hub_for(family, tmp_path, "org/tune1"), "org/base") == expected


def test_trouble_is_noted_and_not_kept(family: LocalHub, tmp_path: Path) -> None:
    from localhub.faults import Status

    from scanner.errors import HubUnreachable

    family.faults.add(Status(code=503), path="/api/models/org/base", times=2)
    hub = hub_for(family, tmp_path, "org/tune0")
    with pytest.raises(HubUnreachable):
        hub.resolve(parse_spec("org/base"))
    assert hub.trouble is not None
    assert hub.trouble.startswith("HubUnreachable")
    again = hub_for(family, tmp_path, "org/tune1")
    assert again.resolve(parse_spec("org/base")).revision == family.sha("org/base")
    assert again.trouble is None


def test_a_pinned_subject_is_not_looked_up_again(family: LocalHub, tmp_path: Path) -> None:
    hub = hub_for(family, tmp_path, "org/tune0")
    ref = hub.resolve(parse_spec("org/tune0"))
    assert hub.resolve(parse_spec(str(ref))) == ref
    assert hub.requests == 1


def test_the_history_of_a_base_is_read_once(family: LocalHub, tmp_path: Path) -> None:
    plain = Hub(family.endpoint)
    expected = plain.commits(plain.resolve(parse_spec("org/base")), 5)
    assert len(expected) == 2
    family.log.clear()
    for number in range(3):
        hub = hub_for(family, tmp_path, f"org/tune{number}")
        assert hub.commits(hub.resolve(parse_spec("org/base")), 5) == expected
    assert family.log.count("/commits/") == 1


def test_without_a_cache_it_reads_like_any_other(family: LocalHub) -> None:
    hub = SharedHub(family.endpoint, subject="org/tune0")
    assert tensors_of(hub, "org/base") == tensors_of(Hub(family.endpoint), "org/base")
