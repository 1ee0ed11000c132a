"""Descent from sampled rows: real fine-tunes, independent models, and weights made to look like relatives."""

from itertools import combinations

import numpy as np
import pytest
import torch
from descents import descent, measured, random_body, write
from localhub.faults import FOR_EVER, Status
from pico import VOCABULARY, Kind, family, fine_tune, load, make_base, rank_one_edit, save
from quickhub import pinned, quick_hub

from scanner.alignment import align
from scanner.facts import collect
from scanner.lineage.descent import KEPT_COSINE, UNRELATED_COSINE, check_descent
from scanner.weights.opening import open_source

KINDS: tuple[Kind, ...] = ("bert", "gpt2", "llama")


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """kind → (base folder, honest fine-tune's folder)."""
    return {kind: family(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_fine_tune_is_verified(families, kind):
    base, honest = families[kind]
    status, relation, checks = descent(base, honest)
    assert (status, relation) == ("verified", "finetune")
    found = measured(checks["sampled_rows"])
    assert found["row_cosine_median"] > KEPT_COSINE
    assert found["rows_nearest_to_their_own"] == 1
    assert found["relative_drift_median"] > 0
    assert found["tensors_bit_identical"] < found["tensors_sampled"]
    assert checks["tensor_table"].outcome == checks["sampled_rows"].outcome == "passed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_choice_of_rows_gives_the_same_answer(families, kind, seed):
    base, honest = families[kind]
    assert descent(base, honest, seed=seed)[0] == "verified"
    assert descent(base, honest, seed=seed) == descent(base, honest, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
def test_independent_models_of_one_configuration_are_never_confused(kind, tmp_path):
    """Seven starts, each trained a little, all 21 pairs: same tensor table, same norms, nothing in common."""
    folders = []
    for seed in range(7):
        start = save(make_base(kind, seed=10 + seed), tmp_path / f"start{seed}", kind=kind)
        folders.append(save(fine_tune(start, kind, seed=seed, steps=5), tmp_path / f"m{seed}", kind=kind))
    for base, candidate in combinations(folders, 2):
        status, relation, checks = descent(base, candidate)
        assert (status, relation) == ("contradicted", "unknown")
        assert measured(checks["tensor_table"])["parameters_with_partner"] > 0.99
        assert checks["sampled_rows"].outcome == "failed"
        assert abs(measured(checks["sampled_rows"])["row_cosine_median"]) < 0.1


def test_a_hundred_pairs_of_random_bodies_are_never_confused(tmp_path):
    folders = [write(tmp_path / str(seed), random_body(seed)) for seed in range(15)]
    statuses = [descent(base, candidate)[0] for base, candidate in combinations(folders, 2)]
    assert len(statuses) == 105
    assert set(statuses) == {"contradicted"}


def test_long_and_hard_training_is_never_contradicted(families, tmp_path):
    base, _ = families["bert"]
    far = save(fine_tune(base, "bert", steps=150, learning_rate=5e-3), tmp_path / "far")
    status, _, checks = descent(base, far)
    assert measured(checks["sampled_rows"])["relative_drift_median"] > 0.3
    assert status in {"verified", "unverified"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_is_verified(families, tmp_path, dtype):
    base, honest = families["llama"]
    cast = save(load(honest).to(dtype), tmp_path / "cast", kind="llama")
    assert descent(base, cast)[0] == "verified"


def test_an_eight_bit_float_copy_is_verified(tmp_path):
    tensors = random_body(1)
    base = write(tmp_path / "base", tensors)
    folder = tmp_path / "fp8"
    folder.mkdir()
    from safetensors.torch import save_file

    eight = {name: torch.from_numpy(value).to(torch.float8_e4m3fn) for name, value in tensors.items()}
    save_file(eight, folder / "model.safetensors")
    assert descent(base, folder)[0] == "verified"


def test_a_resized_vocabulary_is_verified(families, tmp_path):
    base, honest = families["gpt2"]
    model = load(honest)
    model.resize_token_embeddings(VOCABULARY + 9)
    assert descent(base, save(model, tmp_path / "resized", kind="gpt2"))[0] == "verified"


def test_a_rank_one_edit_is_still_a_descendant(families, tmp_path):
    base, honest = families["bert"]
    model = load(honest)
    rank_one_edit(model, 1, strength=3.0)
    assert descent(base, save(model, tmp_path / "edited"))[0] == "verified"


def test_another_architecture_is_unverified(families):
    status, relation, checks = descent(families["gpt2"][0], families["llama"][0])
    assert (status, relation) == ("unverified", "unknown")
    assert checks["tensor_table"].outcome == "failed"
    assert checks["sampled_rows"].outcome == "not_run"
    assert "are needed" in checks["sampled_rows"].note


def test_a_copy_is_verified_with_nothing_moved(families):
    base, _ = families["bert"]
    status, relation, checks = descent(base, base)
    assert (status, relation) == ("verified", "finetune")
    found = measured(checks["sampled_rows"])
    assert found["relative_drift_median"] == 0
    assert found["tensors_bit_identical"] == found["tensors_sampled"]


def test_the_declared_relation_is_kept_once_verified(families):
    base, honest = families["bert"]
    assert descent(base, honest, declared="merge")[1] == "merge"
    assert descent(families["gpt2"][0], families["llama"][0], declared="merge")[1] == "unknown"


def changed(seed: int, change) -> dict[str, np.ndarray]:
    """A random body with every matrix changed; norms stay."""
    generator = np.random.default_rng(99)
    return {
        name: change(name, value, generator).astype(np.float32) if value.ndim == 2 else value
        for name, value in random_body(seed).items()
    }


def shared_mean(_name, value, _generator):
    return value + 0.5 * np.random.default_rng(7).standard_normal(value.shape[1])


def shared_offsets(_name, value, _generator):
    return value + 0.5 * np.random.default_rng(8).standard_normal((value.shape[0], 1))


def shared_direction(_name, value, _generator):
    generator = np.random.default_rng(9)
    return value + 0.5 * np.outer(generator.choice([-1, 1], value.shape[0]), generator.standard_normal(value.shape[1]))


@pytest.mark.parametrize(("trap", "expected"), [(shared_mean, "contradicted"), (shared_offsets, "unverified")])
def test_independent_models_with_a_large_common_mean_do_not_verify(tmp_path, trap, expected):
    """A shared offset per row makes row norms agree too, which is how rotated copies look: no accusation."""
    base, candidate = (write(tmp_path / str(seed), changed(seed, trap)) for seed in (1, 2))
    one, two = (np.concatenate([v.ravel() for v in changed(seed, trap).values() if v.ndim == 2]) for seed in (1, 2))
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) > 0.98  # what an uncentred cosine would say
    status, _, checks = descent(base, candidate)
    assert status == expected
    assert abs(measured(checks["sampled_rows"])["row_cosine_median"]) < 0.1


def test_independent_models_with_a_large_common_direction_do_not_verify(tmp_path):
    """Centring does not remove it, but then all rows look alike and none is nearest to its own."""
    base, candidate = (write(tmp_path / str(seed), changed(seed, shared_direction)) for seed in (1, 2))
    status, _, checks = descent(base, candidate)
    found = measured(checks["sampled_rows"])
    assert found["row_cosine_median"] > KEPT_COSINE
    assert found["rows_nearest_to_their_own"] < 0.2
    assert found["row_cosine_null_sd"] > 0.9
    assert status == "unverified"


def test_copied_embeddings_on_a_foreign_body_are_unverified(tmp_path):
    mine, theirs = random_body(1), random_body(2)
    mine["model.embed_tokens.weight"] = theirs["model.embed_tokens.weight"]
    status, _, checks = descent(write(tmp_path / "base", theirs), write(tmp_path / "mine", mine))
    assert status == "unverified"
    assert "too mixed" in checks["sampled_rows"].note


def test_a_layer_made_anew_is_named_when_it_is_sampled(tmp_path):
    theirs, other = random_body(1, layers=6), random_body(2, layers=6)
    mine = {name: other[name] if ".layers.5." in name else value for name, value in theirs.items()}
    folders = write(tmp_path / "base", theirs), write(tmp_path / "mine", mine)
    outcomes = [descent(*folders, seed=seed) for seed in range(5)]
    assert {status for status, _, _ in outcomes} == {"verified"}
    notes = [checks["sampled_rows"].note for _, _, checks in outcomes]
    assert any("unlike it: model.layers.5." in note for note in notes)
    assert not any("unlike it: model.layers.4." in note for note in notes)


def test_a_rotated_copy_is_not_contradicted(tmp_path):
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((64, 64)))

    def spread(_name, value, generator):
        return value * np.exp(generator.standard_normal((value.shape[0], 1)))

    theirs = changed(1, spread)
    mine = {
        name: (value @ rotation).astype(np.float32) if value.ndim == 2 and value.shape[1] == 64 else value
        for name, value in theirs.items()
        if "down_proj" not in name and "o_proj" not in name
    }
    status, _, checks = descent(write(tmp_path / "base", theirs), write(tmp_path / "mine", mine))
    found = measured(checks["sampled_rows"])
    assert abs(found["row_cosine_median"]) < UNRELATED_COSINE
    assert found["row_norm_correlation"] > 0.99
    assert status == "unverified"
    assert "rotation" in checks["sampled_rows"].note


def test_norms_and_biases_are_no_evidence(tmp_path):
    norms = {name: value for name, value in random_body(1).items() if value.ndim == 1}
    folders = [write(tmp_path / side, norms) for side in ("base", "mine")]
    status, _, checks = descent(*folders)
    assert status == "unverified"
    assert checks["sampled_rows"].outcome == "not_run"


def test_rows_that_are_not_finite_zero_or_copies_are_left_out(tmp_path):
    theirs = random_body(1)
    mine = {name: value.copy() for name, value in theirs.items()}
    for value in mine.values():
        if value.ndim == 2:
            value[::3] = np.nan
            value[1::9] = np.inf
    table = "model.embed_tokens.weight"
    theirs[table][:150] = mine[table][:150] = 0
    status, _, checks = descent(write(tmp_path / "base", theirs), write(tmp_path / "mine", mine))
    assert status == "verified"
    assert measured(checks["sampled_rows"])["rows_sampled"] < 12 * 64 * 0.7
    assert all(np.isfinite(value) for value in measured(checks["sampled_rows"]).values())


def test_rows_that_are_all_alike_say_nothing(tmp_path):
    alike = {
        name: np.tile(value[:1], (len(value), 1)) if value.ndim == 2 else value
        for name, value in random_body(1).items()
    }
    folders = [write(tmp_path / side, alike) for side in ("base", "mine")]
    assert descent(*folders)[0] == "unverified"


def test_constant_weights_say_nothing(tmp_path):
    constant = {name: np.ones_like(value) for name, value in random_body(1).items()}
    folders = [write(tmp_path / side, constant) for side in ("base", "mine")]
    assert descent(*folders)[0] == "unverified"


def published(server, folders):
    for name, folder in folders.items():
        server.add_repo(name, folder=folder)
    hub = quick_hub(server)
    facts = [collect(pinned(hub, name), hub) for name in folders]
    return hub, facts


def test_remote_samples_cost_little_and_agree_with_local_ones(hub_server, families):
    base, honest = families["bert"]
    hub, (theirs, ours) = published(hub_server, {"pico/base": base, "pico/honest": honest})
    with open_source(theirs, hub) as base_source, open_source(ours, hub) as candidate_source:
        alignment = align(candidate_source.table, base_source.table)
        before = base_source.requests + candidate_source.requests
        outcome = check_descent(alignment, base_source, candidate_source)
        assert base_source.requests + candidate_source.requests - before <= 2 * 24
    assert outcome[0] == "verified"
    local = descent(base, honest)[2]
    assert {check.name: check for check in outcome[2]} == local


def test_a_read_that_fails_is_unverified_and_says_so(hub_server, families):
    base, honest = families["bert"]
    hub, (theirs, ours) = published(hub_server, {"pico/base": base, "pico/honest": honest})
    with open_source(theirs, hub) as base_source, open_source(ours, hub) as candidate_source:
        alignment = align(candidate_source.table, base_source.table)
        hub_server.faults.add(Status(code=503), method="GET", path="", times=FOR_EVER)
        status, relation, checks = check_descent(alignment, base_source, candidate_source)
    assert (status, relation) == ("unverified", "unknown")
    assert checks[1].outcome == "not_run"
    assert checks[1].note
