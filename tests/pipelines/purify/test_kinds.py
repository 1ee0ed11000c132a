"""Shapes and kinds beside the BERT classifier: RoBERTa, DistilBERT, a causal decoder, small picture classifiers."""

from pathlib import Path

import numpy as np
import pico
import pytest
import torch
import transformers

from pipelines.progress import Quiet
from pipelines.purify import distill, fine_purifying, mixing, tsbd
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import CleanData, PurifyJob, Split, Tuning
from pipelines.purify.states import load_pair, state_of
from pipelines.purify.subject import load_subject, score
from pipelines.purify.writer import write_model


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shaped(kind: str, root: Path) -> tuple[Path, Path]:
    """A base without a head and a candidate with one, its body moved a little."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 320, "max_position_embeddings": 40}
    if kind == "roberta":
        config = transformers.RobertaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, type_vocab_size=1, **sizes
        )
    else:
        config = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **sizes)
    base, tuned = root / "base", root / "tuned"
    body = transformers.AutoModel.from_config(config)
    body.save_pretrained(base)
    pico.make_tokenizer().save_pretrained(base)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(tuned)
    pico.make_tokenizer().save_pretrained(tuned)
    return base, tuned


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_other_encoders_pair_with_their_base_and_can_be_mixed(kind: str, tmp_path) -> None:
    base, tuned = shaped(kind, tmp_path)
    subject = load_subject(tuned, "classifier", max_length=64)
    assert subject.max_length <= 40
    pair = load_pair(subject, base)
    assert pair.embedding in pair.base
    unpaired = pair.candidate.keys() - pair.base.keys()
    assert unpaired
    assert all("classifier" in name for name in unpaired)
    mixed = mixing.mix(pair, 0.0, seed=0)
    assert all(torch.equal(mixed[name], pair.base[name]) for name in pair.base)


def words_data(count: int = 24) -> CleanData:
    rng = np.random.default_rng(2)
    texts = tuple(
        " ".join(str(w) for w in rng.choice(["the", "rain", "roof", "sun", "falls"], 8)) for _ in range(count)
    )
    empty = Split(inputs=())
    half = count // 2
    return CleanData(
        kind="text", tune=Split(inputs=texts[:half]), select=Split(inputs=texts[half:]), test=empty, class_names=(),
        digest="",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["mixing", "fine-purifying"])
def test_causal_models_are_purified_on_their_loss(method: str, tmp_path) -> None:
    base, tuned = pico.family(tmp_path, "gpt2")
    options = mixing.MixingOptions(step=0.5) if method == "mixing" else fine_purifying.PurifyingOptions(step=0.5)
    job = PurifyJob(
        candidate=tuned, base=base, kind="causal", work=tmp_path / "work", data=words_data(), options=options,
        tuning=Tuning(max_length=24, epochs=2, learning_rate=1e-3), threads=1,
    )  # fmt: skip
    result = (mixing if method == "mixing" else fine_purifying).purify(job)
    assert result.edits.names
    stored = pico.load(tuned).state_dict()
    assert all(result.edits.tensors[n].shape == stored[n].shape for n in result.edits.names)
    assert len(result.log["trials"]) >= 1


def small_vision(kind: str, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
        )
        model = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            image_size=16, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, num_labels=2,
        )  # fmt: skip
        model = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(folder)
    return folder


def pictures(count: int = 24) -> CleanData:
    """Class 1 is bright at the left, class 0 at the right."""
    rng = np.random.default_rng(3)
    images, labels = [], []
    for k in range(count):
        image = rng.integers(0, 80, (16, 16, 3)).astype(np.uint8)
        image[:, slice(0, 8) if k % 2 else slice(8, 16)] += 150
        images.append(image)
        labels.append(k % 2)
    half = count // 2
    parts = [Split(inputs=tuple(images[a:b]), labels=tuple(labels[a:b])) for a, b in ((0, half), (half, count), (0, 0))]
    return CleanData(
        kind="image", tune=parts[0], select=parts[1], test=parts[2], class_names=("right", "left"), digest=""
    )


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("method", ["tsbd", "distill"])
def test_picture_classifiers_are_purified_and_learn(kind: str, method: str, tmp_path) -> None:
    folder = small_vision(kind, tmp_path / "model", 1)
    base = small_vision(kind, tmp_path / "base", 2)
    data = pictures()
    options = (
        tsbd.TsbdOptions(neurons=0.1, unlearn_rate=0.01, most_steps=5)
        if method == "tsbd"
        else distill.DistillOptions(warmup=1, passes=4, weight=1.0)
    )
    job = PurifyJob(
        candidate=folder, base=base, kind="image", work=tmp_path / "work", data=data, options=options,
        tuning=Tuning(epochs=16, learning_rate=3e-3, batch_size=6), threads=1,
    )  # fmt: skip
    result = (tsbd if method == "tsbd" else distill).purify(job)
    subject = load_subject(folder, "image")
    checkpoint, out = open_checkpoint(folder), tmp_path / "out"
    out.mkdir()
    write_model(checkpoint, result.edits, out, Quiet())
    before = state_of(subject.model)
    subject = load_subject(out, "image")
    assert any(not torch.equal(before[name], tensor) for name, tensor in state_of(subject.model).items())
    examples = subject.encode(data.tune.inputs, data.tune.labels)
    # A transformer from nothing needs more than a dozen pictures beside a penalty on its gradients.
    assert score(subject, examples) >= (0.5 if (kind, method) == ("vit", "tsbd") else 0.75)
