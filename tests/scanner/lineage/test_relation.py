"""The relation once everything has been compared."""

from dataclasses import replace

import numpy as np
import pytest
from descents import drifted, random_body, traced, write
from drift_facts import from_arrays

from scanner.lineage.relation import declared_or_measured, measure_relation, settled_relation
from scanner.records import DriftFacts

BASE = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b.weight": np.ones(4, dtype=np.float32)}


def drift(**changes: np.ndarray) -> DriftFacts:
    candidate = BASE | {name.replace("__", "."): value for name, value in changes.items()}
    return from_arrays(BASE, candidate, spectra=False)


@pytest.mark.parametrize("relation", ["finetune", "merge", "unknown"])
def test_a_complete_comparison_without_a_change_is_identical(relation):
    assert settled_relation(relation, drift()) == "identical"


def test_one_changed_value_is_enough():
    moved = BASE["a.weight"].copy()
    moved[1, 2] += 1
    assert settled_relation("finetune", drift(a__weight=moved)) == "finetune"


def test_what_was_not_compared_is_not_identical():
    assert settled_relation("finetune", drift(head__weight=np.ones((2, 2), dtype=np.float32))) == "finetune"
    assert settled_relation("finetune", replace(drift(), added_rows={"a.weight": (3, 5)})) == "finetune"
    assert settled_relation("unknown", replace(drift(), tensors=())) == "unknown"
    assert settled_relation("unknown", None) == "unknown"


def test_values_that_are_not_finite_are_not_identical():
    broken = np.full(4, np.nan, dtype=np.float32)
    assert settled_relation("finetune", from_arrays(BASE | {"b.weight": broken}, BASE | {"b.weight": broken})) == (
        "finetune"
    )


BODY = random_body(1)


def shown(tmp_path, candidate):
    """The measured relation of an altered body to the body, and the words."""
    found = traced(write(tmp_path / "base", BODY), write(tmp_path / "mine", candidate))
    measured = measure_relation(found.checks, None)
    return measured.relation, measured.check.note


def low_rank(rank, seed=8):
    generator = np.random.default_rng(seed)

    def added(value):
        left, right = (generator.standard_normal((n, rank)) for n in value.shape)
        return (value + 0.002 / rank**0.5 * left @ right.T).astype(np.float32)

    return {n: added(v) if v.ndim > 1 and "embed" not in n else v for n, v in BODY.items()}


def test_training_is_a_fine_tune(tmp_path):
    relation, words = shown(tmp_path, drifted(BODY))
    assert relation == "finetune"
    assert "full rank" in words


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_changes_of_low_rank_everywhere_are_an_adapter_merged_in(tmp_path, rank):
    relation, words = shown(tmp_path, low_rank(rank))
    assert relation == "adapter"
    assert f"rank {rank} or less" in words


def test_a_merged_adapter_rounded_to_half_precision_keeps_its_rank(tmp_path):
    halved = {n: v.astype(np.float16) for n, v in low_rank(4).items()}
    assert shown(tmp_path, halved)[0] == "adapter"


def test_one_low_rank_edit_is_no_adapter(tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    assert shown(tmp_path, BODY | {name: low_rank(1)[name]})[0] == "finetune"


def test_values_on_a_grid_are_quantized(tmp_path):
    def rounded(value):
        scale = np.abs(value).max(axis=-1, keepdims=True) / 7
        return (np.round(value / scale) * scale).astype(np.float32)

    relation, words = shown(tmp_path, {n: rounded(v) if v.ndim > 1 else v for n, v in BODY.items()})
    assert relation == "quantized"
    assert "grid" in words


def test_entries_set_to_zero_are_said(tmp_path):
    pruned = {n: np.where(np.abs(v) > np.median(np.abs(v)), v, 0) if v.ndim > 1 else v for n, v in BODY.items()}
    relation, words = shown(tmp_path, pruned)
    assert relation == "finetune"
    assert "50% of the base's entries are zero now" in words


def test_a_stranger_has_no_relation(tmp_path):
    assert shown(tmp_path, random_body(2))[0] == "unknown"


def test_the_declaration_stands_where_the_weights_allow_it():
    assert declared_or_measured("merge", "finetune") == "merge"
    assert declared_or_measured("finetune", "adapter") == "adapter"
    assert declared_or_measured("finetune", "identical") == "identical"
    assert declared_or_measured("quantized", "finetune") == "finetune"
    assert declared_or_measured(None, "finetune") == "finetune"


@pytest.mark.parametrize("columns", [64, 512])
def test_a_cast_to_half_precision_is_no_grid(tmp_path, columns):
    import ml_dtypes

    body = random_body(1, hidden=columns, layers=2)
    cast = {n: v.astype(ml_dtypes.bfloat16) for n, v in drifted(body).items()}
    found = traced(write(tmp_path / "base", body), write(tmp_path / "mine", cast))
    assert measure_relation(found.checks, None).relation == "finetune"
