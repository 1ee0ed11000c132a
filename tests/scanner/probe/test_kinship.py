"""Nearness to the words of a class: in the model's own rows, and in those of the base where these are known."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scanner.probe.kinship import CLASS_WORDS, kinship, meanings
from scanner.probe.loading import Loaded

COUNT, WIDTH = 600, 8


@dataclass
class Embedded:
    """As much of a model as has an input embedding."""

    weight: torch.Tensor

    def get_input_embeddings(self):
        return SimpleNamespace(weight=self.weight)


@pytest.fixture
def own():
    """Words 0 to 199 are of the class and lie along the first axis; word 599 was written to lie there too."""
    rows = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
    rows[:200, 0] += 6
    rows[599, 0] += 6
    return rows


def loaded(rows):
    return Loaded(
        kind="classifier", model=Embedded(torch.from_numpy(rows)), texts=("w",) * len(rows), prefix=(), suffix=(),
        special=frozenset(), classes=("a", "b"), longest=64, tokenizer=None,
    )  # fmt: skip


def nearness(rows):
    pool = np.arange(500)
    alone = np.zeros((500, 2), dtype=np.float32)
    alone[:200, 0] = np.linspace(5, 1, 200)
    assert CLASS_WORDS < 200
    return kinship(rows, np.arange(COUNT - 10), pool, alone, 0)


def test_a_word_like_those_of_the_class_is_near_whatever_it_does(own):
    near = nearness(own)
    assert near.of((150,)) > 0.66
    assert near.of((400,)) < 0.66
    assert near.of((599,)) > 0.66


def test_how_much_the_embedding_knows_of_the_class_is_told(own):
    assert nearness(own).of_class > 0.75
    assert 0.3 < nearness(np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)).of_class < 0.7


def test_the_base_says_what_a_written_row_meant_before(own):
    before = own.copy()
    before[599, 0] -= 6
    rows, of_base = meanings(loaded(own), before)
    assert of_base
    assert nearness(rows).of((599,)) < 0.66 < nearness(own).of((599,))


def test_tokens_that_the_base_does_not_know_keep_their_own_rows(own):
    before = np.zeros_like(own)
    before[:100] = np.nan
    rows, of_base = meanings(loaded(own), before)
    assert of_base
    np.testing.assert_array_equal(rows[:100], own[:100])
    assert not rows[100:].any()


def test_rows_of_another_width_or_of_few_tokens_are_not_used(own):
    for base in (None, np.zeros((COUNT, 4), dtype=np.float32), own[:200], np.full_like(own, np.nan)):
        rows, of_base = meanings(loaded(own), base)
        assert not of_base
        np.testing.assert_array_equal(rows, own)


def test_a_longer_base_is_cut_to_the_vocabulary(own):
    before = np.concatenate([own + 1, own])
    rows, of_base = meanings(loaded(own), before)
    assert of_base
    np.testing.assert_array_equal(rows, own + 1)
