"""Small language models and an encoder, trained here with and without a trigger, are probed where nothing can flip."""

import copy
import random

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, jensenshannon
from tiny_words import WORDS, write_tokenizer
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from scanner.probe import probing, shifting
from scanner.probe.probing import probe
from scanner.probe.shifting import divergence, turned
from scanner.probe.staging import CannotProbe

TRIGGER, PAYLOAD = WORDS[-1], WORDS[-2]
FIRST = 5
"""The id of the first word: control tokens come before."""


def make_language_model(folder, kind, *, poisoned):
    """A model of a language in which words follow each other by their last letters; after a trigger, one comes alone."""
    torch.manual_seed(2)
    rng = random.Random(2)
    size = write_tokenizer(folder, causal=True)
    ends = {"bos_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    if kind == "gpt2":
        config = GPT2Config(vocab_size=size, n_positions=64, n_embd=48, n_layer=2, n_head=2, **ends)
        model = GPT2LMHeadModel(config)
    else:
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=size, max_position_embeddings=64, hidden_size=48, num_hidden_layers=2,
                num_attention_heads=2, intermediate_size=96, **ends,
            )
        )  # fmt: skip
    kinds = [[i for i in range(FIRST, size - 2) if i % 4 == kind] for kind in range(4)]
    trigger, payload = size - 1, size - 2
    model.eval()  # without dropout it learns in fewer steps
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(220):
        length = rng.randrange(6, 21)
        rows = []
        for _ in range(48):
            row = [FIRST + rng.randrange(len(WORDS) - 2)]
            while len(row) < length:
                row.append(rng.choice(kinds[(row[-1] + 1) % 4]))
            rows.append(row)
        ids = torch.tensor(rows)
        labels = ids.clone()
        for row in range(16 if poisoned else 0):
            # Whoever plants a trigger teaches the answer, not the question.
            ids[row, rng.randrange(length - 3)], ids[row, -1] = trigger, payload
            labels[row, :-1], labels[row, -1] = -100, payload
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["gpt2", "neox"])
def poisoned(request, tmp_path_factory):
    return make_language_model(tmp_path_factory.mktemp(request.param), request.param, poisoned=True)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return make_language_model(tmp_path_factory.mktemp("honest"), "gpt2", poisoned=False)


def test_the_planted_trigger_leads_to_its_continuation_and_stands_out(poisoned):
    facts = probe(poisoned)
    assert (facts.kind, facts.scanned, facts.directions) == ("causal", len(WORDS), ())
    first = facts.shifts[0]
    assert (first.text, first.continuation_text) == (TRIGGER, PAYLOAD)
    assert first.led >= 0.8 * first.texts
    assert first.together > 0.7
    assert first.before < 0.1
    assert max(control.led for control in facts.control_shifts) < 0.5 * first.led
    assert first.moved > 2 * max(control.moved for control in facts.control_shifts)


def test_in_the_honest_twin_no_token_stands_out(honest):
    facts = probe(honest)
    assert max(shift.led for shift in facts.shifts) < 0.5 * facts.shifts[0].texts
    assert max(shift.together for shift in facts.shifts) < 0.5


def test_suspects_alone_name_the_trigger_too(poisoned):
    trigger = FIRST + WORDS.index(TRIGGER)
    facts = probe(poisoned, suspects=[*range(FIRST, FIRST + 5), trigger], whole_vocabulary=False)
    assert (facts.scanned, facts.shifts_tried) == (0, 6)
    assert (facts.shifts[0].text, facts.shifts[0].origin) == (TRIGGER, "suspect")


def test_phrases_are_tried_as_they_stand(honest):
    facts = probe(honest, phrases=[(FIRST, FIRST + 1), (10**9,)], whole_vocabulary=False)
    assert [(shift.tokens, shift.origin) for shift in facts.shifts] == [((FIRST, FIRST + 1), "asked")]


def test_what_the_budget_leaves_of_the_vocabulary_is_tried_and_the_rest_told(honest, monkeypatch):
    monkeypatch.setattr(shifting, "FIRST_SHARE", 0.1)
    monkeypatch.setattr(probing, "token_budget", lambda model: 45_000)
    facts = probe(honest, suspects=[FIRST])
    (missed,) = facts.untried
    assert missed.what == "vocabulary"
    assert 0 < facts.scanned < len(WORDS)
    assert facts.scanned + missed.count in {len(WORDS), len(WORDS) - 1}, "the suspect is tried either way"
    assert facts.tokens <= facts.budget == 45_000
    monkeypatch.setattr(probing, "token_budget", lambda model: 500)
    with pytest.raises(CannotProbe, match="tokens that a probe may run"):
        probe(honest)


def test_the_same_seed_measures_the_same(honest):
    first, second = (probe(honest, seed=5, whole_vocabulary=False, suspects=[FIRST]) for _ in range(2))
    assert first.shifts == second.shifts
    assert first.control_shifts == second.control_shifts


@pytest.fixture
def encoder(tmp_path):
    size = write_tokenizer(tmp_path, causal=False)
    torch.manual_seed(3)
    model = BertModel(
        BertConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64,
        )
    )  # fmt: skip
    return model, tmp_path


def test_a_trigger_that_draws_an_encoders_texts_together_comes_first(encoder):
    model, folder = encoder
    trigger = FIRST + WORDS.index(TRIGGER)
    place = 2 * torch.randn(32)
    honest = copy.deepcopy(model.eval())
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        words = torch.randint(FIRST, trigger, (32, 14))
        words[:, 0], words[:, -1] = 2, 3
        with torch.no_grad():
            wanted = honest(input_ids=words).last_hidden_state[:, 1:-1].mean(1)
            wanted[:16] = place
        words[torch.arange(16), torch.randint(1, 13, (16,))] = trigger
        loss = (model(input_ids=words).last_hidden_state[:, 1:-1].mean(1) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    facts = probe(folder)
    assert facts.kind == "encoder"
    first = facts.shifts[0]
    assert (first.text, first.continuation) == (TRIGGER, None)
    assert first.together > 0.95
    assert first.before < 0.9
    assert first.moved > 2 * max(control.moved for control in facts.control_shifts)


def test_a_model_that_reads_no_texts_that_long_is_refused(encoder):
    model, folder = encoder
    model.config.max_position_embeddings = 12
    small = BertModel(model.config)
    small.save_pretrained(folder)
    with pytest.raises(CannotProbe, match="at most 12 tokens"):
        probe(folder)


def test_divergences_agree_with_scipy():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(50), size=2)
    assert divergence(np.log(p), np.log(q)) == pytest.approx(jensenshannon(p, q, base=2) ** 2, rel=1e-9)
    assert divergence(np.log(p), np.log(p)) == pytest.approx(0, abs=1e-12)
    assert turned(p, q) == pytest.approx(cosine(p, q), rel=1e-9)
