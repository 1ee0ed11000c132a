"""Fused, stacked and turned tensors against their parts: real models, as transformers writes them and as others do."""

import json
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as T  # noqa: N812
from descents import in_process
from safetensors.torch import load_file, save_file
from weightfolders import facts_of

from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.lineage.parted import in_same_parts
from scanner.partition import MAX_STEPS
from scanner.records import Alignment, DriftFacts
from scanner.weights.opening import open_source

Tensors = dict[str, torch.Tensor]

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
    "tie_word_embeddings": False,
}
_GROUPED = _SMALL | {"num_key_value_heads": 2}


def trained(model: torch.nn.Module, seed: int = 5) -> torch.nn.Module:
    """Every matrix moved a little, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.002 * torch.randn(parameter.shape, generator=generator))
    return model


def made(config: T.PreTrainedConfig, seed: int = 1, auto=T.AutoModelForCausalLM) -> torch.nn.Module:
    torch.manual_seed(seed)
    return auto.from_config(config).float()


def rewritten(folder: Path, change: Callable[[Tensors], Mapping[str, torch.Tensor]], **config: object) -> Path:
    """The same checkpoint with other tensors, as a conversion script leaves it."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    if config:
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | config))
    return folder


def saved(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def compared(base: Path, candidate: Path) -> tuple[Alignment, DriftFacts]:
    """Align and measure as a scan does."""
    ours, theirs = facts_of(candidate), facts_of(base)
    with open_source(ours, None) as mine, open_source(theirs, None) as other:
        one, two = in_same_parts(mine, other, ours, theirs)
        alignment = align(
            one.table, two.table, candidate_config=ours.config, base_config=theirs.config, canonicalise=in_process
        )
        return alignment, measure(alignment, two, one, threads=1)


def assert_whole(base: Path, candidate: Path, size: float = 0.002) -> tuple[Alignment, str]:
    """Every parameter is compared, and differs by what training did and no more; returns the reasons of the skips too."""
    alignment, drift = compared(base, candidate)
    assert alignment.parameters_compared == alignment.parameters_total
    for tensor in drift.tensors:
        assert tensor.delta_l2 / np.sqrt(tensor.count) == pytest.approx(size, rel=0.5), tensor.spec.name
    return alignment, " ".join(skip.why for skip in drift.coverage.skipped)


def split_rows(tensors: Tensors, parts: Mapping[str, Mapping[str, int]]) -> Tensors:
    """Cut tensors by rows: name of the fused module → names and rows of its parts."""
    cut = {}
    for name, value in tensors.items():
        fused = next((key for key in parts if f".{key}." in name), None)
        if fused is None:
            cut[name] = value
            continue
        pieces = value.split(list(parts[fused].values()))
        cut |= {name.replace(fused, part): piece for part, piece in zip(parts[fused], pieces, strict=True)}
    return cut


LLAMAFIED = {
    "qkv_proj": {"q_proj": 32, "k_proj": 16, "v_proj": 16},
    "gate_up_proj": {"gate_proj": 48, "up_proj": 48},
}


@pytest.fixture
def phi(tmp_path: Path) -> tuple[Path, Path]:
    """Phi-3 in its own layout, and trained and cut into the parts that Llama has."""
    config = T.Phi3Config(**_GROUPED, pad_token_id=0)
    base = saved(made(config), tmp_path / "base")
    cut = saved(trained(made(config)), tmp_path / "cut")
    return base, rewritten(cut, lambda tensors: split_rows(tensors, LLAMAFIED), model_type="llama")


def test_a_llamafied_phi_is_compared_part_by_part(phi: tuple[Path, Path]) -> None:
    base, cut = phi
    alignment, reasons = assert_whole(base, cut)
    assert {pair.role for pair in alignment.pairs} >= {"query", "key", "value", "mlp_gate", "mlp_in"}
    assert "part by part" in reasons


def test_the_other_way_round_parts_keep_the_names_they_have(phi: tuple[Path, Path]) -> None:
    whole, cut = phi
    alignment, _ = assert_whole(cut, whole)
    assert "model.layers.1.self_attn.k_proj.weight" in {pair.name for pair in alignment.pairs}


def test_parts_in_an_unusual_order_are_found_where_they_lie(tmp_path: Path) -> None:
    config = T.Phi3Config(**_SMALL, num_key_value_heads=4, pad_token_id=0)
    base = saved(made(config), tmp_path / "base")
    odd = {"qkv_proj": {"v_proj": 32, "q_proj": 32, "k_proj": 32}, "gate_up_proj": {"up_proj": 48, "gate_proj": 48}}
    cut = rewritten(saved(trained(made(config)), tmp_path / "cut"), lambda tensors: split_rows(tensors, odd))
    assert_whole(base, cut)


@pytest.mark.parametrize("biased", [True, False])
def test_projections_interleaved_by_heads(tmp_path: Path, biased: bool) -> None:
    """GPT-NeoX writes query, key and value of each head one after the other."""
    config = T.GPTNeoXConfig(**_SMALL, attention_bias=biased)
    whole = made(config)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.02)
    base = saved(whole, tmp_path / "base")

    def by_heads(tensors: Tensors) -> Tensors:
        cut = {}
        for name, value in tensors.items():
            if "query_key_value" not in name:
                cut[name] = value
                continue
            heads = value.reshape(4, 3, 8, *value.shape[1:])
            for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
                cut[name.replace("query_key_value", part)] = heads[:, i].reshape(32, *value.shape[1:])
        return cut

    cut = rewritten(saved(trained(whole), tmp_path / "cut"), by_heads)
    alignment, _ = assert_whole(base, cut)
    assert sum(pair.name.endswith("k_proj.bias") for pair in alignment.pairs) == 2 * biased


