"""Descent through new names, moved layers and permuted units, and the strangers that must not profit from it."""

import numpy as np
import pytest
from descents import drifted, measured, random_body, traced, write

LAYERS = 5
BASE = random_body(1, layers=LAYERS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "base", BASE)


def renamed(tensors):
    """Names without a meaning, in another order; each keeps its last word, norms tell no more."""
    names = sorted(tensors, key=lambda name: name[::-1])
    return {f"part.{index:03d}": tensors[name] for index, name in enumerate(names)}


def reordered(tensors, order):
    """Layer ``order[i]`` of a body at place i; layers that are not in the order are left out."""
    made = {n: v for n, v in tensors.items() if ".layers." not in n}
    for place, layer in enumerate(order):
        start = f"model.layers.{layer}."
        made |= {n.replace(start, f"model.layers.{place}."): v for n, v in tensors.items() if n.startswith(start)}
    return made


def units_permuted(tensors, seed=4):
    made = dict(tensors)
    for layer in range(LAYERS):
        order = np.random.default_rng([seed, layer]).permutation(192)
        up, down = f"model.layers.{layer}.mlp.up_proj.weight", f"model.layers.{layer}.mlp.down_proj.weight"
        made[up], made[down] = tensors[up][order], tensors[down][:, order]
    return made


def dimensions_permuted(tensors, seed=5):
    """The same function: every dimension of the residual stream at another place, half of them turned."""
    generator = np.random.default_rng(seed)
    order, sign = generator.permutation(64), generator.choice([-1.0, 1.0], 64)
    made = {}
    for name, value in tensors.items():
        if value.ndim == 1:
            changed = value[order]
        elif "down_proj" in name or "o_proj" in name:
            changed = value[order] * sign[:, None]
        else:
            changed = value[:, order] * sign
        made[name] = changed.astype(np.float32)
    return made


def outcomes(found):
    return {check.name: check.outcome for check in found.checks}


def test_a_descendant_is_verified_with_p_values(base, tmp_path):
    found = traced(base, write(tmp_path / "m", drifted(BASE)))
    assert found.status == "verified"
    checks = {check.name: measured(check) for check in found.checks}
    assert checks["unit_order"]["log10_p"] < -80
    assert checks["norm_vectors"]["log10_p"] < -30
    assert checks["sampled_rows"]["sampling_seed"] == 1
    assert outcomes(found)["bit_identity"] == "not_run"


def test_untouched_rows_are_counted(base, tmp_path):
    mine = drifted(BASE)
    mine["model.embed_tokens.weight"][5:] = BASE["model.embed_tokens.weight"][5:]
    found = traced(base, write(tmp_path / "m", mine))
    assert outcomes(found)["bit_identity"] == "passed"


def test_strangers_are_contradicted_after_everything_was_tried(base, tmp_path):
    found = traced(base, write(tmp_path / "m", random_body(2, layers=LAYERS)))
    assert found.status == "contradicted"
    assert outcomes(found)["hidden_units"] == "failed"
    checks = {check.name: measured(check) for check in found.checks}
    assert checks["unit_order"]["log10_p"] > -4
    assert checks["norm_vectors"]["log10_p"] > -4


def test_renamed_tensors_are_paired_by_content(base, tmp_path):
    found = traced(base, write(tmp_path / "m", renamed(drifted(BASE))))
    assert found.status == "verified"
    assert len(found.alignment.pairs) == len(BASE)
    ends = {pair.base.name: pair for pair in found.alignment.pairs}
    assert ends["model.layers.2.mlp.up_proj.weight"].role == "mlp_in"
    assert ends["model.layers.2.mlp.up_proj.weight"].layer == 2
    for pair in found.alignment.pairs:
        assert np.allclose(BASE[pair.base.name], renamed(drifted(BASE))[pair.name], atol=0.02)
    assert any("paired by content" in skip.why for skip in found.alignment.skips)


def test_renamed_strangers_find_no_partner(base, tmp_path):
    found = traced(base, write(tmp_path / "m", renamed(random_body(2, layers=LAYERS))))
    assert found.status == "unverified"
    assert not found.alignment.pairs


@pytest.mark.parametrize("order", [(3, 1, 0, 2, 4), (1, 2, 3, 4), (0, 2, 4)])
def test_moved_and_dropped_layers_are_followed(base, tmp_path, order):
    found = traced(base, write(tmp_path / "m", reordered(drifted(BASE), order)))
    assert found.status == "verified"
    assert outcomes(found)["moved_layers"] == "passed"
    for pair in found.alignment.pairs:
        if pair.layer is not None:
            assert pair.base.name.startswith(f"model.layers.{order[pair.layer]}.")


def test_permuted_hidden_units_are_recognised_and_compared_in_the_candidates_order(base, tmp_path):
    found = traced(base, write(tmp_path / "m", units_permuted(drifted(BASE))))
    assert found.status == "verified"
    check = next(check for check in found.checks if check.name == "hidden_units")
    assert check.note == "Verified up to a permutation of hidden units."
    assert measured(check)["log10_p"] < -50
    assert measured(check)["units_in_place"] < 0.1
    assert found.base is not None
    assert sum(pair.role.startswith("mlp") for pair in found.alignment.pairs) == 2 * LAYERS
    assert any("compared in the candidate's" in skip.why for skip in found.alignment.skips)


def test_permuted_and_turned_dimensions_are_recognised(base, tmp_path):
    mine = dimensions_permuted(units_permuted(drifted(BASE)))
    found = traced(base, write(tmp_path / "m", mine))
    assert found.status == "verified"
    check = next(check for check in found.checks if check.name == "hidden_units")
    assert "dimensions and hidden units" in check.note
    assert not found.alignment.pairs


def test_a_borrowed_feed_forward_block_is_no_descent(base, tmp_path):
    mine = random_body(2, layers=LAYERS) | {n: v for n, v in BASE.items() if ".mlp." in n or "embed" in n}
    found = traced(base, write(tmp_path / "m", mine))
    assert found.status == "unverified"
    borrowed = random_body(2, layers=LAYERS) | {
        n: v for n, v in units_permuted(BASE).items() if ".mlp." in n or "embed" in n
    }
    assert traced(base, write(tmp_path / "p", borrowed)).status == "unverified"


def test_broken_values_end_in_no_verdict(base, tmp_path):
    broken = {n: np.full_like(v, np.nan) for n, v in random_body(2, layers=LAYERS).items()}
    found = traced(base, write(tmp_path / "m", broken))
    assert found.status == "unverified"
    assert all(np.isfinite(item.value) for check in found.checks for item in check.measurements)
