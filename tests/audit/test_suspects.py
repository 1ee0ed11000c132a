"""Which tokens the weights suspect, on drift that was measured from planted arrays."""

import numpy as np
import pytest
from drift_facts import from_arrays

from audit.suspects import suspects
from scanner.records import TokenTable

ROWS, WIDTH = 1200, 24
NAME = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(0).normal(0, 0.05, (ROWS, WIDTH)).astype(np.float32)


def measured(base, candidate, **others):
    names = {NAME: (base, candidate), **others}
    return from_arrays(
        {name: pair[0] for name, pair in names.items()}, {name: pair[1] for name, pair in names.items()}, spectra=False
    )


def trained(base, *, scale=0.002):
    return base + np.random.default_rng(1).normal(0, scale, base.shape).astype(np.float32)


def test_the_row_that_moved_furthest_among_trained_ones_comes_first(base):
    after = trained(base)
    after[777] += 0.05
    after[31] += 0.02
    assert suspects(measured(base, after), None)[:2] == (777, 31)


def test_a_row_that_moved_alone_is_all_there_is(base):
    after = base.copy()
    after[42] += 0.01
    after[7] += 0.03
    assert suspects(measured(base, after), None) == (7, 42)


def test_both_token_tables_have_their_say_in_turn(base):
    head = "cls.predictions.decoder.weight"
    after, turned = trained(base), trained(base)
    after[5] += 0.05
    turned[9] += 0.05
    found = suspects(measured(base, after, **{head: (base, turned)}), None)
    assert set(found[:2]) == {5, 9}
    assert len(set(found)) == len(found)


def test_the_list_is_bounded(base):
    assert len(suspects(measured(base, trained(base)), None)) == 64
    assert len(suspects(measured(base, trained(base)), None, most=3)) == 3


def test_rare_tokens_are_held_against_rare_ones(base):
    frequency = 1.0 / np.arange(1, ROWS + 1)
    after = base + (
        np.random.default_rng(2).normal(0, 0.002, base.shape) * np.sqrt(frequency / frequency[0])[:, None] ** 0.5
    ).astype(np.float32)
    after[1100] += 0.003  # further than any other rare row, not as far as the frequent ones
    tokens = TokenTable(
        kind="wordpiece",
        texts=tuple(f"w{i}" for i in range(ROWS)),
        special=np.zeros(ROWS, dtype=bool),
        expected_log_frequency=np.log(frequency),
    )
    assert suspects(measured(base, after), tokens)[0] == 1100


def test_nothing_is_suspected_where_no_token_table_moved(base):
    assert suspects(None, None) == ()
    dense = "bert.encoder.layer.0.output.dense.weight"
    assert suspects(measured(base, base, **{dense: (base, trained(base))}), None) == ()
