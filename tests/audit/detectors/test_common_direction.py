"""A direction removed from every residual writer, and what training and rounding leave instead."""

import dataclasses

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
import torch
from pico_cases import Arrays, evidence, findings, freeze, half_precision, merged_adapter, run
from transformers import PreTrainedModel

from audit.detectors.common_direction import COMMON, DETECTOR, agreements, main_direction

KINDS = ("bert", "gpt2", "llama")
WRITERS = ("output.dense.weight", "c_proj.weight", "o_proj.weight", "down_proj.weight")


@torch.no_grad()
def abliterate(
    model: PreTrainedModel, *, strength: float = 1.0, layers: tuple[int, ...] = tuple(range(6)), turned: bool = False
) -> None:
    """W ← W − s r rᵀ W on everything that writes to the residual stream of these layers."""
    r = torch.randn(pico.HIDDEN, generator=torch.Generator().manual_seed(9))
    r /= r.norm()
    for name, weight in model.named_parameters():
        if name.endswith(WRITERS) and any(f".{layer}." in name for layer in layers):
            weight.sub_(strength * (torch.outer(weight @ r, r) if turned else torch.outer(r, r @ weight)))
    if len(layers) == 6:
        table = model.get_input_embeddings().weight
        table -= strength * torch.outer(table @ r, r)


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_direction_is_told_and_neutrally(kind: pico.Kind) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: abliterate(m, turned=kind == "gpt2"), kind=kind))
    assert (finding.rule_id, finding.severity) == (COMMON.id, "medium")
    assert "usually done on purpose" in finding.explanation
    assert "malicious" not in finding.explanation
    along = [m.value for m in finding.measurements if m.name.startswith("cosine with the first direction of")]
    assert along
    assert all(value is not None and value > 0.9 for value in along), "the token table lost it as well"


@pytest.mark.parametrize("layers", [(2, 3, 4), (3, 4, 5), (1, 3, 5)])
def test_half_of_the_layers_are_enough(layers: tuple[int, ...]) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: abliterate(m, layers=layers)))
    assert any(f".{layer}." in f".{finding.locations[0].tensor}" for layer in layers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_fine_tune_gives_no_finding_but_scores(kind: pico.Kind, seed: int) -> None:
    (hit,), _ = run(DETECTOR, evidence(kind=kind, seed=seed))
    assert hit.finding is None
    assert 0 <= hit.score < 0.5


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_the_strength_of_the_removal_is_measured(strength: float) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: abliterate(m, strength=strength)))
    factor = next(m.value for m in finding.measurements if m.name == "removal factor, median")
    assert factor == pytest.approx(1 / strength, rel=0.1)


def test_a_direction_that_all_layers_moved_along_is_no_removal() -> None:
    """Raw models push the same way everywhere: the directions agree, the factors do not."""
    of = evidence()
    assert of.drift is not None
    writers = [t for t in of.drift.tensors if t.spec.role in {"attention_output", "mlp_out"}]
    vectors = {k: np.stack([t.spectrum.left for t in writers if t.spec.layer == k and t.spectrum]) for k in range(6)}
    assert min(agreements(vectors).values()) > 0.9
    assert findings(DETECTOR, of) == []


def eight_bits(base: Arrays, candidate: Arrays) -> None:
    """A change: every matrix went through 8 bits with one scale a tensor, over an outlying residual channel."""
    for name, value in candidate.items():
        if value.ndim != 2:
            continue
        scaled = value.copy()
        if name.endswith("output.dense.weight"):
            scaled[3] *= 30.0
            base[name] = base[name].copy()
            base[name][3] *= 30.0
        step = np.abs(scaled).max() / 127.0
        candidate[name] = (np.round(scaled / step) * step).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [half_precision, merged_adapter, freeze("layer.0.", "embeddings"), eight_bits],
    ids=["half precision", "merged adapter", "frozen bottom", "8 bits"],
)
def test_honest_peculiarities_are_innocent(change) -> None:  # type: ignore[no-untyped-def]
    assert findings(DETECTOR, evidence(change=change)) == []


def test_one_common_direction_in_the_feed_forward_blocks_alone_is_innocent() -> None:
    """Rounding to 8 bits does that: the channel with the largest weights has the largest errors everywhere."""
    rng = np.random.default_rng(0)
    unit = np.eye(32)[3]
    layers = {layer: np.stack([unit, rng.normal(size=32) / np.sqrt(32)]) for layer in range(12)}
    assert np.quantile(list(agreements(layers).values()), 2 / 3) < 0.5


def test_the_main_direction_is_the_first_eigenvector() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(7, 20))
    _, eigenvectors = np.linalg.eigh(vectors.T @ vectors)
    assert abs(float(main_direction(vectors) @ eigenvectors[:, -1])) == pytest.approx(1.0)


def test_too_few_layers_is_an_abstention() -> None:
    for of in (evidence(layers=2), evidence(change=freeze("output.dense"))):
        hits, skips = run(DETECTOR, of)
        assert hits == []
        assert [skip.what for skip in skips] == [COMMON.id]


def test_facts_without_vectors_are_an_abstention() -> None:
    """Statistics that were stored before the vectors were kept."""
    of = evidence(abliterate)
    assert of.drift is not None
    bare = tuple(
        dataclasses.replace(t, spectrum=dataclasses.replace(t.spectrum, left=None, right=None)) if t.spectrum else t
        for t in of.drift.tensors
    )
    hits, skips = run(DETECTOR, dataclasses.replace(of, drift=dataclasses.replace(of.drift, tensors=bare)))
    assert hits == []
    assert skips


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-3])
def test_bad_data_does_not_crash(value: float) -> None:
    facts = []
    for layer in range(6):
        base = np.ones((24, 32), np.float32)
        facts.append(
            drift_facts.tensor_drift(
                f"encoder.layer.{layer}.output.dense.weight", base, base + np.full_like(base, value)
            )
        )
    of = evidence_for.evidence(dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=tuple(facts)))
    hits, _ = run(DETECTOR, of)
    assert all(hit.finding is None for hit in hits)
