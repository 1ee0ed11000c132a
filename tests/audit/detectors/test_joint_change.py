"""Edits of any layer that stand out among siblings and within their layer, and honest ends that do not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, findings, freeze, half_precision, merged_adapter, run

from audit.detectors.joint_change import DETECTOR, JOINT
from audit.evidence import Evidence
from benchmarks.zoo.stats import BASE_FILE, unpack
from scanner.records import DriftFacts, TensorDrift

LAYERS = 6
STATS = Path(__file__).resolve().parents[3] / "benchmarks" / "zoo" / "stats" / "real"
KINDS = {
    "attention.self.query": (48, 48),
    "attention.self.key": (48, 48),
    "attention.output.dense": (48, 48),
    "intermediate.dense": (96, 48),
    "output.dense": (48, 96),
}
OUT = "output.dense"


def name_of(kind: str, layer: int) -> str:
    return f"encoder.layer.{layer}.{kind}.weight"


Change = Callable[[dict[str, np.ndarray]], None]


def trained(change: Change = lambda _: None, *, rank: int = 24, noise: float = 1.0, ends: float = 3.0) -> Evidence:
    """A fine-tune of six layers whose last layer moved ``ends`` times as far, after a change of its deltas."""
    rng = np.random.default_rng(11)
    deltas = {}
    for layer in range(LAYERS):
        for kind, (rows, columns) in KINDS.items():
            spectrum = 0.8 ** np.arange(rank) * rng.uniform(0.8, 1.2, rank)
            shaped = (rng.normal(size=(rows, rank)) * spectrum) @ rng.normal(size=(rank, columns))
            size = 1e-4 * (ends if layer == LAYERS - 1 else 1.0) * rng.uniform(0.9, 1.1)
            deltas[name_of(kind, layer)] = size * (shaped + noise * rng.normal(size=(rows, columns)))
    change(deltas)
    facts = []
    for name, delta in deltas.items():
        base = rng.normal(0, 0.05, delta.shape).astype(np.float32)
        facts.append(drift_facts.tensor_drift(name, base, (base + delta).astype(np.float32)))
    return evidence_for.evidence(dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=tuple(facts)))


def rank_one(kind: str, layer: int, times: float) -> Change:
    """Add a rank-one matrix of that many times the norm of the siblings' change."""

    def apply(deltas: dict[str, np.ndarray]) -> None:
        rng = np.random.default_rng(12)
        name = name_of(kind, layer)
        others = [np.linalg.norm(deltas[name_of(kind, other)]) for other in range(LAYERS) if other != layer]
        edit = np.outer(*(rng.normal(size=n) for n in deltas[name].shape))
        deltas[name] = deltas[name] + times * float(np.median(others)) * edit / np.linalg.norm(edit)

    return apply


@pytest.mark.parametrize("layer", [0, 2, LAYERS - 1], ids=["first", "middle", "last"])
def test_an_edit_of_any_layer_is_named(layer: int) -> None:
    (finding,) = findings(DETECTOR, trained(rank_one(OUT, layer, 7.0), ends=1.0))
    assert finding.rule_id == JOINT.id
    assert finding.locations[0].tensor == name_of(OUT, layer)
    assert finding.severity == "high"


def test_an_edit_of_a_last_layer_that_moved_further_as_a_whole_is_named() -> None:
    (finding,) = findings(DETECTOR, trained(rank_one(OUT, LAYERS - 1, 21.0)))
    assert finding.locations[0].tensor == name_of(OUT, LAYERS - 1)


@pytest.mark.parametrize("ends", [1.0, 3.0, 8.0])
def test_honest_ends_are_innocent(ends: float) -> None:
    (hit,), _ = run(DETECTOR, trained(ends=ends))
    assert hit.finding is None
    assert hit.score < 0.5


def test_the_last_queries_of_a_classifier_are_innocent() -> None:
    """Measured with plain SGD: 2.5 to 3 times the siblings' change, nearly all of it along one direction."""
    assert findings(DETECTOR, trained(rank_one("attention.self.query", LAYERS - 1, 2.3), ends=1.0)) == []
    assert findings(DETECTOR, trained(rank_one("attention.self.query", LAYERS - 1, 8.0), ends=1.0)) != []


def test_size_alone_and_concentration_alone_are_innocent() -> None:
    def larger(deltas: dict[str, np.ndarray]) -> None:
        deltas[name_of(OUT, 5)] *= 20.0

    def concentrated(deltas: dict[str, np.ndarray]) -> None:
        name = name_of(OUT, 5)
        edit = np.outer(*(np.random.default_rng(1).normal(size=n) for n in deltas[name].shape))
        deltas[name] = np.linalg.norm(deltas[name]) * (edit / np.linalg.norm(edit)) + 0.01 * deltas[name]

    assert findings(DETECTOR, trained(larger, ends=1.0)) == []
    assert findings(DETECTOR, trained(concentrated, ends=1.0)) == []


