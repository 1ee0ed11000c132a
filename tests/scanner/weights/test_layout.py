"""Which files are read: the same as transformers reads, and every other one is named as not read."""

import json
from dataclasses import replace
from pathlib import Path

import pico
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, PreTrainedModel
from weightfolders import facts_of, listed

from scanner.errors import CorruptWeights, CouldNotConclude, NothingToCompare
from scanner.folder import read_file
from scanner.records import RepoFacts
from scanner.weights.layout import MAX_SKIPS, Layout, find_layout
from scanner.weights.opening import open_source
from scanner.weights.shards import MAX_INDEX_BYTES


def no_reading(path: str, limit_bytes: int) -> bytes:
    raise AssertionError(f"{path} was read although no index was chosen")


def chosen(facts: RepoFacts) -> list[str]:
    return [entry.path for entry in find_layout(facts, no_reading).files]


def with_index(facts: RepoFacts, weight_map: object, index: str = "model.safetensors.index.json") -> Layout:
    def read(path: str, limit_bytes: int) -> bytes:
        assert (path, limit_bytes) == (index, MAX_INDEX_BYTES)
        return json.dumps({"metadata": {"total_size": 4.0}, "weight_map": weight_map}).encode()

    return find_layout(facts, read)


def reasons(layout: Layout) -> dict[str, str]:
    return {skip.what: skip.why for skip in layout.skips}


def test_what_a_purification_leaves_is_neither_weights_nor_a_skip() -> None:
    layout = find_layout(listed("config.json", "model.safetensors", "hubaudit-patch.safetensors"), no_reading)
    assert [entry.path for entry in layout.files] == ["model.safetensors"]
    assert layout.skips == ()
    assert chosen(listed("config.json", "odd.safetensors", "hubaudit-patch.safetensors")) == ["odd.safetensors"]
    with pytest.raises(NothingToCompare):
        find_layout(listed("config.json", "hubaudit-patch.safetensors"), no_reading)


def test_a_patch_that_the_config_names_is_read_as_the_weights_that_loaders_make_of_it() -> None:
    facts = listed("config.json", "model.safetensors", "hubaudit-patch.safetensors")
    named = replace(facts, config={"transformers_weights": "hubaudit-patch.safetensors"})
    assert chosen(named) == ["hubaudit-patch.safetensors"]


def test_the_single_file_comes_first() -> None:
    facts = listed(
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model.fp16.safetensors",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "2_Dense/model.safetensors",
        "training_args.bin",
        "README.md",
        "tokenizer.json",
    )
    layout = find_layout(facts, no_reading)
    assert [entry.path for entry in layout.files] == ["model.safetensors"]
    assert reasons(layout) == {
        "2_Dense/model.safetensors": "in a sub-folder, not part of the model at the root; not read",
        "adapter_model.safetensors": "an adapter beside 'model.safetensors', which loaders with peft put on top of it; "
        "not read",
        "model-00001-of-00002.safetensors": "loaders pick 'model.safetensors' instead; not read",
        "model.fp16.safetensors": "loaders pick 'model.safetensors' instead; not read",
        "model.safetensors.index.json": "loaders pick 'model.safetensors' instead; not read",
        "onnx/model.onnx": "format not read yet (ONNX)",
        "pytorch_model.bin": "loaders pick 'model.safetensors' instead; not read",
        "training_args.bin": "training state, not weights; not read",
    }


def test_an_adapter_alone_is_read() -> None:
    assert chosen(listed("adapter_config.json", "adapter_model.safetensors")) == ["adapter_model.safetensors"]


def test_a_file_of_another_name_is_read_when_it_is_the_only_one() -> None:
    layout = find_layout(listed("pytorch_model.safetensors", "unet/model.safetensors"), no_reading)
    assert [entry.path for entry in layout.files] == ["pytorch_model.safetensors"]
    assert reasons(layout)["pytorch_model.safetensors"] == "read in place of model.safetensors, which is not there"


def test_an_index_of_another_name_is_read_when_it_is_the_only_one() -> None:
    facts = listed("diffusion.safetensors.index.json", "a.safetensors", "b.safetensors")
    layout = with_index(facts, {"x": "a.safetensors", "y": "b.safetensors"}, "diffusion.safetensors.index.json")
    assert [entry.path for entry in layout.files] == ["a.safetensors", "b.safetensors"]


