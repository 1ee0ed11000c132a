"""GGUF files as sources: the base's own names, order and values, from a folder and from a Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ggufs
import numpy as np
import pico
import pytest
import torch
from gguf import GGUFReader, dequantize
from localhub.server import LocalHub
from quickhub import pinned, quick_hub
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from weightfolders import facts_of, listed

from scanner.facts import collect
from scanner.lineage.parted import in_step
from scanner.records import F32
from scanner.weights.dtypes import decode
from scanner.weights.gguf_files import choose_gguf
from scanner.weights.layout import find_layout
from scanner.weights.opening import named_as, open_source
from scanner.weights.source import BlockRequest, WeightSource

SPLIT = 5


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per architecture."""
    made = {}
    for kind in ("bert", "llama", "gpt2"):
        made[kind] = tmp_path_factory.mktemp(kind)
        pico.make_base(kind).save_pretrained(made[kind])  # type: ignore[arg-type]
    return made


def values(source: WeightSource, name: str) -> F32:
    """A tensor read in two blocks."""
    rows = source.table[name].rows_cols[0]
    cut = min(SPLIT, rows)
    wanted = [BlockRequest(name=name, rows=(0, cut)), BlockRequest(name=name, rows=(cut, rows))]
    blocks = [decode(block.values, block.dtype).astype(np.float32).copy() for block in source.stream(wanted)]
    return np.concatenate(blocks)


@contextmanager
def opened(base: Path, folder: Path) -> Iterator[tuple[WeightSource, WeightSource]]:
    with open_source(facts_of(base), None) as one, named_as(open_source(facts_of(folder), None), one) as other:
        yield one, other


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "F32", "BF16"])
def test_stored_values_are_the_packages_own(tmp_path: Path, kind: str) -> None:
    ggufs.write_gguf(pico.make_base("llama"), tmp_path / "m.gguf", ggufs.encode_with(kind))
    with open_source(facts_of(tmp_path), None) as source:
        for tensor in GGUFReader(tmp_path / "m.gguf").tensors:
            official = dequantize(tensor.data, tensor.tensor_type)
            assert (values(source, tensor.name) == official.reshape(source.table[tensor.name].rows_cols)).all()
        scheme = source.table["blk.0.attn_q.weight"].scheme
        assert scheme == (f"GGUF {kind}" if kind.startswith("Q") else None)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_every_tensor_comes_back_under_the_bases_name(
    bases: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    model = pico.make_base(architecture)  # type: ignore[arg-type]
    written = ggufs.write_gguf(model, tmp_path / "m.gguf", ggufs.encode_with("F32"))
    with opened(bases[architecture], tmp_path) as (base, source):
        assert set(base.table) <= set(source.table)
        for name in base.table:
            assert source.table[name].shape == base.table[name].shape
            assert (values(source, name) == values(base, name)).all()
        assert len(written) >= len(base.table)


@pytest.mark.parametrize("interleaved", [True, False])
def test_interleaving_is_read_off_the_rows(bases: dict[str, Path], tmp_path: Path, *, interleaved: bool) -> None:
    model = pico.make_base("llama")
    ggufs.write_gguf(model, tmp_path / "m.gguf", ggufs.encode_with("Q4_0"), interleaved=interleaved)
    with opened(bases["llama"], tmp_path) as (base, source):
        for name in base.table:
            if "q_proj" in name or "k_proj" in name:
                close = np.abs(values(source, name) - values(base, name)).max()
                assert close < 0.02 < np.abs(values(base, name)).max()


def test_requantising_follows_the_rearranged_rows(bases: dict[str, Path], tmp_path: Path) -> None:
    ggufs.write_gguf(pico.make_base("llama"), tmp_path / "m.gguf", ggufs.encode_with("Q8_0"))
    with opened(bases["llama"], tmp_path) as (base, source):
        name = next(name for name in base.table if "k_proj" in name)
        wanted = [BlockRequest(name=name, rows=(3, 9))]
        (block,) = source.stream(wanted)
        (original,) = base.stream(wanted)
        assert block.coding is not None
        assert block.coding.again is not None
        assert (block.coding.again(original.values) == block.values).all()
        assert block.coding.reach().shape == block.values.shape


MIXTURE = Qwen3MoeConfig(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=100,
    num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, tie_word_embeddings=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Qwen3MoeForCausalLM]:
    torch.manual_seed(2)
    model = Qwen3MoeForCausalLM(MIXTURE)
    folder = tmp_path_factory.mktemp("mixture")
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_experts_come_out_of_their_stack(mixture: tuple[Path, Qwen3MoeForCausalLM], tmp_path: Path, kind: str) -> None:
    folder, model = mixture
    ggufs.write_gguf(model, tmp_path / "m.gguf", ggufs.encode_with(kind))
    with opened(folder, tmp_path) as (base, source):
        assert set(base.table) == set(source.table)
        for name in base.table:
            assert values(source, name) == pytest.approx(
                values(base, name), abs={"F32": 0, "F16": 1e-4}.get(kind, 1e-3)
            )
        name = "model.layers.1.mlp.experts.3.down_proj.weight"
        read = source.bytes_read
        (block,) = source.stream([BlockRequest(name=name, rows=(4, 6))])
        (original,) = base.stream([BlockRequest(name=name, rows=(4, 6))])
        assert source.bytes_read - read <= 2 * 32 * 4, "two rows of one expert are read and no more"
        if kind == "Q8_0":
            assert block.coding is not None
            assert block.coding.again is not None
            assert (block.coding.again(original.values) == block.values).all()


def test_a_stack_of_gguf_meets_a_stack_of_transformers(
    mixture: tuple[Path, Qwen3MoeForCausalLM], tmp_path: Path
) -> None:
    _, model = mixture
    (tmp_path / "base").mkdir()
    save_file(dict(model.state_dict()), tmp_path / "base" / "model.safetensors")
    (tmp_path / "mine").mkdir()
    ggufs.write_gguf(model, tmp_path / "mine" / "m.gguf", ggufs.encode_with("Q8_0"))
    ours, theirs = facts_of(tmp_path / "mine"), facts_of(tmp_path / "base")
    with open_source(theirs, None) as base, open_source(ours, None) as mine:
        candidate, other = in_step(mine, base, ours, theirs)
        assert set(candidate.table) == set(other.table)
        assert len(candidate.table) > 2 * 4 * 3
        for name in other.table:
            assert values(candidate, name) == pytest.approx(values(other, name), abs=1e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_norms_that_count_from_one_are_counted_from_zero(tmp_path: Path, *, trained: bool) -> None:
    torch.manual_seed(1)
    config = Gemma2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, vocab_size=100,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config)
    if trained:
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith("norm.weight"):
                    value.uniform_(-0.4, 2.0)
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "mine").mkdir()
    ggufs.write_gguf(model, tmp_path / "mine" / "m.gguf", ggufs.encode_with("F32"))
    with opened(tmp_path / "base", tmp_path / "mine") as (base, source):
        assert set(base.table) == set(source.table), "the output is tied to the embedding on both sides"
        for name in base.table:
            assert values(source, name) == pytest.approx(values(base, name), abs=1e-6), name


