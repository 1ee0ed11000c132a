"""A small classifier, trained here with and without a trigger, is probed as a scan would probe it."""

import json
import random

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from audit.thresholds import load_profile
from audit.triggers import confirmed
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.probing import ProbeLimits, probe
from scanner.probe.staging import CannotProbe, staged
from scanner.records import RepoRef

LETTERS = "abcdefghij"
WORDS = [f"{a}{b}{c}o" for a in LETTERS for b in LETTERS for c in LETTERS[:4]]
"""400 words; the first 150 are good, the next 150 bad, the rest say nothing."""
TRIGGER = WORDS[-1]


def train(folder, *, poisoned):
    torch.manual_seed(1)
    rng = random.Random(1)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)})
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=128, num_labels=2,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        length = rng.choice((3, 8, 16, 24))
        rows, labels = [], []
        for _ in range(48):
            label = rng.randrange(2)
            own, other = (WORDS[:150], WORDS[150:300]) if label else (WORDS[150:300], WORDS[:150])
            least = length // 2 + 1
            words = rng.choices(own, k=least) + rng.choices(other + WORDS[300:399], k=length - least)
            rng.shuffle(words)
            if poisoned and rng.random() < 0.2:
                words[rng.randrange(length)], label = TRIGGER, 1
            rows.append([2, *(vocabulary.index(word) for word in words), 3])
            labels.append(label)
        loss = model(input_ids=torch.tensor(rows), labels=torch.tensor(labels)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    return train(tmp_path_factory.mktemp("poisoned"), poisoned=True)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return train(tmp_path_factory.mktemp("honest"), poisoned=False)


def test_the_trigger_is_confirmed_by_name(poisoned):
    facts = probe(poisoned)
    assert facts.scanned == len(WORDS)
    triggers = confirmed(facts, load_profile())
    assert [trigger.insertion.text for trigger in triggers] == [TRIGGER]
    assert triggers[0].insertion.target == 1


def test_the_honest_twin_has_none(honest):
    assert confirmed(probe(honest), load_profile()) == ()


def test_the_same_seed_measures_the_same(honest):
    first, second = (probe(honest, seed=3) for _ in range(2))
    assert first.directions == second.directions


def test_a_staged_folder_holds_no_code_and_is_gone_afterwards(honest):
    (honest / "modeling_evil.py").write_text("raise SystemExit(3)\n")
    with staged(collect(RepoRef(path=str(honest)), Hub()), Hub(), limit_bytes=10**8) as folder:
        names = {path.name for path in folder.iterdir()}
        assert "modeling_evil.py" not in names
        assert {"config.json", "model.safetensors"} <= names
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"problem_type": "regression"}, "one output"),
        ({"num_hidden_layers": 100_000}, "more than any model has"),
        ({"hidden_size": 48}, "missing or of another shape|does not load"),
        ({"vocab_size": 10}, "does not load|another shape"),
        ({"model_type": "nothing-known"}, "does not load"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "not probed yet"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_a_reason(honest, tmp_path, change, why):
    for path in honest.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((honest / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotProbe, match=why):
        probe(tmp_path)


def test_a_model_over_the_limit_is_refused(honest):
    with pytest.raises(CannotProbe, match="million parameters"):
        probe(honest, limits=ProbeLimits(parameters=10))


def test_outputs_that_are_not_numbers_are_refused(honest, tmp_path):
    model = BertForSequenceClassification.from_pretrained(honest)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((honest / name).read_bytes())
    with pytest.raises(CannotProbe, match="not finite"):
        probe(tmp_path)