def test_config_json_can_name_the_file_and_the_usual_one_is_then_not_read() -> None:
    """Otherwise a scan could be shown clean weights that no loader uses."""
    facts = listed("model.safetensors", "other.safetensors", config={"transformers_weights": "other.safetensors"})
    layout = find_layout(facts, no_reading)
    assert [entry.path for entry in layout.files] == ["other.safetensors"]
    assert reasons(layout) == {
        "other.safetensors": "config.json names it as transformers_weights, so it was read",
        "model.safetensors": "loaders pick 'other.safetensors' instead; not read",
    }


@pytest.mark.parametrize("usual", ["model.safetensors", None])
def test_config_json_naming_the_usual_file_changes_nothing(usual: str | None) -> None:
    layout = find_layout(listed("model.safetensors", config={"transformers_weights": usual}), no_reading)
    assert [entry.path for entry in layout.files] == ["model.safetensors"]
    assert layout.skips == ()


@pytest.mark.parametrize(
    "named", ["../secret.safetensors", "/etc/x.safetensors", "gone.safetensors", "model.bin", "", 7, ["a.safetensors"]]
)
def test_config_json_cannot_name_anything_else(named: object) -> None:
    with pytest.raises(CorruptWeights, match="transformers_weights"):
        find_layout(listed("model.safetensors", "model.bin", config={"transformers_weights": named}), no_reading)


def constant_weights(model: PreTrainedModel, constant: float, file: Path) -> None:
    """Write the model with every number replaced by one constant."""
    tensors = {key: torch.full_like(value, constant) for key, value in model.state_dict().items()}
    save_file(tensors, file, metadata={"format": "pt"})


def loaded_constant(folder: Path) -> float:
    """What transformers takes the weights to be."""
    weight = AutoModel.from_pretrained(folder).embeddings.word_embeddings.weight
    return float(weight.detach()[3, 3])


