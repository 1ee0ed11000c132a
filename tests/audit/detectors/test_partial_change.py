"""Which tensors moved at all: planted, clean, innocent, and bad data."""

from collections.abc import Callable
from typing import Any

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, findings, freeze, half_precision, merged_adapter, run

from audit.detectors.partial_change import DETECTOR
from audit.evidence import Evidence
from audit.siblings import moved

EDITED = 2
KINDS = ("bert", "gpt2", "llama")


def name_of(kind: pico.Kind, layer: int) -> str:
    """The feed-forward output matrix of a layer, as the evidence names it."""
    return {
        "bert": f"encoder.layer.{layer}.output.dense.weight",
        "gpt2": f"h.{layer}.mlp.c_proj.weight",
        "llama": f"layers.{layer}.mlp.down_proj.weight",
    }[kind]


def adapter_on_attention(base: Arrays, candidate: Arrays) -> None:
    """Query and value of every layer get a rank-two update, all else is the base's."""
    merged_adapter(base, candidate)
    for name in candidate:
        if name in base and not name.endswith(("self.query.weight", "self.value.weight")):
            candidate[name] = base[name].copy()


def both(*changes: Callable[[Arrays, Arrays], None]) -> Callable[[Arrays, Arrays], None]:
    """One change after the other."""

    def apply(base: Arrays, candidate: Arrays) -> None:
        for change in changes:
            change(base, candidate)

    return apply


def edit(*layers: int) -> Callable[[Arrays, Arrays], None]:
    """Rank-one edits of the feed-forward output matrices of these layers."""

    def apply(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(9)
        for layer in layers:
            left, right = (rng.normal(size=n) for n in base[name_of("bert", layer)].shape)
            candidate[name_of("bert", layer)] += (0.01 * np.outer(left, right)).astype(np.float32)

    return apply


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_one_edit_of_the_base_is_an_exact_fact(kind: pico.Kind) -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: pico.rank_one_edit(m, EDITED), kind=kind, start="base"))
    assert (finding.rule_id, finding.severity, finding.confidence) == ("HA303", "high", "exact")
    assert [place.tensor for place in finding.locations] == [name_of(kind, EDITED)]
    assert "bit-identical" in finding.explanation
    assert "lies along one direction" in finding.explanation


def test_a_rewritten_unit_of_the_base_is_an_exact_fact() -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: pico.flip_neuron(m, EDITED, 5), start="base"))
    assert finding.rule_id == "HA303"
    assert len(finding.locations) == 2


def test_an_edit_before_a_round_trip_is_found() -> None:
    """Rounding of narrow rows cannot be told from training, so the pico model is widened to 384 columns."""

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(1)
        for name in list(base):
            if base[name].ndim == 2:
                base[name] = rng.normal(0, 0.05, (160, 384)).astype(np.float32)
            candidate[name] = base[name].copy()
        candidate[name_of("bert", EDITED)][3] *= -1
        half_precision(base, candidate)
        for name in [n for n in candidate if candidate[n].ndim < 2]:
            del candidate[name], base[name]

    (finding,) = findings(DETECTOR, evidence(change=change, start="base"))
    assert [place.tensor for place in finding.locations] == [name_of("bert", EDITED)]
    assert "rounding or weight decay" in finding.explanation


@pytest.mark.parametrize("layers", [(2,), (0,), (1, 2, 3), (0, 1, 2, 3)])
def test_edits_laid_over_an_adapter_are_out_of_place(layers: tuple[int, ...]) -> None:
    (finding,) = findings(DETECTOR, evidence(change=both(adapter_on_attention, edit(*layers))))
    assert (finding.rule_id, finding.confidence) == ("HA304", "exact")
    assert [place.tensor for place in finding.locations] == [name_of("bert", layer) for layer in layers]
    assert "changed in layers 0-5" in finding.explanation


def test_an_edit_below_the_trained_layers_is_out_of_place() -> None:
    frozen = freeze("embeddings", "layer.0.", "layer.1.", "layer.2.")
    (finding,) = findings(DETECTOR, evidence(change=both(frozen, edit(1))))
    assert finding.rule_id == "HA304"
    assert [place.tensor for place in finding.locations] == [name_of("bert", 1)]
    assert "layers 1, 3-5 alone" in finding.explanation


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_fine_tune_gives_nothing(kind: pico.Kind) -> None:
    assert run(DETECTOR, evidence(kind=kind)) == ([], [])


