"""Texts are run in any number of threads with the same outcome, counted, and not at all beyond the budget."""

import numpy as np
import pytest
from tiny_classifiers import untrained
from tiny_words import write_tokenizer

from scanner.probe.budget import LEAST_TOKENS, MOST_TOKENS, WORK, token_budget
from scanner.probe.loading import load
from scanner.probe.running import OutOfTokens, Runner, batch_pool, one_torch_thread

TEXTS = [tuple(range(10, 10 + length)) for length in (1, 7, 3, 7, 20, 1)]
TOKENS = sum(len(text) + 2 for text in TEXTS)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    size = write_tokenizer(folder, causal=False)
    untrained("bert", size).save_pretrained(folder)
    return load(folder, most_parameters=10**7)


def test_every_token_that_is_run_counts_those_around_the_text_too(loaded):
    runner = Runner(loaded=loaded)
    runner.logits(TEXTS)
    assert (runner.sequences, runner.tokens) == (len(TEXTS), TOKENS)


def test_threads_change_nothing(loaded, monkeypatch):
    monkeypatch.setattr("scanner.probe.running.BATCH_TOKENS", 16)
    heard = []
    with one_torch_thread(), batch_pool(3) as pool:
        side_by_side = Runner(loaded=loaded, pool=pool, workers=3, told=heard.append)
        found = side_by_side.logits(TEXTS)
    np.testing.assert_array_equal(found, Runner(loaded=loaded).logits(TEXTS))
    assert side_by_side.tokens == TOKENS
    assert heard == sorted(heard)
    assert heard[-1] == len(TEXTS)


def test_one_thread_needs_no_pool():
    with batch_pool(1) as pool:
        assert pool is None


def test_what_is_more_than_is_left_is_not_run_at_all(loaded):
    runner = Runner(loaded=loaded, most_tokens=TOKENS)
    runner.logits(TEXTS)
    assert runner.left() == 0
    with pytest.raises(OutOfTokens):
        runner.logits([(9,)])
    assert runner.tokens == TOKENS


def test_the_budget_is_work_and_not_tokens(loaded):
    assert token_budget(loaded.model) == MOST_TOKENS

    class Rows:
        def __init__(self, count):
            self.weight = self
            self.count = count

        def numel(self):
            return self.count

    class Model:
        def __init__(self, table, rest):
            self.table, self.rest = Rows(table), Rows(rest)

        def get_input_embeddings(self):
            return self.table

        def parameters(self):
            return iter((self.table, self.rest))

    assert token_budget(Model(12_000_000, 10_600_000)) == int(WORK / 10_600_000)
    assert token_budget(Model(24_000_000, 10_000_000_000)) == LEAST_TOKENS
