"""What headers say of a checkpoint: written by transformers and peft, read back by the real readers."""

from pathlib import Path

import pefts
import pico
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef, TensorMeta
from scanner.stored import MAX_TARGETS, describe_table
from scanner.weights.opening import open_source


def stored(folder: Path):
    facts = collect(RepoRef(path=str(folder)), Hub())
    with open_source(facts, None) as source:
        return describe_table(source.table.values(), facts.config)


def test_a_checkpoint_is_counted(tmp_path):
    folder = pico.save(pico.make_base(layers=2), tmp_path / "base")
    kept = load_file(folder / "model.safetensors")
    found = stored(folder)
    assert found.parameters == sum(tensor.numel() for tensor in kept.values())
    assert found.dtypes == {"F32": found.parameters}
    assert found.token_rows == ("embeddings.word_embeddings.weight", pico.VOCABULARY)
    assert (found.adapter, found.ranks, found.schemes) == (False, (), {})


def test_mixed_formats_are_told_apart(tmp_path):
    model = pico.make_base(layers=1)
    model.embeddings.to(torch.float16)
    found = stored(pico.save(model, tmp_path / "mixed"))
    assert set(found.dtypes) == {"F16", "F32"}
    assert sum(found.dtypes.values()) == found.parameters


def test_ranks_and_targets_of_an_adapter(tmp_path):
    config = LoraConfig(r=4, rank_pattern={"value": 8}, target_modules=["query", "value"])
    found = stored(pefts.save_adapter(pico.make_base(layers=2), config, tmp_path / "adapter"))
    assert found.adapter
    assert found.ranks == (4, 8)
    assert found.targets == ("query", "value")


def test_a_table_of_many_targets_is_bounded():
    def factor(index: int) -> TensorMeta:
        return TensorMeta(
            name=f"m.module{index}.lora_A.weight", dtype="F32", shape=(2, 4), file="adapter_model.safetensors",
            start=0, end=32,
        )  # fmt: skip

    assert len(describe_table(factor(i) for i in range(500)).targets) == MAX_TARGETS


@pytest.mark.parametrize("shape", [(), (0,), (4,)])
def test_odd_shapes_have_no_token_rows(shape):
    meta = TensorMeta(name="embed_tokens.weight", dtype="F32", shape=shape, file="x.safetensors", start=0, end=0)
    assert describe_table([meta]).token_rows is None
    assert describe_table([]).parameters == 0