def test_grouped_heads_interleaved(tmp_path: Path) -> None:
    """InternLM2 writes, for each key head, its queries, the key and the value."""
    config = T.LlamaConfig(**_GROUPED)
    base = saved(made(config), tmp_path / "base")

    def fused(tensors: Tensors) -> Tensors:
        kept = {n: v for n, v in tensors.items() if not any(f"{p}_proj" in n for p in "qkv")}
        for layer in range(2):
            at = f"model.layers.{layer}.self_attn."
            parts = [tensors[f"{at}{p}_proj.weight"].reshape(2, -1, 8, 32) for p in "qkv"]
            kept[f"{at}wqkv.weight"] = torch.cat(parts, dim=1).reshape(64, 32)
        return kept

    assert_whole(base, rewritten(saved(trained(made(config)), tmp_path / "fused"), fused))


def test_conv1d_against_linear(tmp_path: Path) -> None:
    config = T.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=16, tie_word_embeddings=True)
    base = saved(made(config), tmp_path / "base")

    def linear(tensors: Tensors) -> Tensors:
        return {
            n: v.T if n.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else v for n, v in tensors.items()
        }

    turned = rewritten(saved(trained(made(config)), tmp_path / "turned"), linear)
    _, reasons = assert_whole(base, turned)
    assert "axes exchanged" in reasons


def test_conv1d_fused_and_turned_against_linear_parts(tmp_path: Path) -> None:
    config = T.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=16, tie_word_embeddings=True)
    base = saved(made(config), tmp_path / "base")

    def parts(tensors: Tensors) -> Tensors:
        cut = {}
        for name, value in tensors.items():
            if ".c_attn." not in name:
                cut[name] = value
                continue
            for part, piece in zip(("q_proj", "k_proj", "v_proj"), value.split(32, dim=-1), strict=True):
                cut[name.replace("c_attn", part)] = piece.T if piece.ndim > 1 else piece
        return cut

    assert_whole(base, rewritten(saved(trained(made(config)), tmp_path / "cut"), parts))


