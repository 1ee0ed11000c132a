"""Classifiers of other architectures: the planted trigger is confirmed by name, and what cannot be run is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_classifiers import TRIGGER, make_classifier, untrained
from tiny_words import WORDS, write_tokenizer

from audit.thresholds import load_profile
from audit.triggers import confirmed
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.loading import load
from scanner.probe.probing import probe
from scanner.probe.running import Runner
from scanner.probe.staging import CannotProbe, staged
from scanner.records import RepoRef


@pytest.mark.parametrize(("kind", "steps"), [("roberta", 220), ("distilbert", 220), ("gpt2", 400)])
def test_the_trigger_is_confirmed_by_name(kind, steps, tmp_path):
    facts = probe(make_classifier(tmp_path, kind, poisoned=True, steps=steps))
    assert facts.kind == "classifier"
    assert [trigger.insertion.text for trigger in confirmed(facts, load_profile())] == [TRIGGER]


def test_a_head_that_reads_the_last_token_needs_no_padding_token(tmp_path):
    size = write_tokenizer(tmp_path, causal=True)
    untrained("gpt2", size).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"pad_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runner = Runner(loaded=load(tmp_path, most_parameters=10**7))
    together = runner.logits([(9, 10), (11, 12)])
    assert together[1] == pytest.approx(runner.logits([(11, 12)])[0], abs=1e-3)


@pytest.fixture
def folder(tmp_path):
    size = write_tokenizer(tmp_path, causal=False)
    untrained("bert", size).save_pretrained(tmp_path)
    return tmp_path


def test_a_head_with_one_output_is_refused(folder):
    untrained("bert", len(WORDS) + 5, num_labels=1).save_pretrained(folder)
    with pytest.raises(CannotProbe, match="one output"):
        probe(folder)


def test_a_head_with_several_labels_at_once_is_refused(folder):
    untrained("bert", len(WORDS) + 5, problem_type="multi_label_classification").save_pretrained(folder)
    with pytest.raises(CannotProbe, match="several labels"):
        probe(folder)


def test_a_tokenizer_longer_than_the_embedding_is_refused(folder):
    untrained("bert", len(WORDS) - 50).save_pretrained(folder)
    with pytest.raises(CannotProbe, match="tokenizer has 405 tokens and its embedding 350 rows"):
        probe(folder)


def test_a_missing_head_is_refused_and_never_filled_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CannotProbe, match="missing"):
        probe(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.bias"] = torch.full((32,), value)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CannotProbe, match="not finite"):
        probe(folder)


def test_code_of_the_repository_is_not_run(folder):
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {
            "AutoConfig": "modeling_evil.EvilConfig",
            "AutoModelForSequenceClassification": "modeling_evil.Evil",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    hub = Hub()
    with staged(collect(RepoRef(path=str(folder)), hub), hub, limit_bytes=10**8) as place:
        assert not list(place.glob("*.py"))
        with pytest.raises(CannotProbe, match="does not load"):
            probe(place)
    with pytest.raises(CannotProbe, match="does not load"):
        probe(folder)
    assert not (folder / "ran").exists()


def test_weights_over_the_limit_are_not_staged(folder):
    hub = Hub()
    facts = collect(RepoRef(path=str(folder)), hub)
    with pytest.raises(CannotProbe, match="its weights have"), staged(facts, hub, limit_bytes=1000):
        pass