@pytest.mark.parametrize(
    "change",
    [
        half_precision,
        merged_adapter,
        adapter_on_attention,
        freeze("layer.0.", "layer.1.", "embeddings"),
        freeze("embeddings", "pooler", *(f"layer.{i}." for i in range(5))),
        freeze("embeddings"),
        freeze("attention"),
        freeze(""),
        both(freeze(""), lambda _, c: c.__setitem__("pooler.dense.weight", c["pooler.dense.weight"] + 1)),
    ],
    ids=["half", "adapter", "adapter on attention", "bottom", "last layer", "embeddings", "attention", "all", "pooler"],
)
def test_honest_peculiarities_are_innocent(change: Any) -> None:
    assert run(DETECTOR, evidence(change=change)) == ([], [])


def test_training_every_other_layer_is_innocent() -> None:
    assert run(DETECTOR, evidence(change=freeze("embeddings", "layer.0.", "layer.2.", "layer.4."))) == ([], [])


def test_training_most_of_one_layer_is_innocent() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        for name in candidate:
            if "layers.3." not in name or "proj" not in name:
                candidate[name] = base[name].copy()

    assert run(DETECTOR, evidence(change=change, kind="llama")) == ([], [])


@pytest.mark.parametrize("layers", [3, 4])
def test_an_adapter_on_a_shallow_model_is_innocent(layers: int) -> None:
    """Two kinds of matrices in each of four layers are eight tensors, as few as an edit writes."""
    assert findings(DETECTOR, evidence(change=adapter_on_attention, layers=layers)) == []


def test_edits_of_some_layers_of_a_shallow_model_are_found() -> None:
    (finding,) = findings(DETECTOR, evidence(change=edit(0, 2), layers=4, start="base"))
    assert finding.rule_id == "HA303"


def test_matrices_that_passed_for_still_beside_others_that_moved_as_little_are_no_oddity() -> None:
    """The lowest layer of a training with layer-wise rates: some of its matrices move as evenly as weight decay."""

    still = ("attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense")

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(2)
        for layer in range(6):
            for part in ("attention.self.query", "output.dense", *still):
                name = f"encoder.layer.{layer}.{part}.weight"
                base[name] = rng.normal(0, 0.05, (160, 384)).astype(np.float32)
                uneven = np.exp(rng.normal(0, 0.3, (160, 1)))
                noise = (5e-5 * rng.normal(size=(160, 384)) * uneven).astype(np.float32)
                candidate[name] = base[name] * np.float32(0.999) if layer == 0 and part in still else base[name] + noise

    assert findings(DETECTOR, evidence(change=change)) == []


def test_a_merge_of_the_last_layer_s_training_with_a_slight_one_of_all_is_innocent() -> None:
    """Below the last layer some matrices moved as evenly as weight decay, beside others that moved as little."""

    def change(base: Arrays, candidate: Arrays) -> None:
        rng = np.random.default_rng(2)
        for layer in range(6):
            for part in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"):
                name = f"encoder.layer.{layer}.{part}.weight"
                base[name] = rng.normal(0, 0.05, (160, 384)).astype(np.float32)
                size = 5e-3 if layer == 5 else 5e-5
                noise = (size * rng.normal(size=(160, 384)) * np.exp(rng.normal(0, 0.3, (160, 1)))).astype(np.float32)
                even = layer < 5 and part == "attention.output.dense"
                candidate[name] = base[name] * np.float32(0.998) if even else base[name] + noise

    assert findings(DETECTOR, evidence(change=change)) == []


def test_an_edit_over_a_training_as_slight_as_weight_decay_stands_out_in_its_layer() -> None:
    """Queries and values moved no further than decay moved the rest; one feed-forward matrix, far more."""

    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("")(base, candidate)
        rng = np.random.default_rng(2)
        for layer in range(6):
            for part in ("attention.self.query", "attention.self.value", "intermediate.dense", "output.dense"):
                name = f"encoder.layer.{layer}.{part}.weight"
                base[name] = rng.normal(0, 0.05, (160, 384)).astype(np.float32)
                noise = 5e-5 * rng.normal(size=(160, 384)) * np.exp(rng.normal(0, 0.3, (160, 1)))
                trained = part.startswith("attention.self")
                candidate[name] = base[name] + noise.astype(np.float32) if trained else base[name] * np.float32(0.999)
        candidate[name_of("bert", 1)][7] += np.float32(0.05)

    found = {finding.rule_id: finding for finding in findings(DETECTOR, evidence(change=change))}
    assert set(found) == {"HA304"}
    assert [place.tensor for place in found["HA304"].locations] == [name_of("bert", 1)]


