"""Which commit of a base: hashes first, then the nearest in sampled rows, the pinned one where nothing decides."""

import pytest
from descents import attention_only, drifted, fused, measured, random_body, write
from quickhub import pinned, quick_hub

from scanner.facts import collect
from scanner.lineage.revision import nearest_revision

FIRST = random_body(1)
SECOND = drifted(FIRST, size=0.004, seed=21)
WEIGHTS = "model.safetensors"


@pytest.fixture
def history(hub_server, tmp_path):
    """A base whose weights changed once, with a commit of its card after each; returns the two weight commits."""
    hub_server.add_repo("org/base", {"config.json": b"{}"})
    commits = []
    for name, tensors in {"first": FIRST, "second": SECOND}.items():
        commits.append(hub_server.commit("org/base", {WEIGHTS: write(tmp_path / name, tensors) / WEIGHTS}))
        hub_server.commit("org/base", {"README.md": name.encode()}, title="Describe it")
    return hub_server, commits


def chosen(server, tmp_path, tensors):
    server.add_repo("org/mine", folder=write(tmp_path / "mine", tensors))
    hub = quick_hub(server)
    base, candidate = (collect(pinned(hub, name), hub) for name in ("org/base", "org/mine"))
    return base, nearest_revision(base, candidate, hub, seed=1)


def test_equal_hashes_settle_it(history, tmp_path):
    server, _ = history
    base, found = chosen(server, tmp_path, FIRST)
    assert found.facts.ref != base.ref
    assert "very hashes" in found.check.note
    assert server.read("org/base", WEIGHTS, found.facts.ref.revision) == server.read("org/mine", WEIGHTS)


def test_a_child_of_the_old_version_is_read_against_it(history, tmp_path):
    server, _ = history
    base, found = chosen(server, tmp_path, drifted(FIRST, size=0.001, seed=22))
    assert found.facts.ref != base.ref
    assert found.check.outcome == "failed"
    assert measured(found.check)["beta"] == pytest.approx(1.0, abs=0.1)
    assert f"instead of {base.ref.revision}" in found.check.note


def test_a_child_that_stores_its_matrices_in_one_piece_is_compared_part_by_part(hub_server, tmp_path):
    hub_server.add_repo("org/base", {"config.json": b"{}"})
    for name, tensors in {"first": FIRST, "second": SECOND}.items():
        folder = write(tmp_path / name, attention_only(tensors))
        hub_server.commit("org/base", {WEIGHTS: folder / WEIGHTS})
    base, found = chosen(hub_server, tmp_path, fused(attention_only(drifted(FIRST, size=0.001, seed=22))))
    assert found.facts.ref != base.ref
    assert measured(found.check)["beta"] == pytest.approx(1.0, abs=0.1)
    assert 0 < found.bytes_read < 24 << 20


def test_the_search_keeps_to_its_bytes(history, tmp_path):
    server, _ = history
    server.add_repo("org/mine", folder=write(tmp_path / "mine", drifted(FIRST, size=0.001, seed=22)))
    hub = quick_hub(server)
    base, candidate = (collect(pinned(hub, name), hub) for name in ("org/base", "org/mine"))
    found = nearest_revision(base, candidate, hub, seed=1, most_bytes=500_000)
    assert found.facts.ref != base.ref
    assert 0 < found.bytes_read <= 500_000
    found = nearest_revision(base, candidate, hub, seed=1, most_bytes=5_000)
    assert (found.facts.ref, found.check.outcome, found.bytes_read) == (base.ref, "not_run", 0)
    assert "raise the budget" in found.check.note


def test_a_child_of_the_present_version_stays(history, tmp_path):
    server, _ = history
    base, found = chosen(server, tmp_path, drifted(SECOND, size=0.001, seed=23))
    assert found.facts.ref == base.ref
    assert found.check.outcome == "passed"
    assert measured(found.check)["versions"] == 2


def test_a_stranger_leaves_the_pinned_commit(history, tmp_path):
    server, _ = history
    base, found = chosen(server, tmp_path, random_body(5))
    assert found.facts.ref == base.ref


def test_one_version_needs_no_rows(hub_server, tmp_path):
    hub_server.add_repo("org/base", folder=write(tmp_path / "base", FIRST))
    base, found = chosen(hub_server, tmp_path, drifted(FIRST))
    assert found.facts.ref == base.ref
    assert found.check.outcome == "not_run"
