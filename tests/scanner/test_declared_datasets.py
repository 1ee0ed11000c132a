"""Whether declared datasets exist: asked of a Hub over HTTP, a few, and never in the way."""

import pytest
from localhub.faults import FOR_EVER, Status

from scanner.card import parse_card
from scanner.declared_datasets import MAX_DATASETS, declared_datasets, look_up_datasets
from scanner.hub import Hub
from scanner.records import RepoFacts, RepoRef


def facts(*names):
    card = parse_card("---\ndatasets:\n" + "".join(f"- {name}\n" for name in names) + "---\n")
    return RepoFacts(ref=RepoRef(path="x"), files=(), card=card)


@pytest.fixture
def hub(hub_server):
    hub_server.add_repo("datasets/org/open", {"README.md": "x"})
    hub_server.add_repo("datasets/org/secret", {"README.md": "x"}, private=True)
    return Hub(endpoint=hub_server.endpoint, timeout_seconds=10, max_wait_seconds=1)


def test_existing_missing_and_private(hub):
    assert look_up_datasets(facts("org/open", "org/none", "org/secret"), hub) == {
        "org/open": "found",
        "org/none": "missing",
        "org/secret": "missing",
    }
    assert hub.requests == 3


def test_a_failing_hub_is_asked_once(hub, hub_server):
    hub_server.faults.add(Status(code=503), path="/api/datasets/", times=FOR_EVER)
    assert look_up_datasets(facts("org/a", "org/b", "org/c"), hub) == {"org/a": "unknown"}


def test_long_lists_are_bounded(hub):
    assert len(look_up_datasets(facts(*(f"org/d{i}" for i in range(50))), hub)) == MAX_DATASETS


@pytest.mark.parametrize(
    "value", [None, 3, {"a": 1}, ["../x", "a/b/c", 3, None, ["org/x"], "x y", "-"], "https://x.y/z"]
)
def test_what_is_no_name_is_not_asked(value):
    assert declared_datasets({"datasets": value}) == ()


def test_names_are_asked_once_in_order():
    assert declared_datasets({"datasets": ["org/b", "org/a", " org/b "]}) == ("org/b", "org/a")
