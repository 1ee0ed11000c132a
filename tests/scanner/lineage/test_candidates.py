"""Ranking possible parents: nearest first, siblings told from parents, strangers last, nobody their own parent."""

import json

import pytest
from descents import attention_only, drifted, fused, measured, random_body, write
from quickhub import pinned, quick_hub
from weightfolders import facts_of

from scanner.facts import collect
from scanner.lineage.candidates import rank_candidates, search_hub

BASE = random_body(1)
CHILD = drifted(BASE, seed=11)
SIBLING = drifted(BASE, seed=12)
STRANGER = random_body(2)
OTHER_SHAPE = random_body(3, hidden=48)


@pytest.fixture
def models(tmp_path):
    tensors = {"base": BASE, "child": CHILD, "sibling": SIBLING, "stranger": STRANGER, "other": OTHER_SHAPE}
    return {name: facts_of(write(tmp_path / name, made)) for name, made in tensors.items()}


def names(ranking):
    return [ranked.ref.path.rpartition("/")[2] for ranked in ranking.ranked]


def test_the_parent_is_nearer_than_the_sibling(models):
    others = [models[name] for name in ("stranger", "other", "sibling", "base")]
    ranking = rank_candidates(models["child"], others, None, seed=1)
    assert names(ranking) == ["base", "sibling", "other", "stranger"]
    assert [ranked.status for ranked in ranking.ranked] == ["verified", "verified", "unverified", "contradicted"]
    assert ranking.best.ref == models["base"].ref
    assert ranking.runner_up.ref == models["sibling"].ref
    nearest = next(check for check in ranking.checks if check.name == "nearest_base")
    assert nearest.outcome == "passed"
    assert measured(nearest)["beta"] == pytest.approx(1, abs=0.05)
    assert ranking.beaten == (models["sibling"].ref,)


def test_tables_that_do_not_fit_cost_no_rows(models):
    ranking = rank_candidates(models["child"], [models["other"]], None, seed=1)
    assert ranking.ranked[0].row_cosine is None
    assert "no row was read" in ranking.ranked[0].note
    assert ranking.best is None
    assert ranking.runner_up is None


def test_the_model_itself_is_left_out(models):
    ranking = rank_candidates(models["child"], [models["child"], models["base"]], None, seed=1)
    assert names(ranking) == ["base"]
    assert ranking.left_out[0].why == "it is the model itself"


def test_other_layouts_on_any_side_are_compared_part_by_part(tmp_path):
    parts = {"base": BASE, "sibling": SIBLING, "child": CHILD}
    split = {name: attention_only(tensors) for name, tensors in parts.items()}
    folders = {name: facts_of(write(tmp_path / name, tensors)) for name, tensors in split.items()}
    whole = {name: facts_of(write(tmp_path / f"{name}_fused", fused(tensors))) for name, tensors in split.items()}
    for mine, others in (
        (whole["child"], [folders["sibling"], folders["base"]]),
        (folders["child"], [whole["sibling"], folders["base"]]),
        (whole["child"], [whole["sibling"], folders["base"]]),
        (whole["child"], [folders["sibling"], whole["base"]]),
    ):
        ranking = rank_candidates(mine, others, None, seed=1)
        assert ranking.best.ref == others[1].ref
        assert ranking.beaten == (others[0].ref,)


def test_a_bound_on_bytes_is_kept(models):
    others = [models[name] for name in ("stranger", "other", "sibling", "base")]
    unbound = rank_candidates(models["child"], others, None, seed=1)
    ranking = rank_candidates(models["child"], others, None, seed=1, most_bytes=1_000_000)
    assert 0 < ranking.bytes_read <= 1_000_000 < unbound.bytes_read
    assert names(ranking)[:2] == ["base", "sibling"]
    assert ranking.beaten == (models["sibling"].ref,)
    starved = rank_candidates(models["child"], others, None, seed=1, most_bytes=2_000)
    assert {ranked.status for ranked in starved.ranked} == {"unverified"}


def test_a_merge_of_several_is_said(models, tmp_path):
    mix = {n: (v + 0.5 * (CHILD[n] - v) + 0.4 * (SIBLING[n] - v)).astype(v.dtype) for n, v in BASE.items()}
    merged = facts_of(write(tmp_path / "merged", mix))
    ranking = rank_candidates(merged, [models[n] for n in ("base", "child", "sibling")], None, seed=1)
    assert {check.name: check.outcome for check in ranking.checks}["mixture"] == "passed"


def test_an_unreadable_candidate_is_left_out_with_the_reason(models, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    ranking = rank_candidates(models["child"], [facts_of(broken), models["base"]], None, seed=1)
    assert names(ranking) == ["base"]
    assert ranking.left_out[0].what == str(broken)
    assert ranking.left_out[0].why


def test_a_base_that_needs_its_own_code_is_compared_without_running_it(models, tmp_path):
    folder = write(tmp_path / "custom", BASE)
    trap = tmp_path / "ran"
    config = {"model_type": "made_up", "auto_map": {"AutoModel": "modeling_trap.Trap"}, "architectures": ["Trap"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w').write('ran')\n")
    ranking = rank_candidates(models["child"], [facts_of(folder)], None, seed=1)
    assert ranking.best is not None
    assert not trap.exists()


def test_the_hub_is_searched_by_architecture_and_size(hub_server, tmp_path):
    config = json.dumps({"model_type": "llama"})
    for name, tensors in {"a/base": BASE, "a/stranger": STRANGER, "a/child": CHILD}.items():
        folder = write(tmp_path / name, tensors)
        (folder / "config.json").write_text(config)
        (folder / "README.md").write_text("---\ntags:\n- llama\n---\n")
        hub_server.add_repo(name, folder=folder)
    hub_server.add_repo("a/cat", {"README.md": b"---\ntags:\n- bert\n---\n"})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "a/child"), hub)
    assert set(search_hub(facts, hub, limit=5)) == {"a/base", "a/stranger"}
    assert len(list(search_hub(facts, hub, limit=1))) == 1


def test_a_sibling_that_hardly_moved_the_same_way_is_not_told_from_the_parent(models, tmp_path):
    """Both moved along the first direction of the child; nobody is beaten, and the report says so."""
    near = {n: (v + 0.01 * (CHILD[n] - v)).astype(v.dtype) for n, v in BASE.items()}
    near = drifted(near, size=2e-5, seed=31)
    ranking = rank_candidates(models["child"], [models["base"], facts_of(write(tmp_path / "near", near))], None, seed=1)
    assert models["base"].ref not in ranking.beaten
    assert next(check for check in ranking.checks if check.name == "nearest_base").outcome == "not_run"