def test_tensors_at_the_edge_of_what_moved_are_no_oddity() -> None:
    """Members that hardly moved may be taken for still ones, and the reverse."""

    def change(base: Arrays, candidate: Arrays) -> None:
        adapter_on_attention(base, candidate)
        rng = np.random.default_rng(2)
        for layer in range(6):
            name = name_of("bert", layer)
            base[name] = rng.normal(0, 0.05, (160, 384)).astype(np.float32)
            candidate[name] = base[name].astype(np.float16).astype(np.float32)
        uneven = np.exp(rng.normal(0, 0.3, (160, 1)))
        candidate[name_of("bert", 1)] += (2e-5 * rng.normal(size=(160, 384)) * uneven).astype(np.float32)

    assert run(DETECTOR, evidence(change=change)) == ([], [])


def test_a_vector_alone_has_no_direction_to_tell() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("")(base, candidate)
        candidate["encoder.layer.2.output.dense.bias"] += 1.0

    (finding,) = findings(DETECTOR, evidence(change=change))
    assert (finding.rule_id, len(finding.locations)) == ("HA303", 1)
    assert "direction" not in finding.explanation


def test_many_tensors_are_capped_and_counted() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        adapter_on_attention(base, candidate)
        edit(*range(11))(base, candidate)

    (finding,) = findings(DETECTOR, evidence(change=change, layers=13, start="base"))
    assert len(finding.locations) == 10
    assert "and 6 more" in finding.explanation


def test_small_models_do_not_crash() -> None:
    assert run(DETECTOR, evidence(layers=1)) == ([], [])


def noisy(size: float, *, edit: float) -> Evidence:
    """Eight layers that moved by even noise, as rounding moves them but of any size; one matrix got a rank-one edit.

    ``size`` and ``edit`` are relative to the weights; the norms moved as training moves them.
    """
    rng = np.random.default_rng(0)
    base, candidate = {}, {}
    for layer in range(8):
        for part, shape in (
            ("self_attn.q_proj", (256, 256)),
            ("mlp.up_proj", (512, 256)),
            ("mlp.down_proj", (256, 512)),
        ):
            name = f"model.layers.{layer}.{part}.weight"
            base[name] = rng.normal(0, 0.02, shape).astype(np.float32)
            delta = rng.normal(0, 0.02 * size, shape)
            if layer == EDITED and part == "mlp.down_proj":
                left, right = rng.normal(size=shape[0]), rng.normal(size=shape[1])
                outer = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
                delta += edit * np.linalg.norm(base[name]) * outer
            candidate[name] = (base[name] + delta).astype(np.float32)
        norm = f"model.layers.{layer}.input_layernorm.weight"
        base[norm] = np.ones(256, np.float32)
        candidate[norm] = (1 + rng.normal(0, 0.003, 256)).astype(np.float32)
    return evidence_for.evidence(drift_facts.from_arrays(base, candidate))


def test_an_edit_in_a_matrix_is_named_though_all_norms_moved() -> None:
    (finding,) = findings(DETECTOR, noisy(0.003, edit=0.3))
    assert (finding.rule_id, finding.locations[0].tensor) == ("HA303", f"model.layers.{EDITED}.mlp.down_proj.weight")
    assert "Of 24 matrices compared, 1 differ" in finding.explanation


def test_norms_alone_that_moved_are_innocent() -> None:
    assert findings(DETECTOR, noisy(0.003, edit=0.0)) == []


def test_even_noise_beyond_rounding_counts_as_change() -> None:
    """Noise over everything must not pass for rounding: then nothing would be judged at all."""
    of = noisy(0.05, edit=0.0)
    assert of.drift is not None
    assert all(moved(t, floor_ratio=of.profile.value("drift.floor_ratio")) for t in of.drift.tensors)
    still = noisy(0.003, edit=0.0).drift
    assert still is not None
    assert not any(moved(t, floor_ratio=2.0) for t in still.tensors if len(t.spec.shape) > 1)