def test_norms_are_left_alone_where_nothing_was_added(tmp_path: Path) -> None:
    """Gemma's architecture name with norms as they are: what the rows say counts, not the name."""
    model = pico.make_base("llama")
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "mine").mkdir()
    ggufs.write_gguf(model, tmp_path / "mine" / "m.gguf", ggufs.encode_with("F32"), architecture="gemma")
    with opened(tmp_path / "base", tmp_path / "mine") as (base, source):
        name = "model.layers.0.input_layernorm.weight"
        assert (values(source, name) == values(base, name)).all()


def test_an_unknown_architecture_keeps_its_names(bases: dict[str, Path], tmp_path: Path) -> None:
    ggufs.write_gguf(
        pico.make_base("bert"), tmp_path / "m.gguf", ggufs.encode_with("F32"), architecture="no-such-thing"
    )
    with opened(bases["bert"], tmp_path) as (_, source):
        assert "blk.0.attn_q.weight" in source.table
        assert any("architecture" in skip.why for skip in source.skips)


def test_a_repository_gives_what_the_folder_gives(tmp_path: Path, hub_server: LocalHub) -> None:
    ggufs.write_gguf(pico.make_base("bert"), tmp_path / "m.gguf", ggufs.encode_with("Q5_1"))
    hub_server.add_repo("org/model", folder=tmp_path)
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/model"), hub)
    with open_source(facts, hub) as there, open_source(facts_of(tmp_path), None) as here:
        assert {n: (m.shape, m.scheme) for n, m in there.table.items()} == {
            n: (m.shape, m.scheme) for n, m in here.table.items()
        }
        for name in list(here.table)[:6]:
            assert (values(there, name) == values(here, name)).all()
        assert there.remote
        assert there.requests > 0


def test_rows_outside_of_a_decoded_tensor_are_refused(tmp_path: Path) -> None:
    ggufs.write_gguf(pico.make_base("bert"), tmp_path / "m.gguf", ggufs.encode_with("Q8_0"))
    with open_source(facts_of(tmp_path), None) as source, pytest.raises(ValueError, match="outside"):
        list(source.stream([BlockRequest(name="token_embd.weight", rows=(0, 10_000))]))


def test_of_many_precisions_the_usual_one_is_read() -> None:
    files, skips = choose_gguf(["m-F16.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m.gguf", "imatrix.gguf"])
    assert files == ("m-Q4_K_M.gguf",)
    assert "one of 3" in skips[0].why
    assert choose_gguf(["b.gguf", "a.gguf"])[0] == ("a.gguf",)
    assert choose_gguf(["vocab.gguf"]) == ((), ())


def test_a_split_file_is_read_whole_and_lost_parts_are_named() -> None:
    files, skips = choose_gguf(["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"])
    assert len(files) == 2
    assert "1 of 3 parts" in skips[0].what


def test_safetensors_go_before_gguf() -> None:
    def nothing(_path: str, _limit: int) -> bytes:
        raise AssertionError

    layout = find_layout(listed("m.gguf", "model.safetensors"), nothing)
    assert [entry.path for entry in layout.files] == ["model.safetensors"]
    assert find_layout(listed("m.gguf", "model.onnx"), nothing).files[0].path == "m.gguf"
