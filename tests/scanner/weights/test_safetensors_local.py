"""Checkpoints in folders: the same bytes as the official library reads, at a flat memory footprint."""

import json
import mmap
import os
from pathlib import Path

import numpy as np
import pico
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lyingheaders import honest_file, pack
from safetensors.torch import save, save_file
from weightfolders import expected_block, facts_of, official_bytes, read_all, whole_tensors

from scanner.errors import CorruptWeights, CouldNotConclude
from scanner.records import FileEntry, RepoRef
from scanner.weights.layout import Layout
from scanner.weights.mapping import KEPT_BYTES, MappedFile
from scanner.weights.opening import open_source
from scanner.weights.safetensors import MAPPED_FILES, LocalSafetensors
from scanner.weights.source import BlockRequest, WeightSource

MIB = 1 << 20


def opened(folder: Path) -> WeightSource:
    return open_source(facts_of(folder), None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file with every shape that a tensor can have."""
    folder = tmp_path_factory.mktemp("mixed")
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    tensors = {
        "matrix": numbers(37, 11),
        "half": numbers(37, 11).half(),
        "brain": numbers(9, 130).bfloat16(),
        "eight": numbers(5, 7).to(torch.float8_e4m3fn),
        "double": numbers(4, 3).double(),
        "vector": numbers(1001),
        "scalar": torch.tensor(2.5),
        "conv": numbers(6, 3, 2, 2),
        "special": special,
        "special half": special.half(),
        "no rows": torch.zeros(0, 8),
        "no columns": torch.zeros(8, 0),
        "ids": torch.arange(77),
        "mask": torch.tensor([True, False, True]),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_every_tensor_is_read_bit_by_bit(mixed: Path) -> None:
    with opened(mixed) as source:
        assert read_all(source) == official_bytes(mixed / "model.safetensors")
        assert source.bytes_read == sum(meta.end - meta.start for meta in source.table.values())
        assert source.bytes_total == (mixed / "model.safetensors").stat().st_size
        assert source.skips == ()
        assert not source.remote
        assert source.requests == 0


@settings(max_examples=150, deadline=None)
@given(choices=st.data())
def test_any_rows_and_columns_are_those_of_the_tensor(mixed: Path, choices: st.DataObject) -> None:
    truth = official_bytes(mixed / "model.safetensors")
    with opened(mixed) as source:
        requests = []
        for _ in range(choices.draw(st.integers(1, 8))):
            name = choices.draw(st.sampled_from(list(source.table)))
            rows, cols = source.table[name].rows_cols
            first = choices.draw(st.integers(0, rows))
            last = choices.draw(st.integers(first, rows))
            columns = None
            if last - first <= 1 and choices.draw(st.booleans()):
                left = choices.draw(st.integers(0, cols))
                columns = (left, choices.draw(st.integers(left, cols)))
            requests.append(BlockRequest(name=name, rows=(first, last), columns=columns))
        blocks = list(source.stream(iter(requests)))
        for request, block in zip(requests, blocks, strict=True):
            assert (block.name, block.rows, block.columns) == (request.name, request.rows, request.columns)
            expected = expected_block(source, truth[request.name], request)
            assert block.values.dtype == expected.dtype
            assert block.values.shape == expected.shape
            assert block.values.tobytes() == expected.tobytes()


def test_blocks_are_views_that_cannot_be_written_to(mixed: Path) -> None:
    with opened(mixed) as source:
        (block,) = source.stream([BlockRequest(name="matrix", rows=(3, 9))])
        assert block.values.base is not None
        assert not block.values.flags.writeable


def test_the_shards_that_transformers_writes_make_one_table(tmp_path: Path) -> None:
    model = pico.make_base()
    model.save_pretrained(tmp_path, max_shard_size=20_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > MAPPED_FILES
    with opened(tmp_path) as source:
        assert source.skips == ()
        assert set(source.table) == set(model.state_dict())
        assert read_all(source) == official_bytes(*shards)
        backwards = whole_tensors(source)[::-1]
        assert read_all(source, backwards) == official_bytes(*shards)
        assert source.bytes_total == sum(shard.stat().st_size for shard in shards)


def test_a_missing_shard_leaves_the_rest_readable(tmp_path: Path) -> None:
    pico.make_base().save_pretrained(tmp_path, max_shard_size=20_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[1].unlink()
    with opened(tmp_path) as source:
        assert read_all(source) == official_bytes(shards[0], *shards[2:])
        assert [skip.what for skip in source.skips] == [shards[1].name]


def test_a_tensor_missing_from_its_shard_is_a_skip(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "a.safetensors")
    index = {"metadata": {}, "weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with opened(tmp_path) as source:
        assert list(source.table) == ["x"]
        assert [(skip.what, skip.why) for skip in source.skips] == [("'y'", "the index names it, but no file holds it")]


def test_misaligned_tensors_are_read(tmp_path: Path) -> None:
    """Other writers neither pad the header nor order tensors by width."""
    declared = {
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "odd": {"dtype": "F32", "shape": [2, 2], "data_offsets": [1, 17]},
    }
    truth = np.array([[1.5, -2.0], [np.inf, 0.25]], dtype=np.float32)
    whole = pack(json.dumps(declared), b"\1" + truth.tobytes())
    (tmp_path / "model.safetensors").write_bytes(whole)
    with opened(tmp_path) as source:
        flag, odd = source.stream(whole_tensors(source))
        assert flag.values.tolist() == [[1]]
        assert odd.values.flags.aligned
        np.testing.assert_array_equal(odd.values, truth)


def test_a_block_outlives_its_source(tmp_path: Path) -> None:
    tensor = torch.arange(1000, dtype=torch.float32).reshape(10, 100)
    save_file({"x": tensor}, tmp_path / "model.safetensors")
    with opened(tmp_path) as source:
        (block,) = source.stream(whole_tensors(source))
    del source
    np.testing.assert_array_equal(block.values, tensor.numpy())


def test_links_into_a_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1234").write_bytes(save({"x": torch.ones(3)}))
    (snapshot / "model.safetensors").symlink_to(blobs / "1234")
    with opened(snapshot) as source:
        assert read_all(source) == {"x": np.ones(3, np.float32).tobytes()}


def test_ten_thousand_small_tensors(tmp_path: Path) -> None:
    tensors = {f"layers.{i}.weight": torch.full((1, 2), float(i)) for i in range(10_000)}
    save_file(tensors, tmp_path / "model.safetensors")
    with opened(tmp_path) as source:
        assert len(source.table) == 10_000
        for block in source.stream(whole_tensors(source)):
            assert block.values[0, 1] == float(block.name.split(".")[1])


def test_a_file_that_changes_between_header_and_tensors_is_refused(tmp_path: Path) -> None:
    """Reading a mapping past the end of a file would kill the process."""
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(100, 100)}, file)
    with opened(tmp_path) as source:
        os.truncate(file, 200)
        with pytest.raises(CorruptWeights, match="changed while it was read"):
            list(source.stream(whole_tensors(source)))


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(4)}, file)
    with opened(tmp_path) as source:
        file.unlink()
        with pytest.raises(CouldNotConclude, match=r"'model\.safetensors' cannot be read"):
            list(source.stream(whole_tensors(source)))


def test_a_pipe_in_place_of_weights_does_not_block(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4)}, tmp_path / "model.safetensors")
    facts = facts_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CouldNotConclude, match="no regular file"):
        open_source(facts, None)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs the process file system of Linux")
def test_a_file_that_cannot_be_read_is_named() -> None:
    """/proc/self/mem is a regular file whose first page is not readable."""
    layout = Layout(files=(FileEntry(path="mem", size_bytes=0),), shard_of={}, skips=())
    with pytest.raises(CouldNotConclude, match=r"'mem' cannot be read: Input/output error"):
        LocalSafetensors(RepoRef(path="/proc/self"), layout)


@pytest.mark.skipif(not Path("/sys/kernel/uevent_seqnum").exists(), reason="needs the system file system of Linux")
def test_a_file_that_cannot_be_mapped_is_named() -> None:
    file = Path("/sys/kernel/uevent_seqnum")
    with pytest.raises(CouldNotConclude, match="cannot be read: No such device"):
        MappedFile(file.parent, file.name, file.stat().st_size)


def test_a_system_without_such_hints_reads_the_same(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hint in ("MADV_SEQUENTIAL", "MADV_DONTNEED"):
        monkeypatch.delattr(mmap, hint)
    with opened(mixed) as source:
        assert read_all(source) == official_bytes(mixed / "model.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(honest_file()[:-1])
    with pytest.raises(CorruptWeights, match="cut short"):
        opened(tmp_path)


def test_an_unknown_tensor_is_a_key_error(mixed: Path) -> None:
    with opened(mixed) as source, pytest.raises(KeyError, match="nothing"):
        list(source.stream([BlockRequest(name="nothing", rows=(0, 1))]))


def grown_while_reading(blocks, process: psutil.Process) -> int:
    """Largest growth of the resident size while every byte of every block is touched."""
    before = process.memory_info().rss
    largest = 0
    for values in blocks:
        assert not values.any()
        largest = max(largest, process.memory_info().rss - before)
    return largest


def test_memory_stays_flat_over_a_large_file(tmp_path: Path) -> None:
    """300 MiB read in panels of 8 MiB; the same file through a plain mapping shows that growth would be seen."""
    rows, cols, panel = 76_800, 1024, 2048
    declared = {"x": {"dtype": "F32", "shape": [rows, cols], "data_offsets": [0, rows * cols * 4]}}
    file = tmp_path / "model.safetensors"
    file.write_bytes(pack(json.dumps(declared).ljust(120), b""))
    os.truncate(file, 128 + rows * cols * 4)  # a hole in the file: no disk, but pages all the same
    process = psutil.Process()
    with opened(tmp_path) as source:
        requests = (BlockRequest(name="x", rows=(at, min(at + panel, rows))) for at in range(0, rows, panel))
        grown = grown_while_reading((block.values for block in source.stream(requests)), process)
        assert source.bytes_read == rows * cols * 4
    assert grown < KEPT_BYTES + 48 * MIB

    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as plain:
        whole = np.frombuffer(plain, np.float32, offset=128)
        control = grown_while_reading(np.array_split(whole, 40), process)
        del whole
    assert control > 250 * MIB
