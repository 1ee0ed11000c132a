"""From a loaded model's names to those of its files, whatever prefix or dtype they were written with."""

from pathlib import Path

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from pipelines.purify.checkpoint import kind_of, open_checkpoint
from pipelines.purify.job import PurifyFailed
from pipelines.purify.naming import checkpoint_tensors


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_changed_comes_back(tmp_path: Path, kind: pico.Kind, dtype: torch.dtype) -> None:
    folder = pico.save(pico.make_base(kind).to(dtype), tmp_path / "model", kind=kind)
    model = pico.load(folder).float()
    checkpoint = open_checkpoint(folder)
    assert checkpoint_tensors(checkpoint, model.state_dict()) == {}
    pico.rank_one_edit(model, 1)
    (changed,) = checkpoint_tensors(checkpoint, model.state_dict()).items()
    name, tensor = changed
    assert name in load_file(folder / "model.safetensors")
    assert tensor.dtype == dtype
    assert torch.equal(tensor, pico.matrices(model, "mlp_out")[1].detach().to(dtype))


def test_a_prefix_that_the_loader_adds_is_taken_off_again(tmp_path: Path) -> None:
    folder = pico.save(pico.make_base("bert"), tmp_path / "encoder")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] += 1
    changed = checkpoint_tensors(open_checkpoint(folder), model.state_dict())
    assert list(changed) == ["embeddings.word_embeddings.weight"]


def test_values_that_are_not_finite_and_strange_layouts_are_refused(tmp_path: Path) -> None:
    folder = pico.save(pico.make_base("bert"), tmp_path / "model")
    model = pico.load(folder)
    pico.plant_nan(model, 0)
    with pytest.raises(PurifyFailed, match="not finite"):
        checkpoint_tensors(open_checkpoint(folder), model.state_dict())
    save_file({"something.else": torch.ones(1000, 1000)}, folder / "model.safetensors")
    with pytest.raises(PurifyFailed, match="another way"):
        checkpoint_tensors(open_checkpoint(folder), model.state_dict())


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["RobertaForSequenceClassification"]}, "classifier"),
        ({"architectures": ["GPT2LMHeadModel"]}, "causal"),
        ({"architectures": ["LlamaForCausalLM"]}, "causal"),
        ({"architectures": ["ViTForImageClassification"]}, "image"),
        ({"architectures": ["BertModel"]}, "other"),
        ({"architectures": [7]}, "other"),
        ({"architectures": []}, "other"),
        (None, "other"),
    ],
)
def test_the_kind_of_a_model(config: dict[str, list[str]] | None, kind: str) -> None:
    assert kind_of(config) == kind