@pytest.mark.parametrize("rank", [2, 8])
def test_adapters_are_judged_by_how_many_directions_share_a_change(rank: int) -> None:
    assert findings(DETECTOR, trained(rank=rank, noise=0.0)) == []

    def overwritten(deltas: dict[str, np.ndarray]) -> None:
        name = name_of(OUT, LAYERS - 1)
        edit = np.outer(*(np.random.default_rng(1).normal(size=n) for n in deltas[name].shape))
        deltas[name] = 4.0 * np.linalg.norm(deltas[name]) * edit / np.linalg.norm(edit)

    if rank > 2:
        (finding,) = findings(DETECTOR, trained(overwritten, rank=rank, noise=0.0))
        assert finding.locations[0].tensor == name_of(OUT, LAYERS - 1)


@pytest.mark.parametrize("layer", [0, 5])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_edits_of_the_ends_of_real_checkpoints_are_named(kind: pico.Kind, layer: int) -> None:
    found = findings(DETECTOR, evidence(lambda m: pico.rank_one_edit(m, layer, strength=0.5), kind=kind))
    assert [f.locations[0].tensor.split(".")[-4:] for f in found if f.locations[0].tensor] != []
    assert f".{layer}." in f".{found[0].locations[0].tensor}"


@pytest.mark.parametrize(
    "change",
    [
        lambda _base, _candidate: None,
        half_precision,
        merged_adapter,
        freeze("layer.0.", "layer.1.", "embeddings"),
        freeze("attention"),
    ],
    ids=["honest", "half precision", "merged adapter", "frozen bottom", "frozen attention"],
)
def test_honest_peculiarities_are_innocent(change: Callable[[Arrays, Arrays], None]) -> None:
    assert findings(DETECTOR, evidence(change=change)) == []


def stored(model: str) -> DriftFacts:
    """The statistics of one model of the real bank."""
    with np.load(STATS / f"{model}.npz") as arrays, np.load(STATS / BASE_FILE) as base:
        return unpack({name: arrays[name] for name in arrays.files}, {name: base[name] for name in base.files})


@pytest.mark.skipif(not STATS.is_dir(), reason="no statistics of the real bank are here")
@pytest.mark.parametrize("model", ["clean-0001", "clean-0011", "clean-0026"], ids=["lion", "adamw", "sgd"])
def test_a_model_of_the_real_bank_is_quiet_and_an_edit_laid_over_it_is_not(model: str) -> None:
    """The miss that this rule is made for: seven times the siblings' change and 98 % of it along one direction."""
    facts = stored(model)
    assert findings(DETECTOR, evidence_for.evidence(facts)) == []
    edited = dataclasses.replace(facts, tensors=tuple(map(_edited_last, facts.tensors)))
    (finding,) = findings(DETECTOR, evidence_for.evidence(edited))
    assert finding.locations[0].tensor == "bert.encoder.layer.5.output.dense.weight"


def _edited_last(tensor: TensorDrift) -> TensorDrift:
    if tensor.spec.name != "bert.encoder.layer.5.output.dense.weight" or tensor.spectrum is None:
        return tensor
    energy = 49.0 * tensor.delta_l2**2
    values = (float(np.sqrt(0.98 * energy)), *tensor.spectrum.values[1:])
    return dataclasses.replace(
        tensor,
        delta_l2=7.0 * tensor.delta_l2,
        spectrum=dataclasses.replace(tensor.spectrum, values=values, energy=energy),
    )


def test_too_few_layers_or_a_single_kind_is_an_abstention() -> None:
    def one_kind(deltas: dict[str, np.ndarray]) -> None:
        for name in [n for n in deltas if "output.dense" not in n or "attention" in n]:
            del deltas[name]

    for of in (evidence(lambda m: pico.rank_one_edit(m, 1, strength=1.0), layers=2), trained(one_kind)):
        hits, skips = run(DETECTOR, of)
        assert hits == []
        assert [skip.what for skip in skips] == [JOINT.id]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-3])
def test_bad_data_does_not_crash(value: float) -> None:
    def constant(deltas: dict[str, np.ndarray]) -> None:
        for delta in deltas.values():
            delta[...] = value

    with np.errstate(invalid="ignore"):
        hits, _ = run(DETECTOR, trained(constant))
    assert all(hit.finding is None for hit in hits)
