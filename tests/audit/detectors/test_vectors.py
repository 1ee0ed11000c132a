"""Norms, biases and heads: planted, clean, innocent, and bad data."""

import dataclasses

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import evidence, findings, freeze, half_precision, run

from audit.detectors.vectors import DETECTOR
from audit.evidence import Evidence

EDITED = 2


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_scaled_norm_is_named(kind: pico.Kind) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: pico.scale_norm(m, EDITED), kind=kind))
    assert (finding.rule_id, finding.severity) == ("HA501", "high")
    assert f".{EDITED}." in str(finding.locations[0].tensor)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_shifted_bias_is_named(kind: pico.Kind) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: pico.shift_bias(m, EDITED), kind=kind))
    assert (finding.rule_id, finding.severity) == ("HA502", "high")
    assert f".{EDITED}." in str(finding.locations[0].tensor)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_fine_tune_gives_no_finding_but_scores(kind: pico.Kind, seed: int) -> None:
    hits, skips = run(DETECTOR, evidence(kind=kind, seed=seed))
    assert all(h.finding is None and h.score < 0.5 for h in hits)
    assert {h.rule_id for h in hits} | {s.what for s in skips} == {"HA501", "HA502", "HA503"}


def test_one_entry_that_carries_the_change_is_placed() -> None:
    def plant(model: pico.PreTrainedModel) -> None:
        model.bert.encoder.layer[EDITED].output.dense.bias.data[11] += 2.0

    (finding,) = findings(DETECTOR, evidence(plant))
    assert finding.locations[0].columns == ((11, 12),)


@pytest.mark.parametrize(
    "change", [half_precision, freeze("layer.0.", "layer.1."), freeze("bias")], ids=["half", "bottom", "bias"]
)
def test_honest_peculiarities_are_innocent(change: object) -> None:
    assert findings(DETECTOR, evidence(change=change)) == []  # type: ignore[arg-type]


def heads(delta: np.ndarray, *, name: str = "classifier.weight") -> Evidence:
    """Evidence of one head that both sides have."""
    base = np.random.default_rng(0).normal(0, 0.02, delta.shape).astype(np.float32)
    facts = drift_facts.tensor_drift(name, base, (base + delta).astype(np.float32), spectra=False)
    return evidence_for.evidence(dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=(facts,)))


@pytest.mark.parametrize(("shape", "name"), [((10, 32), "classifier.weight"), ((10,), "classifier.bias")])
def test_one_output_of_a_head_is_named(shape: tuple[int, ...], name: str) -> None:
    delta = np.random.default_rng(1).normal(0, 1e-3, shape)
    assert findings(DETECTOR, heads(delta, name=name)) == []
    delta[7] = 0.5
    (finding,) = findings(DETECTOR, heads(delta, name=name))
    assert finding.rule_id == "HA503"
    assert "Output 7" in finding.explanation
    assert (finding.locations[0].rows or finding.locations[0].columns) == ((7, 8),)


@pytest.mark.parametrize("delta", [np.ones((2, 32)), np.zeros((10, 32)), np.eye(10, 32)[:1].repeat(10, 0) * 0])
def test_a_head_with_few_outputs_or_no_change_is_an_abstention(delta: np.ndarray) -> None:
    hits, skips = run(DETECTOR, heads(delta))
    assert hits == []
    assert "HA503" in {s.what for s in skips}


def test_a_head_in_which_one_output_alone_changed_is_an_abstention() -> None:
    """The others did not move at all, so there is nothing to compare with."""
    delta = np.zeros((10, 32))
    delta[3] = 1.0
    hits, skips = run(DETECTOR, heads(delta))
    assert hits == []
    assert "HA503" in {s.what for s in skips}
