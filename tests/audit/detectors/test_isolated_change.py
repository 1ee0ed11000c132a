"""Isolated changes: planted, clean, innocent, and bad data."""

import dataclasses
from typing import Any

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, findings, freeze, half_precision, merged_adapter, run

from audit.detectors.isolated_change import DETECTOR
from audit.evidence import Evidence

EDITED = 2
KINDS = ("bert", "gpt2", "llama")


def name_of(kind: pico.Kind, layer: int) -> str:
    """The feed-forward output matrix of a layer, as the evidence names it."""
    return {
        "bert": f"encoder.layer.{layer}.output.dense.weight",
        "gpt2": f"h.{layer}.mlp.c_proj.weight",
        "llama": f"layers.{layer}.mlp.down_proj.weight",
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_one_edit_of_a_fine_tune_is_named(kind: pico.Kind) -> None:
    found = findings(DETECTOR, evidence(lambda m: pico.rank_one_edit(m, EDITED, strength=4.0), kind=kind))
    assert found[0].rule_id == "HA301"
    assert {f.locations[0].tensor for f in found} == {name_of(kind, EDITED)}
    assert found[0].severity == "high"
    share = next(m for m in found[0].measurements if m.name == "share of the first direction")
    assert share.value is not None
    assert share.value > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_fine_tune_gives_no_finding_but_scores(kind: pico.Kind, seed: int) -> None:
    hits, _ = run(DETECTOR, evidence(kind=kind, seed=seed))
    assert [h.finding for h in hits] == [None, None]
    assert all(0 <= h.score < 0.5 for h in hits)


def test_a_quiet_rank_one_edit_shows_in_the_spectrum() -> None:
    """Too small to stand out by size, but nearly all of the change lies along it."""

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(3)
        for layer in range(6):
            name = name_of("bert", layer)
            noise = rng.normal(size=base[name].shape)
            if layer == EDITED:
                noise = 0.02 * noise + np.outer(*(rng.normal(size=n) for n in base[name].shape))
            candidate[name] = (base[name] + 0.003 * noise).astype(np.float32)

    (finding,) = findings(DETECTOR, evidence(change=change))
    assert finding.rule_id == "HA302"
    assert finding.locations[0].tensor == name_of("bert", EDITED)


@pytest.mark.parametrize(
    "change",
    [
        half_precision,
        merged_adapter,
        freeze("layer.0.", "layer.1.", "embeddings"),
        freeze("embeddings"),
        freeze("attention"),
    ],
    ids=["half precision", "merged adapter", "frozen bottom", "frozen embeddings", "frozen attention"],
)
def test_honest_peculiarities_are_innocent(change: Any) -> None:
    assert findings(DETECTOR, evidence(change=change)) == []


def test_a_pooler_is_never_judged() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        for name in candidate:
            candidate[name] = base.get(name, candidate[name]).copy()
        candidate["pooler.dense.weight"] = candidate["pooler.dense.weight"] + np.float32(1.0)

    hits, skips = run(DETECTOR, evidence(change=change))
    assert hits == []
    assert {s.what for s in skips} == {"HA301", "HA302"}


def test_a_small_model_is_an_abstention() -> None:
    of = evidence(lambda m: pico.rank_one_edit(m, 1, strength=1.0), layers=2)
    hits, skips = run(DETECTOR, of)
    assert hits == []
    assert {s.what for s in skips} == {"HA301", "HA302"}
    assert all("more than 3 layers" in s.why for s in skips)


def matrices(deltas: list[np.ndarray]) -> Evidence:
    """Evidence of one kind of matrix with the given changes, one per layer."""
    rng = np.random.default_rng(0)
    facts = []
    for layer, delta in enumerate(deltas):
        base = rng.normal(0, 0.05, delta.shape).astype(np.float32)
        name = f"encoder.layer.{layer}.output.dense.weight"
        facts.append(drift_facts.tensor_drift(name, base, (base + delta).astype(np.float32)))
    drift = dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=tuple(facts))
    return evidence_for.evidence(drift)


@pytest.mark.parametrize(
    "delta",
    [np.zeros((24, 32)), np.full((24, 32), np.nan), np.full((24, 32), 1e-3), np.ones((1, 32)), np.zeros((0, 32))],
    ids=["zero", "nan", "constant", "one row", "no rows"],
)
def test_bad_data_does_not_crash(delta: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        for count in (1, 6):
            hits, _ = run(DETECTOR, matrices([delta] * count))
            assert all(h.finding is None for h in hits)


def test_findings_are_capped_and_say_how_many_more() -> None:
    rng = np.random.default_rng(5)
    deltas = [rng.normal(0, 1e-3, (24, 32)) * (300.0 if layer % 5 == 0 else 1.0) for layer in range(80)]
    found = [f for f in findings(DETECTOR, matrices(deltas)) if f.rule_id == "HA301"]
    assert len(found) == 10
    assert "6 more tensors" in found[-1].explanation


def test_a_trend_over_depth_is_innocent() -> None:
    rng = np.random.default_rng(6)
    deltas = [rng.normal(0, 1e-3, (24, 32)) * 1.6**layer for layer in range(12)]
    assert findings(DETECTOR, matrices(deltas)) == []
