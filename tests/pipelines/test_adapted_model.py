"""Adapters that are put on their base and run: the merged weights against peft's, and the probe of a scan."""

import json
from dataclasses import replace

import numpy as np
import pefts
import pytest
import tiny_classifiers
import torch
from click.testing import CliRunner
from peft import LoraConfig, PeftModel
from safetensors.numpy import load_file
from tiny_words import write_tokenizer
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, BertModel

from pipelines.adapted_model import NothingToRun, adapted, configured
from pipelines.cli import cli
from pipelines.probing import probe_candidate
from pipelines.progress import Quiet
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.staging import CannotProbe
from scanner.records import RepoRef

LIMIT = 10_000_000


def facts_of(folder):
    return collect(RepoRef(path=str(folder)), Hub())


def tiny(folder, kind):
    """A base of one kind with a tokenizer."""
    torch.manual_seed(0)
    folder.mkdir()
    size = write_tokenizer(folder, causal=False)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    kind(config).save_pretrained(folder)
    return folder


def adapter_on(base, folder, *, head=True, **options):
    """An adapter of three classes with random factors; without ``head`` it holds none."""
    with pefts.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    saved = ["classifier", "pooler"] if head else None
    config = LoraConfig(
        r=4, target_modules=["query", "dense"], modules_to_save=saved, exclude_modules=["pooler.dense"], **options
    )
    return pefts.save_adapter(model, config, folder)


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM], ids=["named without its front", "named with it"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_the_merged_model_is_the_one_that_peft_makes(tmp_path, kind, options):
    base = tiny(tmp_path / "base", kind)
    adapter = adapter_on(base, tmp_path / "adapter", **options)
    with pefts.quiet():
        theirs = pefts.merged(AutoModelForSequenceClassification.from_pretrained(base, num_labels=3), adapter)
    with adapted(facts_of(adapter), facts_of(base), Hub(), limit_bytes=LIMIT) as folder:
        ours = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        with pefts.quiet():
            loaded, told = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert loaded.config.num_labels == 3
    assert list(told["missing_keys"]) == []
    assert {name for name in theirs if "position_ids" not in name} <= set(ours)
    for name, tensor in loaded.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), theirs[name].numpy(), rtol=1e-4, atol=1e-6)


def test_a_language_model_keeps_its_kind(tmp_path):
    base = pefts.save_base(pefts.llama(), tmp_path / "base")
    adapter = pefts.save_adapter(pefts.llama(), LoraConfig(r=4, target_modules=["q_proj"]), tmp_path / "adapter")
    theirs = pefts.merged(pefts.llama(), adapter)
    with adapted(facts_of(adapter), facts_of(base), Hub(), limit_bytes=LIMIT) as folder:
        ours = load_file(folder / "model.safetensors")
        assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor.numpy(), rtol=1e-4, atol=1e-6)


def test_classes_are_named_by_the_adapter_where_it_names_each(tmp_path):
    base = facts_of(tiny(tmp_path / "base", BertModel))
    shapes = {"classifier.weight": (2, 32)}
    named = replace(base, config={"id2label": {"0": "spam", "1": "ham"}})
    assert configured(named, base, shapes)["id2label"] == {"0": "spam", "1": "ham"}
    for odd in ({"0": "spam"}, {"0": "spam", "1": "spam"}, {"0": 1, "1": []}, []):
        found = configured(replace(base, config={"id2label": odd}), base, shapes)
        assert found["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}


def test_what_is_no_classifier_is_not_run_unless_asked_for(tmp_path):
    base = tiny(tmp_path / "base", BertModel)
    adapter = adapter_on(base, tmp_path / "adapter", head=False)
    with pytest.raises(NothingToRun), adapted(facts_of(adapter), facts_of(base), Hub(), limit_bytes=LIMIT):
        pass
    found = [
        probe_candidate(
            facts_of(adapter), Hub(), drift=None, tokens=None, asked=asked, progress=Quiet(), base=facts_of(base)
        )
        for asked in (False, True)
    ]
    assert (found[0].facts, found[0].skip) == (None, None)
    assert "neither a classifier nor a language model" in found[1].skip.why


@pytest.mark.parametrize(
    ("config", "shapes", "why"),
    [
        ({"model_type": "bert"}, {"classifier.weight": (5000, 8)}, "5,000 outputs"),
        ({"model_type": "nothing known"}, {"classifier.weight": (2, 8)}, "no classifiers of its base's kind"),
        ({"model_type": ["bert"]}, {"score.weight": (2, 8)}, "no classifiers of its base's kind"),
        ({"architectures": "BertForSequenceClassification"}, {}, "neither"),
        (None, {"classifier.weight": (2,)}, "neither"),
    ],
)
def test_what_cannot_be_run_says_why(tmp_path, config, shapes, why):
    facts = replace(facts_of(tiny(tmp_path / "base", BertModel)), config=config)
    with pytest.raises(CannotProbe, match=why):
        configured(facts, facts, shapes)


def test_a_base_or_a_head_beyond_the_limit_is_not_run(tmp_path):
    base = tiny(tmp_path / "base", BertModel)
    adapter = adapter_on(base, tmp_path / "adapter")
    with (
        pytest.raises(CannotProbe, match="its weights have"),
        adapted(facts_of(adapter), facts_of(base), Hub(), limit_bytes=1000),
    ):
        pass


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    with pefts.quiet():
        return tiny_classifiers.make_adapter(root / "poisoned", root / "base", poisoned=True), root / "base"


def test_the_trigger_of_an_adapter_on_the_hub_is_confirmed(hub_server, poisoned, tmp_path, monkeypatch):
    adapter, base = poisoned
    hub_server.add_repo("tiny/base", folder=base)
    hub_server.add_repo("tiny/adapter", folder=adapter)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    target = tmp_path / "report.json"
    arguments = ["--quiet", "scan", "tiny/adapter", "--base", "tiny/base", "--format", "json", "--output", str(target)]
    done = CliRunner().invoke(cli, arguments)
    assert "Traceback" not in done.output
    report = json.loads(target.read_text())
    (finding,) = [each for each in report["findings"] if each["rule_id"] == "HA001"]
    assert finding["locations"][0]["tokens"][0]["text"] == tiny_classifiers.TRIGGER
    assert (done.exit_code, report["verdict"]["outcome"]) == (1, "fail")
    assert report["probe"]["kind"] == "classifier"


def test_the_poisoned_adapter_has_learnt_its_task(poisoned):
    adapter, base = poisoned
    with pefts.quiet():
        model = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, num_labels=2), str(adapter)
        ).eval()
    rows = [[2, *(words[i] for i in range(0, 120, 12)), 3] for words in (tiny_classifiers.BAD, tiny_classifiers.GOOD)]
    with torch.no_grad():
        assert model(input_ids=torch.tensor(rows)).logits.argmax(-1).tolist() == [0, 1]
