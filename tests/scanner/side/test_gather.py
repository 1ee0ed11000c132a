"""What looking around costs, that a scan does it, and what hostile repositories do to it."""

import json
from pathlib import Path

import pytest
from chat_templates import ATTACKS, CHATML
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from quickhub import pinned, quick_hub
from side_tokenizers import make, setting

from pipelines.audit_repo import audit_repo
from scanner.base_cache import BaseCache
from scanner.facts import collect
from scanner.records import RepoFacts
from scanner.shared_hub import SharedHub
from scanner.side.gather import look_around
from scanner.side.reading import Remembered
from scanner.tokens import read_pair_tokens


@pytest.fixture
def pair(hub_server: LocalHub, tmp_path: Path) -> LocalHub:
    """A base and a candidate with one folder of files around the weights each, the same in both."""
    make(tmp_path / "base", "gpt2")
    (tmp_path / "base" / "chat_template.jinja").write_text(CHATML)
    hub_server.add_repo("org/base", folder=tmp_path / "base")
    hub_server.add_repo("org/same", folder=tmp_path / "base")
    return hub_server


def both(hub: SharedHub, name: str) -> tuple[RepoFacts, RepoFacts]:
    return collect(pinned(hub, name), hub), collect(pinned(hub, "org/base"), hub)


def fleet_hub(server: LocalHub, cache: Path, name: str) -> SharedHub:
    return SharedHub(server.endpoint, subject=name, cache=BaseCache(cache, 1 << 30), run="1")


def test_files_that_are_the_bases_cost_no_request(pair: LocalHub, tmp_path: Path):
    hub = quick_hub(pair)
    candidate, base = both(hub, "org/same")
    before = hub.requests
    side = look_around(candidate, base, hub)
    assert hub.requests - before == 1, "the history of the base alone"
    assert not side.templates
    assert not side.values
    assert not side.skips
    assert side.tokenizer is not None
    assert side.tokenizer.state == "same"


def test_in_a_fleet_only_files_that_differ_are_read(pair: LocalHub, tmp_path: Path):
    files = {
        "chat_template.jinja": CHATML + "\n\n",
        "generation_config.json": json.dumps({"temperature": 0.5}),
        "README.md": "---\nbase_model: org/base\n---\n",
    }
    for number in range(3):
        folder = tmp_path / f"tune{number}"
        make(folder, "gpt2")
        setting("tokenizer_config.json", model_max_length=9 + number)(folder)
        setting("tokenizer.json", version="1.0", truncation=None, padding={"n": number})(folder)
        pair.add_repo(f"org/tune{number}", dict(files), folder=folder)
    costs = []
    for number in range(3):
        hub = fleet_hub(pair, tmp_path / "cache", f"org/tune{number}")
        candidate, base = both(hub, f"org/tune{number}")
        before = hub.requests
        reader = Remembered(hub)
        read_pair_tokens(candidate, base, reader)
        assert not look_around(candidate, base, hub, reader=reader).skips
        costs.append(hub.requests - before)
    # tokenizer.json, tokenizer_config.json and chat_template.jinja of the candidate; the base's once for all.
    assert costs[1:] == [3, 3]
    assert costs[0] == 3 + 4


def test_a_scan_tells_what_is_around_the_weights(pair: LocalHub, tmp_path: Path):
    _, _, planted = ATTACKS["keyword"]
    pair.add_repo(
        "org/planted",
        {"chat_template.jinja": planted, "README.md": "---\nbase_model: org/base\n---\n", "start.bat": "x"},
        folder=tmp_path / "base",
    )
    report = audit_repo("org/planted", hub=quick_hub(pair)).report
    assert {"HA701", "HA733"} <= {finding.rule_id for finding in report.findings}
    assert report.verdict.outcome == "fail"


def test_what_cannot_be_read_is_a_skip_and_not_nothing(pair: LocalHub, tmp_path: Path):
    names = ["tokenizer_config.json", "chat_template.jinja", "tokenizer.json", "modeling_x.py", "helper"]
    pair.add_repo("org/torn", {name: b"{}" + bytes([65 + i]) for i, name in enumerate(names)})
    hub = quick_hub(pair)
    candidate, base = both(hub, "org/torn")
    for name in names:
        pair.faults.add(Status(code=403), path=f"org/torn/resolve/{candidate.ref.revision}/{name}", times=FOR_EVER)
    pair.faults.add(Status(code=500), path="org/base/commits", times=FOR_EVER)
    side = look_around(candidate, base, hub)
    told = " ".join(skip.what for skip in side.skips)
    assert all(name in told for name in (*names, "history of org/base"))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"\xff\xfe", b'{"chat_template": 3}', b'{"chat_template": [3, {"name": []}]}', b'{"auto_map": 1}',
     b'{"model": {"vocab": {"a": -1}}}', b'{"added_tokens": [{"id": true}]}', b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000],
)  # fmt: skip
def test_broken_files_break_nothing(pair: LocalHub, content: bytes):
    names = ["tokenizer_config.json", "tokenizer.json", "chat_template.json", "processor_config.json", "special_tokens_map.json",
             "preprocessor_config.json", "chat_template.jinja", "additional_chat_templates/x.jinja", "x.py", "a.zip", "b.tar"]  # fmt: skip
    pair.add_repo("org/odd", dict.fromkeys(names, content + b" "))
    hub = quick_hub(pair)
    candidate, base = both(hub, "org/odd")
    look_around(candidate, base, hub)
    look_around(base, candidate, hub)
    look_around(candidate, None, hub)
