"""Every kind of PEFT adapter on its base, against what peft itself merges."""

import json
from pathlib import Path

import numpy as np
import pefts
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, TrainableTokensConfig
from safetensors.torch import load_file, save_file
from weightfolders import facts_of, whole_tensors

from scanner.drift.adapter import measure_adapter
from scanner.errors import CouldNotConclude
from scanner.lineage.adapter import check_fit
from scanner.records import RepoFacts
from scanner.weights.adapted import put_on
from scanner.weights.dtypes import decode
from scanner.weights.opening import open_source

ATTENTION = ["q_proj", "v_proj"]
CONV1D = ["c_attn", "c_proj"]
KINDS = {
    "lora": (pefts.llama, LoraConfig(r=4, lora_alpha=16, target_modules=ATTENTION)),
    "rslora": (pefts.llama, LoraConfig(r=4, lora_alpha=16, use_rslora=True, target_modules=ATTENTION)),
    "patterns": (
        pefts.llama,
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=[*ATTENTION, "down_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 2, r"^model.layers.\d+.mlp.down_proj": 3},
            alpha_pattern={"v_proj": 32},
        ),
    ),
    "dora": (pefts.llama, LoraConfig(r=3, use_dora=True, target_modules=[*ATTENTION, "up_proj"])),
    "saved modules": (pefts.llama, LoraConfig(r=2, target_modules=ATTENTION, modules_to_save=["lm_head", "norm"])),
    "tables": (pefts.llama, LoraConfig(r=2, target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "dora table": (pefts.llama, LoraConfig(r=2, use_dora=True, target_modules=["embed_tokens"])),
    "tokens": (
        pefts.llama,
        LoraConfig(r=2, target_modules=ATTENTION, trainable_token_indices={"embed_tokens": [3, 9]}),
    ),
    "only tokens": (pefts.llama, TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[5, 2, 300])),
    "conv1d": (pefts.gpt2, LoraConfig(r=4, target_modules=CONV1D, fan_in_fan_out=True)),
    "conv1d dora": (pefts.gpt2, LoraConfig(r=4, target_modules=CONV1D, fan_in_fan_out=True, use_dora=True)),
    "biases": (pefts.gpt2, LoraConfig(r=2, target_modules=CONV1D, fan_in_fan_out=True, bias="all")),
    "bias of a factor": (pefts.gpt2, LoraConfig(r=2, target_modules=CONV1D, fan_in_fan_out=True, lora_bias=True)),
    "adalora": (pefts.llama, AdaLoraConfig(init_r=6, lora_alpha=24, total_step=10, target_modules=ATTENTION)),
}


def adapter_facts(folder: Path) -> RepoFacts:
    from dataclasses import replace

    return replace(facts_of(folder), adapter_config=json.loads((folder / "adapter_config.json").read_text()))


@pytest.fixture
def put(tmp_path):
    """Opens an adapter folder on a base folder."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def opened(base: Path, adapter: Path):
            ours, theirs = (stack.enter_context(open_source(facts_of(f), None)) for f in (adapter, base))
            return put_on(adapter_facts(adapter), ours, theirs, facts_of(base))

        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_what_peft_merges(kind, tmp_path, put):
    make, config = KINDS[kind]
    base = pefts.save_base(make(), tmp_path / "base")
    adapter = pefts.save_adapter(make(), config, tmp_path / "adapter")
    expected = pefts.merged(make(), adapter)
    found = put(base, adapter)
    assert found.alignment.pairs
    assert not [skip for skip in (*found.candidate.skips, *found.alignment.skips) if skip.unread]
    names = {pair.name: pair.base.name for pair in found.alignment.pairs}
    changed = {name for name, tensor in make().state_dict().items() if not torch.equal(tensor.double(), expected[name])}
    assert {names[name] for name in names} >= changed & set(load_file(base / "model.safetensors"))
    for request in whole_tensors(found.candidate):
        (block,) = found.candidate.stream([request])
        values = decode(block.values, block.dtype)
        wanted = expected[names[request.name]].double().reshape(values.shape).numpy()
        np.testing.assert_allclose(values, wanted, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["lora", "conv1d", "tables", "adalora", "dora"])
def test_measures_what_a_merged_copy_would_show(kind, tmp_path, put):
    make, config = KINDS[kind]
    base = pefts.save_base(make(), tmp_path / "base")
    adapter = pefts.save_adapter(make(), config, tmp_path / "adapter")
    expected, before = pefts.merged(make(), adapter), make().double().state_dict()
    found = put(base, adapter)
    drift = measure_adapter(found, threads=1)
    assert check_fit(found)[0] == "verified"
    assert drift.coverage.fraction == 1.0
    assert [t.spec.name for t in drift.tensors] == [p.name for p in found.alignment.pairs]
    for tensor in drift.tensors:
        name = tensor.spec.base.name
        delta = (expected[name] - before[name]).reshape(tensor.spec.candidate.rows_cols)
        assert tensor.delta_l2 == pytest.approx(float(delta.norm()), rel=1e-4, abs=1e-9)
        if tensor.spectrum is None:
            continue
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        np.testing.assert_allclose(tensor.spectrum.values[:2], values[:2].numpy(), rtol=1e-4, atol=1e-9)
        for top, vector in ((tensor.spectrum.left_top, left[:, 0]), (tensor.spectrum.right_top, right[0])):
            index, value = top[0]
            assert index == int(vector.abs().argmax())
            assert abs(value) == pytest.approx(float(vector.abs().max()), rel=1e-3)
        if kind in ("lora", "conv1d"):
            assert tensor.spectrum.exact
            assert len(tensor.spectrum.values) == 4


def test_reads_only_the_adapted_tensors_of_the_base_and_those_once(tmp_path, put):
    base = pefts.save_base(pefts.llama(), tmp_path / "base")
    adapter = pefts.save_adapter(pefts.llama(), KINDS["lora"][1], tmp_path / "adapter")
    found = put(base, adapter)
    before = found.base.bytes_read
    measure_adapter(found, threads=1)
    adapted = sum(pair.base.count * 4 for pair in found.alignment.pairs)
    assert found.base.bytes_read - before == adapted


def altered(folder: Path, change) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def reconfigured(folder: Path, **options) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    return folder


@pytest.fixture
def simple(tmp_path):
    base = pefts.save_base(pefts.llama(), tmp_path / "base")
    return base, pefts.save_adapter(pefts.llama(), LoraConfig(r=4, target_modules=ATTENTION), tmp_path / "adapter")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(FIRST), "one of the two factors is missing"),
        (lambda t: t.update({FIRST: torch.zeros(5, 32)}), "have no product"),
        (lambda t: t.update({FIRST: torch.zeros(4)}), "have no product"),
        (lambda t: t.update({FIRST: torch.zeros(4, 32, dtype=torch.int32)}), "in place of floats"),
        (lambda t: t.update({FIRST.replace("lora_A", "lora_odd"): torch.zeros(2)}), "not known"),
    ],
)
def test_a_module_that_does_not_fit_together_is_an_unread_skip(simple, put, change, reason):
    base, adapter = simple
    found = put(base, altered(adapter, change))
    unread = [skip for skip in found.candidate.skips if skip.unread]
    assert len(unread) == 1
    assert reason in unread[0].why
    assert check_fit(found)[0] == "unverified"
    assert len(measure_adapter(found, threads=1).tensors) >= 5


def test_a_rank_other_than_the_declared_one_is_not_believed(simple, put):
    base, adapter = simple
    with pytest.raises(CouldNotConclude, match="gives it rank 2, the factors have rank 4"):
        put(base, reconfigured(adapter, r=2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"r": 0}, "impossible rank"),
        ({"r": 10**9}, "impossible rank"),
        ({"lora_alpha": float("nan")}, "impossible rank or scale"),
        ({"init_lora_weights": "pissa"}, "rewrites its base"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"alpha_pattern": {"q_proj": "much"}}, "impossible rank or scale"),
    ],
)
def test_a_configuration_that_is_not_followed_is_refused_with_the_reason(simple, put, options, words):
    base, adapter = simple
    with pytest.raises(CouldNotConclude, match=words):
        put(base, reconfigured(adapter, **options))


def test_a_pattern_that_could_take_for_ever_is_not_evaluated(simple, put):
    base, adapter = simple
    with pytest.raises(CouldNotConclude, match="too involved"):
        put(base, reconfigured(adapter, alpha_pattern={"(a+)+b": 3}))


def test_numbers_that_are_not_finite_are_counted(simple, put):
    base, adapter = simple
    found = put(base, altered(adapter, lambda t: t[FIRST].__setitem__((0, 0), float("nan"))))
    drift = measure_adapter(found, threads=1)
    assert [t.nonfinite > 0 for t in drift.tensors].count(True) == 1
    assert sum(t.spectrum is None for t in drift.tensors) == 1


def test_an_adapter_for_a_larger_model_is_refuted(simple, tmp_path, put):
    _, adapter = simple
    base = pefts.save_base(pefts.gpt2(), tmp_path / "other")
    assert check_fit(put(base, adapter))[0] == "unverified"
    torch.manual_seed(0)
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = LlamaForCausalLM(
        LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    )
    found = put(pefts.save_base(wide, tmp_path / "wide"), adapter)
    assert check_fit(found)[0] == "contradicted"
