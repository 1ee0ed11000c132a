"""Contrasts with other layers."""

import dataclasses

import drift_facts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.siblings import away_from_ends, contrasts, kind_of, kinds, less_at_ends, low_rank, moved
from scanner.records import TensorDrift

FLOOR = 1.05


def tensor(layer: int, *, delta: float | np.ndarray = 0.1, name: str = "h.{}.w.weight", cols: int = 8) -> TensorDrift:
    """One small tensor of a layer."""
    base = np.ones((4, cols))
    return drift_facts.tensor_drift(name.format(layer), base, base + delta)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("h.3.mlp.weight", "h.{}.mlp.weight"),
        ("model.layers.11.mlp.experts.7.w1.weight", "model.layers.{}.mlp.experts.{}.w1.weight"),
        ("encoder.layer.0.1", "encoder.layer.{}.{}"),
        ("0.weight", "{}.weight"),
        ("wav2vec2.fc1.weight", "wav2vec2.fc1.weight"),
    ],
)
def test_kinds_leave_every_index_open(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_only_tensors_of_a_layer_have_a_kind() -> None:
    pooler = drift_facts.tensor_drift("pooler.dense.weight", np.ones((2, 2)), np.ones((2, 2)))
    assert {kind: len(m) for kind, m in kinds([tensor(0), tensor(1), pooler]).items()} == {"h.{}.w.weight": 2}


def test_too_few_siblings_give_nothing() -> None:
    assert contrasts([(tensor(i), 1.0) for i in range(3)], least=3) == ()
    assert len(contrasts([(tensor(i), 1.0) for i in range(4)], least=3)) == 4


def test_values_that_say_nothing_take_no_part() -> None:
    values = [1.0, 1.0, 1.0, 1.0, None, 0.0, float("nan"), float("inf")]
    found = contrasts([(tensor(i), v) for i, v in enumerate(values)], least=3)
    assert [c.siblings for c in found] == [3, 3, 3, 3]


def test_one_member_out_of_line_alone_exceeds() -> None:
    found = contrasts([(tensor(i), 10.0 if i == 2 else 1.0) for i in range(6)], least=3)
    assert [round(c.excess, 6) for c in found] == [0, 0, round(float(np.log(10)), 6), 0, 0, 0]
    assert found[2].expected == pytest.approx(1.0)


def test_half_frozen_layers_do_not_accuse_the_rest() -> None:
    found = contrasts([(tensor(i), 1.0 if i > 2 else 1e-3) for i in range(6)], least=3)
    assert max(c.excess for c in found) < 0.1


@settings(deadline=None)
@given(st.floats(-1.0, 1.0), st.integers(5, 30))
def test_a_trend_over_depth_exceeds_nothing(slope: float, layers: int) -> None:
    found = contrasts([(tensor(i), float(np.exp(slope * i))) for i in range(layers)], least=3)
    assert max(c.excess for c in found) <= 1e-6


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=5, max_size=12), st.floats(1e-3, 1e3))
def test_a_common_factor_changes_no_excess(values: list[float], factor: float) -> None:
    one = contrasts([(tensor(i), v) for i, v in enumerate(values)], least=3)
    other = contrasts([(tensor(i), v * factor) for i, v in enumerate(values)], least=3)
    assert [c.excess for c in one] == pytest.approx([c.excess for c in other], abs=1e-6)


def test_experts_share_a_position_and_many_members_are_quick() -> None:
    name = "layers.{}.experts.{}.w.weight"
    members = [(tensor(0, name=name.format("{}", e)), 1.0 if e != 9 else 50.0) for e in range(300)]
    found = contrasts(members, least=3)
    assert max(found, key=lambda c: c.excess).tensor is members[9][0]


def test_the_ends_are_left_out() -> None:
    members = [tensor(i) for i in range(5)]
    found = contrasts([(t, 1.0) for t in members], least=3)
    assert [c.tensor.spec.layer for c in away_from_ends(found, members)] == [1, 2, 3]
    assert away_from_ends([], members) == []


def test_the_ends_get_an_allowance() -> None:
    members = [tensor(i) for i in range(5)]
    found = contrasts([(t, 1.0) for t in members], least=3)
    assert [round(c.excess, 9) for c in less_at_ends(found, members, allowance=0.5)] == [-0.5, 0, 0, 0, -0.5]
    assert less_at_ends([], [], allowance=0.5) == []


def test_rounding_to_the_stored_format_is_no_move() -> None:
    base = np.random.default_rng(0).normal(0, 0.05, (200, 64)).astype(np.float32)
    rounded = drift_facts.tensor_drift("h.0.w", base, base.astype(np.float16))
    assert not moved(rounded, floor_ratio=FLOOR)
    trained = (base + np.random.default_rng(1).normal(0, 1e-3, base.shape)).astype(np.float16)
    assert moved(drift_facts.tensor_drift("h.0.w", base, trained), floor_ratio=FLOOR)


def test_rounding_on_the_way_and_decay_are_no_move() -> None:
    base = np.random.default_rng(0).normal(0, 0.05, (200, 384)).astype(np.float32)
    for still in (base.astype(np.float16).astype(np.float32), base * np.float32(0.999), base):
        assert not moved(drift_facts.tensor_drift("h.0.w", base, still, spectra=False), floor_ratio=FLOOR)


def test_a_row_written_into_a_rounded_matrix_is_a_move() -> None:
    base = np.random.default_rng(0).normal(0, 0.05, (200, 384)).astype(np.float32)
    edited = base.astype(np.float16).astype(np.float32)
    edited[7] *= -1
    assert moved(drift_facts.tensor_drift("h.0.w", base, edited, spectra=False), floor_ratio=FLOOR)


def test_uneven_training_is_a_move() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.05, (200, 384)).astype(np.float32)
    delta = rng.normal(0, 1e-3, base.shape) * np.exp(rng.normal(0, 0.3, (200, 1)))
    trained = (base + delta).astype(np.float32)
    assert moved(drift_facts.tensor_drift("h.0.w", base, trained, spectra=False), floor_ratio=FLOOR)


def test_low_rank_is_a_matter_of_most_members() -> None:
    rng = np.random.default_rng(0)
    thin = [tensor(i, delta=rng.normal(size=(4, 1)) @ rng.normal(size=(1, 8))) for i in range(3)]
    big = np.ones((40, 40))
    full = [drift_facts.tensor_drift(f"h.{i}.w", big, big + rng.normal(size=big.shape)) for i in range(3)]
    assert low_rank(thin, share=0.999)
    assert not low_rank(full, share=0.999)
    assert not low_rank([*thin, *full[:1], *full], share=0.999)
    assert not low_rank([], share=0.999)
    assert not low_rank([dataclasses.replace(thin[0], spectrum=None)], share=0.999)
