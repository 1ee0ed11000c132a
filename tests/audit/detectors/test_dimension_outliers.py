"""Dimensions, rows and columns out of proportion: planted, clean, innocent, and bad data."""

import copy
from typing import Any

import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, findings, freeze, half_precision, merged_adapter, run

from audit.detectors.dimension_outliers import DETECTOR

EDITED, NEURON = 2, 5
KINDS = ("bert", "gpt2", "llama")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rewritten_hidden_unit_is_named(kind: pico.Kind) -> None:
    found = findings(DETECTOR, evidence(lambda m: pico.flip_neuron(m, EDITED, NEURON), kind=kind))
    units = [f for f in found if f.rule_id == "HA403"]
    assert units
    places = [place for f in units for place in f.locations]
    assert any((NEURON, NEURON + 1) in (*place.rows, *place.columns) for place in places)
    assert all(f".{EDITED}." in str(place.tensor) for place in places)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_fine_tune_gives_no_finding_but_scores(kind: pico.Kind, seed: int) -> None:
    hits, _ = run(DETECTOR, evidence(kind=kind, seed=seed))
    assert {h.rule_id for h in hits} == {"HA401", "HA402", "HA403"}
    assert all(h.finding is None and h.score < 0.5 for h in hits)


def test_an_edit_over_ordinary_training_departs_from_the_separable_null() -> None:
    found = findings(DETECTOR, evidence(lambda m: pico.rank_one_edit(m, EDITED, strength=2.0)))
    assert "HA401" in {f.rule_id for f in found}
    assert {f.locations[0].tensor for f in found} == {f"encoder.layer.{EDITED}.output.dense.weight"}


def test_a_single_dimension_is_placed() -> None:
    """A value moved within a row and a column that moved little themselves."""

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(4)
        for layer in range(6):
            name = f"encoder.layer.{layer}.attention.self.query.weight"
            delta = rng.normal(0, 1e-3, base[name].shape)
            if layer == EDITED:
                delta[7] *= 1e-3
                delta[:, 9] *= 1e-3
                delta[7, 9] = 1e-4
            candidate[name] = (base[name].astype(np.float64) + delta).astype(np.float64)
            base[name] = base[name].astype(np.float64)

    peaks = [f for f in findings(DETECTOR, evidence(change=change)) if f.rule_id == "HA402"]
    assert peaks
    assert (peaks[0].locations[0].rows, peaks[0].locations[0].columns) == (((7, 8),), ((9, 10),))
    assert "[7, 9]" in peaks[0].explanation


@pytest.mark.parametrize(
    "change",
    [half_precision, merged_adapter, freeze("layer.0.", "layer.1."), freeze("embeddings")],
    ids=["half precision", "merged adapter", "frozen bottom", "frozen embeddings"],
)
def test_honest_peculiarities_are_innocent(change: Any) -> None:
    assert findings(DETECTOR, evidence(change=change)) == []


def test_the_ends_are_not_judged() -> None:
    """A classifier that reads one position leaves a rank-one change in the last query matrix."""

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(4)
        name = "encoder.layer.5.attention.self.query.weight"
        candidate[name] = base[name] + np.float32(0.02) * np.outer(*rng.normal(size=(2, 32))).astype(np.float32)

    assert findings(DETECTOR, evidence(change=change)) == []


def test_a_small_model_is_an_abstention() -> None:
    hits, skips = run(DETECTOR, evidence(layers=2))
    assert hits == []
    assert {s.what for s in skips} == {"HA401", "HA402", "HA403"}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e300])
def test_bad_values_do_not_crash(value: float) -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        for name in copy.copy(candidate):
            candidate[name] = np.full_like(candidate[name], value, dtype=np.float64)

    with np.errstate(all="ignore"):
        hits, _ = run(DETECTOR, evidence(change=change))
    assert all(h.finding is None for h in hits if value != 1e300)
