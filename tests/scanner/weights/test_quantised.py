"""Quantised layers of safetensors checkpoints, against the libraries that write them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import quantised_checkpoints as made_by
import torch
from localhub.server import LocalHub
from quantised_checkpoints import Expected, Stored
from quickhub import pinned, quick_hub
from safetensors.torch import save_file
from weightfolders import facts_of

from scanner.facts import collect
from scanner.weights.gptq import unpack
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest, WeightSource

TORCH = torch.Generator().manual_seed(0)
WEIGHTS = {
    "a.weight": torch.randn(96, 128, generator=TORCH) * 0.02,
    "b.weight": torch.randn(64, 256, generator=TORCH) * 0.05,
}
TILES = {name: torch.randn(256, 384, generator=TORCH) * 0.02 for name in ("a.weight", "b.weight")}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
EIGHT = {"num_bits": 8, "strategy": "channel", "symmetric": True}

CASES: dict[str, Callable[[], tuple[Stored, Expected]]] = {
    "nf4": lambda: made_by.four_bit(WEIGHTS),
    "nf4 with plain scales": lambda: made_by.four_bit(WEIGHTS, nested=False),
    "fp4": lambda: made_by.four_bit(WEIGHTS, "fp4"),
    "int8 of bitsandbytes": lambda: made_by.eight_bit(WEIGHTS),
    "fp8 in blocks": lambda: made_by.fine_grained_fp8(TILES, (128, 128)),
    "gptq 2": lambda: made_by.gptq(WEIGHTS, 2),
    "gptq 3": lambda: made_by.gptq(WEIGHTS, 3),
    "gptq 4 sorted by activation": lambda: made_by.gptq(WEIGHTS, 4, shuffled=True),
    "gptq 8": lambda: made_by.gptq(WEIGHTS, 8),
    "awq": lambda: made_by.awq(WEIGHTS),
    "compressed int4": lambda: made_by.compressed(WEIGHTS, "pack-quantized", **INT4, symmetric=True),
    "compressed int4 with zero points": lambda: made_by.compressed(WEIGHTS, "pack-quantized", **INT4, symmetric=False),
    "compressed int8": lambda: made_by.compressed(WEIGHTS, "int-quantized", type="int", **EIGHT),
    "compressed fp8": lambda: made_by.compressed(WEIGHTS, "float-quantized", type="float", **EIGHT),
    "compressed fp8 by tensor": lambda: made_by.compressed(
        WEIGHTS, "float-quantized", type="float", num_bits=8, strategy="tensor", symmetric=True
    ),
}


def write(folder: Path, stored: Stored) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
    return folder


def read(source: WeightSource, name: str, cuts: tuple[int, ...] = (0, 7, 31)) -> tuple[np.ndarray, np.ndarray]:
    """Values and reach of a tensor, read in three blocks."""
    ends = (*cuts, source.table[name].shape[0])
    wanted = [BlockRequest(name=name, rows=rows) for rows in pairwise(ends)]
    values, reach = [], []
    for block in source.stream(wanted):
        assert block.coding is not None
        values.append(block.values.copy())
        reach.append(block.coding.reach())
    return np.concatenate(values), np.concatenate(reach)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_what_its_library_makes_of_it(tmp_path: Path, case: str) -> None:
    stored, expected = CASES[case]()
    sources = TILES if case == "fp8 in blocks" else WEIGHTS
    with open_source(facts_of(write(tmp_path, stored)), None) as source:
        assert set(source.table) == set(sources)
        assert not source.skips
        for name, official in expected.items():
            values, reach = read(source, name)
            half_precision = 2e-3 * float(np.abs(official).max()) if case.startswith(("nf4", "fp4")) else 1e-6
            assert values == pytest.approx(official, abs=half_precision)
            assert source.table[name].scheme
            error = values - sources[name].numpy()
            ratio = np.square(error).sum() / (np.square(reach, dtype=np.float64).sum() / 3)
            assert 0.7 < ratio < 1.15
            assert np.quantile(np.abs(error) / reach, 0.999) < 1.2


def test_the_second_version_of_gptq_stores_its_zero_points_as_they_are(tmp_path: Path) -> None:
    stored, expected = made_by.gptq(WEIGHTS, version=2)
    write(tmp_path, stored)
    (tmp_path / "config.json").write_text('{"quantization_config": {"checkpoint_format": "gptq_v2"}}')
    with open_source(facts_of(tmp_path), None) as source:
        assert read(source, "a.weight")[0] == pytest.approx(expected["a.weight"], abs=1e-6)


def test_other_tensors_are_passed_on(tmp_path: Path) -> None:
    stored, _ = made_by.gptq({"a.weight": WEIGHTS["a.weight"]})
    norm = torch.arange(16.0)
    with open_source(facts_of(write(tmp_path, stored | {"norm.weight": norm, "a.bias": -norm})), None) as source:
        assert set(source.table) == {"a.weight", "norm.weight", "a.bias"}
        (block,) = source.stream([BlockRequest(name="norm.weight", rows=(0, 1))])
        assert block.coding is None
        assert (block.values[0] == norm.numpy()).all()


def test_a_plain_checkpoint_is_left_alone(tmp_path: Path) -> None:
    from scanner.weights.safetensors import LocalSafetensors

    with open_source(facts_of(write(tmp_path, {"a.weight": WEIGHTS["a.weight"]})), None) as source:
        assert type(source) is LocalSafetensors


def test_a_repository_gives_what_the_folder_gives(tmp_path: Path, hub_server: LocalHub) -> None:
    write(tmp_path, made_by.four_bit(WEIGHTS)[0])
    hub_server.add_repo("org/model", folder=tmp_path)
    hub = quick_hub(hub_server)
    with (
        open_source(collect(pinned(hub, "org/model"), hub), hub) as there,
        open_source(facts_of(tmp_path), None) as here,
    ):
        for name in WEIGHTS:
            assert (read(there, name)[0] == read(here, name)[0]).all()


def without(stored: Stored, ending: str) -> Stored:
    return {name: tensor for name, tensor in stored.items() if not name.endswith(ending)}


def replaced(stored: Stored, name: str, tensor: torch.Tensor) -> Stored:
    assert name in stored
    return stored | {name: tensor.clone()}


NF4 = made_by.four_bit(WEIGHTS)[0]
GPTQ = made_by.gptq(WEIGHTS)[0]
PACKED = made_by.compressed(WEIGHTS, "pack-quantized", **INT4, symmetric=True)[0]
LIES = {
    "no scales": without(GPTQ, "a.scales"),
    "no zero points": without(GPTQ, "a.qzeros"),
    "scales of another width": replaced(GPTQ, "a.scales", GPTQ["b.scales"]),
    "an index of another length": replaced(GPTQ, "a.g_idx", GPTQ["b.g_idx"]),
    "a shape of another size": made_by.state_with(NF4, "a.weight", shape=[96, 127]),
    "a shape of a petabyte": made_by.state_with(NF4, "a.weight", shape=[1 << 39, 1 << 39]),
    "a shape that is none": made_by.state_with(NF4, "a.weight", shape="96x128"),
    "blocks of nothing": made_by.state_with(NF4, "a.weight", blocksize=0),
    "an endless offset": made_by.state_with(NF4, "a.weight", nested_offset=float("inf")),
    "a state that is no JSON": replaced(
        NF4, "a.weight.quant_state.bitsandbytes__nf4", torch.tensor([1, 2, 3], dtype=torch.uint8)
    ),
    "another code book": replaced(NF4, "a.weight.quant_map", NF4["a.weight.quant_map"] * 1.01),
    "too few scales": replaced(NF4, "a.weight.absmax", NF4["a.weight.absmax"][:-1].clone()),
    "no shape": without(PACKED, "a.weight_shape"),
    "a false shape": replaced(PACKED, "a.weight_shape", torch.tensor([96, 1 << 40])),
    "a negative shape": replaced(PACKED, "a.weight_shape", torch.tensor([96, -128])),
}


@pytest.mark.parametrize("stored", LIES.values(), ids=LIES.keys())
def test_a_layer_that_contradicts_itself_is_a_skip_and_the_rest_is_read(tmp_path: Path, stored: Stored) -> None:
    with open_source(facts_of(write(tmp_path, stored)), None) as source:
        assert set(source.table) == {"b.weight"}
        assert len(source.skips) == 1
        assert np.isfinite(read(source, "b.weight")[0]).all()


def test_scales_that_are_not_finite_are_handed_on(tmp_path: Path) -> None:
    scales = GPTQ["a.scales"].clone()
    scales[0, 0] = float("nan")
    with open_source(facts_of(write(tmp_path, replaced(GPTQ, "a.scales", scales))), None) as source:
        values, _ = read(source, "a.weight")
        assert np.isnan(values[0]).any()
        assert np.isfinite(values[1:]).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_words_are_cut_from_their_lowest_bit_on(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 32)).astype(np.uint8)
    assert (unpack(made_by._pack(codes, bits), bits, 32) == codes).all()


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_four_bit_floats_follow_their_published_layout(tmp_path: Path, form: str) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (8, 64))
    book = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    numbers = np.where(codes < 8, 1, -1) * book[codes % 8]
    packed = torch.from_numpy((codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8))
    stored = {"a.weight_packed": packed}
    if form == "nvfp4":
        scales = torch.from_numpy(random.uniform(1, 400, (8, 4))).to(torch.float8_e4m3fn)
        stored |= {"a.weight_scale": scales, "a.weight_global_scale": torch.tensor([1000.0])}
        expected = numbers * np.repeat(scales.float().numpy() / 1000, 16, axis=1)
    else:
        exponents = random.integers(118, 124, (8, 2)).astype(np.uint8)
        stored |= {"a.weight_scale": torch.from_numpy(exponents)}
        expected = numbers * np.repeat(2.0 ** (exponents.astype(int) - 127), 32, axis=1)
    with open_source(facts_of(write(tmp_path, stored)), None) as source:
        assert set(source.table) == {"a.weight"}
        values, reach = read(source, "a.weight", (0, 3, 5))
        assert values == pytest.approx(expected, rel=1e-6)
        assert reach[numbers == 6].min() > reach[np.abs(numbers) < 1].min()