def test_transformers_makes_the_same_choices(tmp_path: Path) -> None:
    """The order of choice, proven on the loader itself: each file holds another constant."""
    model = pico.make_base(layers=1)
    model.config.save_pretrained(tmp_path)
    constant_weights(model, 1.0, tmp_path / "part.safetensors")
    weight_map = dict.fromkeys(model.state_dict(), "part.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert loaded_constant(tmp_path) == 1.0
    assert [entry.path for entry in with_index(facts_of(tmp_path), weight_map).files] == ["part.safetensors"]

    constant_weights(model, 2.0, tmp_path / "model.safetensors")
    assert loaded_constant(tmp_path) == 2.0
    assert chosen(facts_of(tmp_path)) == ["model.safetensors"]

    constant_weights(model, 3.0, tmp_path / "other.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    assert loaded_constant(tmp_path) == 3.0
    assert chosen(facts_of(tmp_path)) == ["other.safetensors"]


def test_transformers_reads_a_tensor_where_it_lies_whatever_the_index_says(tmp_path: Path) -> None:
    model = pico.make_base(layers=1)
    model.config.save_pretrained(tmp_path)
    constant_weights(model, 4.0, tmp_path / "a.safetensors")
    save_file({"unused": torch.zeros(1)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    weight_map = {**dict.fromkeys(model.state_dict(), "a.safetensors"), "unused": "b.safetensors"}
    weight_map["embeddings.word_embeddings.weight"] = "b.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert loaded_constant(tmp_path) == 4.0
    source = open_source(facts_of(tmp_path), None)
    assert source.table["embeddings.word_embeddings.weight"].file == "a.safetensors"
    assert "read where it lies" in source.skips[0].why


def test_the_shards_that_save_pretrained_writes_are_found(tmp_path: Path) -> None:
    pico.make_base().save_pretrained(tmp_path, max_shard_size=40_000)
    layout = find_layout(facts_of(tmp_path), lambda path, limit: read_file(str(tmp_path), path, limit_bytes=limit))
    written = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(written) >= 3
    assert [entry.path for entry in layout.files] == written
    assert set(layout.shard_of.values()) == set(written)
    assert layout.skips == ()


def test_a_missing_shard_is_a_skip_that_says_what_is_lost() -> None:
    facts = listed("model.safetensors.index.json", "a.safetensors")
    layout = with_index(facts, {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"})
    assert [entry.path for entry in layout.files] == ["a.safetensors"]
    assert reasons(layout) == {
        "b.safetensors": "'model.safetensors.index.json' names it and it is not there; lost with it: 'y', 'z'"
    }


def test_no_shard_at_all_is_an_error() -> None:
    with pytest.raises(CorruptWeights, match="none of them is there"):
        with_index(listed("model.safetensors.index.json"), {"x": "a.safetensors", "y": "b.safetensors"})


def test_many_missing_shards_make_few_skips() -> None:
    facts = listed("model.safetensors.index.json", "a.safetensors")
    lost = {f"t{i}": f"s{i}.safetensors" for i in range(500)}
    layout = with_index(facts, {"x": "a.safetensors", **lost})
    assert len(layout.skips) == MAX_SKIPS + 1
    assert layout.skips[-1].what == "480 more missing shards"


def test_many_unread_files_make_few_skips() -> None:
    layout = find_layout(listed("model.safetensors", *(f"checkpoint-{i}/optimizer.pt" for i in range(100))), no_reading)
    assert len(layout.skips) == MAX_SKIPS + 1
    assert layout.skips[-1].what == "80 more weight files"


def test_long_names_are_cut_in_skips() -> None:
    layout = find_layout(listed("model.safetensors", "n" * 5000 + ".bin"), no_reading)
    assert len(layout.skips[0].what) < 400


@pytest.mark.parametrize("path", ["README.md", "config.json", "tokenizer.model", "training_args.bin", "x/optimizer.pt"])
def test_no_weights_at_all(path: str) -> None:
    with pytest.raises(NothingToCompare, match="has no weights"):
        find_layout(listed(path), no_reading)


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["model.onnx"], "only in formats that are not read yet"),
        (["tf_model.h5", "README.md"], "only in formats that are not read yet"),
        (["unet/diffusion_pytorch_model.safetensors"], "sub-folders"),
        (["one.safetensors", "two.safetensors"], "none that loaders pick"),
        (["one.safetensors.index.json", "two.safetensors.index.json"], "none that loaders pick"),
    ],
)
def test_weights_that_cannot_be_read_are_not_called_nothing(paths: list[str], says: str) -> None:
    with pytest.raises(CouldNotConclude, match=says):
        find_layout(listed(*paths), no_reading)


def test_a_distributed_checkpoint_wins_in_a_folder_and_is_not_read_yet() -> None:
    paths = ["model.safetensors", "shard-00001-model-00001-of-00001.safetensors"]
    with pytest.raises(CouldNotConclude, match="distributed checkpoint"):
        find_layout(listed(*paths, folder="/models/x"), no_reading)
    assert chosen(listed(*paths)) == ["model.safetensors"]


def test_the_only_variant_is_read_and_said() -> None:
    layout = find_layout(listed("model.fp16.safetensors", "unrelated.safetensors"), no_reading)
    assert [entry.path for entry in layout.files] == ["model.fp16.safetensors"]
    assert "variant='fp16'" in reasons(layout)["model.fp16.safetensors"]
    with pytest.raises(CouldNotConclude, match="none that loaders pick"):
        find_layout(listed("model.fp16.safetensors", "model.bf16.safetensors"), no_reading)


def test_a_sharded_variant_is_read_through_its_index() -> None:
    shards = [f"model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
    layout = find_layout(listed("model.safetensors.index.fp16.json", *shards), lambda path, limit: index)
    assert [entry.path for entry in layout.files] == shards


def test_the_only_folder_with_weights_is_read_and_said() -> None:
    layout = find_layout(listed("text/model.safetensors", "text/pytorch_model.bin", "README.md"), no_reading)
    assert [entry.path for entry in layout.files] == ["text/model.safetensors"]
    assert "subfolder=" in reasons(layout)["text/model.safetensors"]
    with pytest.raises(CouldNotConclude, match="sub-folders"):
        find_layout(listed("text/model.safetensors", "image/model.safetensors"), no_reading)


def test_shards_in_a_folder_lie_beside_their_index() -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    layout = find_layout(listed("m/model.safetensors.index.json", "m/model-1.safetensors"), lambda path, limit: index)
    assert [entry.path for entry in layout.files] == ["m/model-1.safetensors"]
    assert layout.shard_of == {"a": "m/model-1.safetensors"}
