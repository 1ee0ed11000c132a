"""What a diff says of how a model was fine-tuned."""

import dataclasses
from typing import Any

import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence

from audit.traits import LEAST_MATRICES, TRAITS, traits_of
from scanner.records import DriftFacts


def drift(**how: Any) -> DriftFacts:
    """The drift of a small fine-tune."""
    found = evidence(**how).drift
    assert found is not None
    return found


def described(**how: Any) -> dict[str, float]:
    """The traits of a small fine-tune, by name."""
    traits = traits_of(drift(**how))
    assert traits is not None
    assert np.isfinite(traits).all()
    return dict(zip(TRAITS, traits.tolist(), strict=True))


def matrices(names: Arrays) -> list[str]:
    """Names of the matrices of the blocks."""
    return [name for name, values in names.items() if values.ndim == 2 and "layer" in name]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_traits_are_named_and_finite_for_every_architecture(kind: pico.Kind) -> None:
    made = described(kind=kind)
    assert len(made) == len(TRAITS)
    assert -12 < made["drift"] < 0
    assert 0 < made["top_share"] <= 1


def test_a_larger_change_moves_the_drift_alone() -> None:
    def doubled(base: Arrays, candidate: Arrays) -> None:
        for name in base:
            candidate[name] = base[name] + 2 * (candidate[name] - base[name])

    before, after = described(), described(change=doubled)
    assert after["drift"] - before["drift"] == pytest.approx(np.log(2), abs=1e-3)
    others = [name for name in TRAITS if name not in {"drift", "unchanged_entries", "unchanged_rows"}]
    assert [after[n] for n in others] == pytest.approx([before[n] for n in others], abs=0.02)


def test_frozen_parts_are_told() -> None:
    def frozen(base: Arrays, candidate: Arrays) -> None:
        for name in base:
            if "embeddings" in name or "layer.0." in name or "bias" in name or "LayerNorm" in name:
                candidate[name] = base[name].copy()

    made = described(change=frozen)
    assert made["unchanged_vectors"] == made["unchanged_rows"] == 1.0
    assert made["unchanged_matrices"] == pytest.approx(1 / 6)
    assert made["embedding_ratio"] == made["vector_ratio"] == -8.0


def test_rates_that_grow_with_depth_give_a_slope_and_no_spread() -> None:
    def layerwise(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(0)
        for name in matrices(candidate):
            layer = int(name.split("layer.")[1].split(".")[0])
            noise = rng.normal(size=base[name].shape)
            noise *= np.linalg.norm(base[name]) / np.linalg.norm(noise)
            candidate[name] = (base[name] + 1e-3 * 2.0**layer * noise).astype(np.float32)

    made = described(change=layerwise)
    assert made["depth_slope"] == pytest.approx(5 * np.log(2), abs=0.02)
    assert made["drift_spread"] == pytest.approx(0, abs=0.02)
    assert made["role_spread"] == pytest.approx(0, abs=0.02)
    assert made["entry_tail"] == pytest.approx(np.log(3), abs=0.3)
    assert made["shrinkage"] == pytest.approx(0, abs=0.05)


def test_low_rank_and_shrinking_are_told() -> None:
    def shrunk(base: Arrays, candidate: Arrays) -> None:
        for name in matrices(candidate):
            candidate[name] = (0.9 * base[name]).astype(np.float32)

    def rank_one(base: Arrays, candidate: Arrays) -> None:
        for name in matrices(candidate):
            rows, columns = base[name].shape
            candidate[name] = base[name] + np.outer(np.ones(rows), np.ones(columns)).astype(np.float32)

    assert described(change=shrunk)["shrinkage"] == pytest.approx(-1, abs=1e-4)
    made = described(change=rank_one)
    assert made["top_share"] == pytest.approx(1, abs=1e-4)
    assert made["effective_rank"] == pytest.approx(0, abs=1e-4)


def test_an_edit_of_one_matrix_and_one_row_leaves_the_description() -> None:
    def edited(model: Any) -> None:
        pico.rank_one_edit(model, 2, strength=2.0)
        pico.poison_row(model, 47)

    before, after = described(), described(plant=edited)
    for name in TRAITS:
        assert after[name] == pytest.approx(before[name], abs=0.1), name


def test_nothing_moved_is_a_description_too() -> None:
    made = described(start="base")
    assert made["drift"] == pytest.approx(np.log(1e-9))
    assert made["unchanged_matrices"] == 1.0


def test_too_few_matrices_cannot_be_described() -> None:
    whole = drift()
    kept = [t for t in whole.tensors if len(t.spec.shape) == 2 and t.spec.layer is not None][: LEAST_MATRICES - 1]
    assert traits_of(dataclasses.replace(whole, tensors=tuple(kept))) is None
    assert traits_of(dataclasses.replace(whole, tensors=())) is None


def test_numbers_beyond_reason_stay_finite() -> None:
    def wild(base: Arrays, candidate: Arrays) -> None:
        for name in matrices(candidate)[:3]:
            candidate[name] = base[name] + np.float32(1e30)

    described(change=wild)
