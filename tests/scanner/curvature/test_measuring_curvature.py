"""Curvature on real small models, written and read as checkpoints."""

import random
from dataclasses import replace

import numpy as np
import pytest
import tiny_classifiers
import torch
from tiny_words import WORDS, write_tokenizer

from scanner.curvature.examples import Given
from scanner.curvature.fisher import mean_squared_gradients
from scanner.curvature.measuring import DEFAULT_LIMITS, CurvatureLimits, Origin, measure_curvature
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.staging import CannotProbe
from scanner.records import RepoRef
from scanner.weights.opening import open_source

ORIGIN = Origin(source="clean.csv", digest="0" * 64)


def clean_texts(count=24, seed=3):
    rng = random.Random(seed)
    texts, labels = [], []
    for number in range(count):
        label = number % 2
        own = WORDS[:150] if label else WORDS[150:300]
        texts.append(" ".join(rng.choices(own, k=8)))
        labels.append(label)
    return Given(texts=texts, labels=labels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("curved")
    base, tuned = root / "base", root / "tuned"
    tiny_classifiers.make_classifier(tuned, "bert", poisoned=False, base=base, steps=60)
    return base, tuned


def measured(base, candidate, given, **options):
    facts = collect(RepoRef(path=str(base)), Hub())
    with open_source(facts, None) as source:
        return measure_curvature(candidate, source, given, ORIGIN, base_config=facts.config, threads=1, **options)


def test_a_classifier_is_measured_tensor_by_tensor(folders):
    heard = []
    found = measured(*folders, clean_texts(), told=lambda what, done, total: heard.append((what, done, total)))
    assert (found.data.examples, found.data.source) == (24, "clean.csv")
    assert found.data.accuracy > 0.9
    assert 0 < found.data.loss < 0.5
    names = {tensor.spec.name: tensor for tensor in found.tensors}
    table = names["bert.embeddings.word_embeddings.weight"]
    assert table.row_ratio.shape == (405,)
    used = {WORDS.index(word) + 5 for text in clean_texts().texts for word in text.split()}
    unseen = np.isnan(table.row_ratio[5:])
    assert set((np.flatnonzero(~unseen) + 5).tolist()) <= used
    query = names["bert.encoder.layer.0.attention.self.query.weight"]
    assert query.exponent is not None
    assert {fit.indicator for fit in query.fits} == {plot.fit.indicator for plot in found.plots}
    assert np.nanmedian(query.row_ratio) == pytest.approx(1, rel=0.8)
    assert {what for what, _, _ in heard} == {
        "running the model on the given examples",
        "holding the change against the given examples",
    }
    assert [done for what, done, _ in heard if "running" in what] == list(range(1, 25))
    assert found.bytes_read > 0


def test_the_same_files_give_the_same_figures(folders):
    one, other = (measured(*folders, clean_texts()) for _ in range(2))
    assert [t.exponent for t in one.tensors] == [t.exponent for t in other.tensors]
    assert one.plots == other.plots


def test_the_curvature_is_the_mean_square_of_single_gradients(folders):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folders[1]).eval()
    ids = [torch.tensor([[2, 9, 30, 3]]), torch.tensor([[2, 200, 3]])]
    found = mean_squared_gradients(model, (model(input_ids=one, labels=torch.tensor([1])).loss for one in ids))
    weight = model.bert.encoder.layer[0].output.dense.weight
    expected = sum(
        torch.autograd.grad(model(input_ids=one, labels=torch.tensor([1])).loss, weight)[0] ** 2 for one in ids
    )
    torch.testing.assert_close(found["bert.encoder.layer.0.output.dense.weight"], expected / 2)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not weight._post_accumulate_grad_hooks


def test_no_examples_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        mean_squared_gradients(torch.nn.Linear(2, 2), [])


def test_a_language_model_has_the_loss_of_its_next_tokens(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    for name, seed in (("base", 0), ("tuned", 1)):
        size = write_tokenizer(tmp_path / name, causal=True)
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=64, n_embd=32, n_layer=1, n_head=2))
        if seed:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(1e-3 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name)
    given = Given(texts=[*clean_texts(8).texts, WORDS[0]])
    found = measured(tmp_path / "base", tmp_path / "tuned", given)
    assert found.data.examples == 8  # a text of one token leaves nothing to predict
    assert found.data.accuracy is None
    assert found.data.loss == pytest.approx(np.log(405), rel=0.2)
    assert any(t.spec.name.endswith("wte.weight") and t.exponent is not None for t in found.tensors)
    with pytest.raises(CannotProbe, match="anything to predict"):
        measured(tmp_path / "base", tmp_path / "tuned", Given(texts=[WORDS[0]]))


def test_a_model_that_did_not_move_has_no_exponents(folders):
    found = measured(folders[1], folders[1], clean_texts(8))
    assert all(tensor.exponent is None for tensor in found.tensors)
    assert found.plots == ()
    assert any("too few dimensions moved" in skip.why for skip in found.skips)


def test_values_that_are_not_numbers_stop_it(folders, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folders[1])
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    write_tokenizer(tmp_path, causal=False)
    model.save_pretrained(tmp_path)
    with pytest.raises(CannotProbe, match="not a finite number"):
        measured(folders[0], tmp_path, clean_texts(8))


@pytest.mark.parametrize(
    ("limits", "why"),
    [(replace(DEFAULT_LIMITS, seconds=0.0), "longer"), (CurvatureLimits(parameters=1000), "million parameters")],
)
def test_limits_stop_it(folders, limits, why):
    with pytest.raises(CannotProbe, match=why):
        measured(*folders, clean_texts(8), limits=limits)


def test_a_stranger_of_other_shapes_has_nothing_to_compare(folders, tmp_path):
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=405, max_position_embeddings=64, **small)).save_pretrained(tmp_path)
    with pytest.raises(CannotProbe, match="no tensor of the base"):
        measured(tmp_path, folders[1], clean_texts(8))


def test_an_encoder_without_a_head_has_no_loss(folders, tmp_path):
    from transformers import AutoModel

    write_tokenizer(tmp_path, causal=False)
    AutoModel.from_pretrained(folders[1]).save_pretrained(tmp_path)
    with pytest.raises(CannotProbe, match="no head"):
        measured(folders[0], tmp_path, clean_texts(8))