MIXTURES = {
    "mixtral": T.MixtralConfig(**_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen3-moe": T.Qwen3MoeConfig(
        **_GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8
    ),
}


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("stacked_is", ["candidate", "base"])
def test_experts_stacked_as_in_memory_against_experts_as_saved(tmp_path: Path, kind: str, stacked_is: str) -> None:
    apart = saved(made(MIXTURES[kind]), tmp_path / "apart")
    model = trained(made(MIXTURES[kind]))
    stacked = rewritten(saved(model, tmp_path / "stacked"), lambda _: dict(model.state_dict()))
    assert any(value.ndim == 3 for value in load_file(stacked / "model.safetensors").values())
    assert any(".experts.3." in name for name in load_file(apart / "model.safetensors"))
    base, candidate = (apart, stacked) if stacked_is == "candidate" else (stacked, apart)
    alignment, _ = assert_whole(base, candidate)
    assert not any(len(pair.shape) == 3 for pair in alignment.pairs)


def test_stacks_with_inputs_first_are_turned(tmp_path: Path) -> None:
    """GPT-OSS and Llama 4 stack ``[experts, inputs, outputs]``."""
    config = MIXTURES["qwen3-moe"]
    apart = saved(made(config), tmp_path / "apart")
    model = trained(made(config))
    turned = {n: v.transpose(1, 2) if v.ndim == 3 else v for n, v in model.state_dict().items()}
    assert_whole(apart, rewritten(saved(model, tmp_path / "stacked"), lambda _: turned))


def test_experts_under_other_names(tmp_path: Path) -> None:
    config = MIXTURES["mixtral"]
    base = saved(made(config), tmp_path / "base")
    words = {"block_sparse_moe": "mlp", ".w1.": ".gate_proj.", ".w2.": ".down_proj.", ".w3.": ".up_proj."}

    def renamed(tensors: Tensors) -> Tensors:
        return {reduce(lambda n, word: n.replace(*word), words.items(), name): v for name, v in tensors.items()}

    assert_whole(base, rewritten(saved(trained(made(config)), tmp_path / "renamed"), renamed))


def test_a_stranger_in_other_parts_stays_unpaired(tmp_path: Path) -> None:
    config = T.Phi3Config(**_GROUPED, pad_token_id=0)
    base = saved(made(config), tmp_path / "base")
    other = rewritten(saved(made(config, seed=9), tmp_path / "other"), lambda t: split_rows(t, LLAMAFIED))
    alignment, _ = compared(base, other)
    assert not any("k_proj" in pair.name for pair in alignment.pairs)
    assert any("q_proj" in skip.what for skip in alignment.skips)


def test_one_edited_row_of_a_part_is_named(phi: tuple[Path, Path]) -> None:
    base, cut = phi
    path = cut / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.self_attn.v_proj.weight"][7] += 1
    save_file(tensors, path)
    _, drift = compared(base, cut)
    (value,) = [t for t in drift.tensors if t.spec.name == "model.layers.1.self_attn.v_proj.weight"]
    assert int(value.row_delta_sq.argmax()) == 7
    assert value.row_delta_sq[7] > 30


def test_a_stack_that_claims_thousands_of_experts_is_left_alone(tmp_path: Path) -> None:
    base = {"model.layers.0.mlp.experts.down_proj": torch.zeros(5000, 1, 1)}
    mine = {f"model.layers.0.mlp.experts.{i}.down_proj.weight": torch.zeros(1, 1) for i in range(5000)}
    for name, tensors in (("base", base), ("mine", mine)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    alignment, _ = compared(tmp_path / "base", tmp_path / "mine")
    assert not alignment.pairs


def test_more_pieces_than_are_looked_through_are_said(tmp_path: Path) -> None:
    start = "model.layers.0"
    fused = {f"{start}.m{i}.self_attn.qkv_proj.weight": torch.zeros(16, 6) for i in range(2100)}
    split = {f"{start}.n{i}.self_attn.{p}_proj.weight": torch.zeros(16, 6) for i in range(32) for p in "qkv"}
    for name, tensors in {"ours": fused, "theirs": split}.items():
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    facts = [facts_of(tmp_path / name) for name in ("ours", "theirs")]
    with open_source(facts[0], None) as ours, open_source(facts[1], None) as theirs:
        found = in_same_parts(ours, theirs, *facts)
        assert [source.table for source in found] == [ours.table, theirs.table]
        notes = [skip for source in found for skip in source.skips]
    assert len(notes) == 1
    assert notes[0].what == f"{2100 + 96 - MAX_STEPS // 64} tensors"
    assert "not looked for" in notes[0].why
