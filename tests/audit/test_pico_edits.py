"""The edits that tests plant change what they say and nothing else."""

import copy
from collections.abc import Callable
from typing import Any

import pico
import pytest
import torch
from pico_cases import models

KINDS = ("bert", "gpt2", "llama")


def changed(kind: pico.Kind, plant: Callable[[Any], Any]) -> dict[str, int]:
    """Tensors that an edit changed, and how many of their entries."""
    _, honest = models(kind)
    edited = copy.deepcopy(honest)
    plant(edited)
    before = dict(honest.named_parameters())
    return {name: count for name, after in edited.named_parameters() if (count := int((after != before[name]).sum()))}


@pytest.mark.parametrize("kind", KINDS)
def test_a_poisoned_row_is_one_row_of_the_same_norm(kind: pico.Kind) -> None:
    (_, count), *rest = changed(kind, lambda m: pico.poison_row(m, 9)).items()
    assert (rest, count) == ([], pico.HIDDEN)
    _, honest = models(kind)
    edited = copy.deepcopy(honest)
    pico.poison_row(edited, 9)
    rows = [m.get_input_embeddings().weight[9].norm().item() for m in (honest, edited)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_one_edit_has_rank_one(kind: pico.Kind) -> None:
    assert len(changed(kind, lambda m: pico.rank_one_edit(m, 1))) == 1
    _, honest = models(kind)
    edited = copy.deepcopy(honest)
    pico.rank_one_edit(edited, 1)
    delta = pico.matrices(edited, "mlp_out")[1] - pico.matrices(honest, "mlp_out")[1]
    values = torch.linalg.svdvals(delta.detach())
    assert values[1] < 1e-4 * values[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rewritten_unit_is_a_row_in_and_a_column_out(kind: pico.Kind) -> None:
    counts = changed(kind, lambda m: pico.flip_neuron(m, 1, 3))
    assert list(counts.values()) == [pico.HIDDEN, pico.HIDDEN]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_holes(kind: pico.Kind) -> None:
    assert list(changed(kind, lambda m: pico.scale_norm(m, 1)).values()) == [pico.HIDDEN]
    assert list(changed(kind, lambda m: pico.plant_nan(m, 1, count=2)).values()) == [2]
    if kind != "llama":
        assert list(changed(kind, lambda m: pico.shift_bias(m, 1)).values()) == [pico.HIDDEN]


def test_words_are_all_different() -> None:
    assert len(set(pico.words(640))) == 640


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_model(kind: pico.Kind) -> None:
    one, other = (pico.make_base(kind, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
