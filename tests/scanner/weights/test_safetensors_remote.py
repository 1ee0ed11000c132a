"""Checkpoints on a Hub: the same tables and bytes as in the folder they were published from, read by ranges."""

import json
import os
import shutil
from pathlib import Path

import pico
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from localhub.blobs import Declared
from localhub.faults import FOR_EVER, Drop, IgnoreRange, ShortRange, Status, Truncate, WrongRange
from localhub.server import LocalHub
from lyingheaders import honest_file, lies, pack
from quickhub import pinned, quick_hub
from safetensors.torch import save, save_file
from weightfolders import facts_of, official_bytes, read_all, whole_tensors

from scanner.errors import CorruptWeights, CouldNotConclude, FileTooLarge, HubUnreachable, NothingToCompare
from scanner.facts import collect
from scanner.records import FileEntry, RepoFacts, RepoRef
from scanner.weights.header import FIRST_READ_BYTES
from scanner.weights.layout import Layout
from scanner.weights.opening import open_source
from scanner.weights.ranges import AHEAD_BYTES
from scanner.weights.safetensors import MAX_BLOCK_BYTES, RemoteSafetensors
from scanner.weights.source import BlockRequest, WeightSource


def remote(server: LocalHub, repo_id: str = "org/model") -> WeightSource:
    hub = quick_hub(server)
    return open_source(collect(pinned(hub, repo_id), hub), hub)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model in several shards, with an empty tensor in front, between and behind."""
    folder = tmp_path_factory.mktemp("sharded")
    pico.make_base().save_pretrained(folder, max_shard_size=60_000)
    index_file = folder / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    empties = {"a.empty": torch.zeros(0, 8), "m.empty": torch.zeros(8, 0), "z.empty": torch.zeros(0)}
    save_file(empties, folder / "model-99999-of-99999.safetensors")
    index["weight_map"] |= dict.fromkeys(empties, "model-99999-of-99999.safetensors")
    index_file.write_text(json.dumps(index))
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


def test_a_repository_reads_as_the_folder_it_came_from(hub_server: LocalHub, sharded: Path) -> None:
    hub_server.add_repo("org/model", folder=sharded)
    with open_source(facts_of(sharded), None) as local, remote(hub_server) as source:
        assert dict(source.table) == dict(local.table)
        assert source.skips == local.skips == ()
        assert source.bytes_total == local.bytes_total
        assert source.remote
        found = read_all(source)
        assert found == read_all(local) == official_bytes(*sharded.glob("*.safetensors"))
        assert source.bytes_read == local.bytes_read == sum(map(len, found.values()))


def test_reading_costs_few_requests_and_only_ranges(hub_server: LocalHub, sharded: Path) -> None:
    hub_server.add_repo("org/model", folder=sharded)
    shards = len(list(sharded.glob("*.safetensors")))
    with remote(hub_server) as source:
        opening = source.requests
        assert opening == shards
        read_all(source)
        assert source.requests <= opening + shards
        assert source.requests == len(hub_server.log.matching("-of-", method="GET", ranged=True))
        assert not hub_server.log.matching("-of-", method="GET", ranged=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data())
def test_any_blocks_equal_those_of_the_folder(hub_server: LocalHub, sharded: Path, choices: st.DataObject) -> None:
    hub_server.add_repo("org/model", folder=sharded)
    with open_source(facts_of(sharded), None) as local, remote(hub_server) as source:
        requests = []
        for _ in range(choices.draw(st.integers(0, 12))):
            name = choices.draw(st.sampled_from(list(local.table)))
            rows, cols = local.table[name].rows_cols
            first = choices.draw(st.integers(0, rows))
            last = choices.draw(st.integers(first, rows))
            columns = (cols // 3, cols) if last - first == 1 and choices.draw(st.booleans()) else None
            requests.append(BlockRequest(name=name, rows=(first, last), columns=columns))
        pairs = list(zip(source.stream(iter(requests)), local.stream(requests), strict=True))
        assert len(pairs) == len(requests)
        for (far, near), request in zip(pairs, requests, strict=True):
            assert (far.name, far.rows, far.columns) == (request.name, request.rows, request.columns)
            assert far.dtype == near.dtype
            assert far.values.dtype == near.values.dtype
            assert far.values.shape == near.values.shape
            assert far.values.tobytes() == near.values.tobytes()


def test_only_the_rows_asked_for_travel(hub_server: LocalHub) -> None:
    tensor = torch.arange(4_000_000, dtype=torch.float32).reshape(4000, 1000)
    hub_server.add_repo("org/model", {"model.safetensors": save({"x": tensor})})
    with remote(hub_server) as source:
        hub_server.log.clear()
        blocks = source.stream(BlockRequest(name="x", rows=(at, at + 2)) for at in (0, 1000, 3998))
        assert [block.values[1, 0] for block in blocks] == [1000.0, 1_001_000.0, 3_999_000.0]
        sent = sum(record.sent for record in hub_server.log.matching("model.safetensors", method="GET"))
        assert sent == source.bytes_read == 3 * 2 * 1000 * 4


def test_a_header_longer_than_the_first_read_takes_a_second_one(hub_server: LocalHub) -> None:
    tensors = {f"model.layers.{i}.self_attn.q_proj.weight": torch.full((2,), float(i)) for i in range(3000)}
    whole = save(tensors)
    assert int.from_bytes(whole[:8], "little") > 2 * FIRST_READ_BYTES
    hub_server.add_repo("org/model", {"model.safetensors": whole})
    with remote(hub_server) as source:
        assert source.requests == 2
        assert set(source.table) == set(tensors)
        assert read_all(source) == {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_misaligned_tensors_come_aligned(hub_server: LocalHub) -> None:
    declared = {
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "odd": {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]},
    }
    truth = torch.tensor([1.25, float("-inf")], dtype=torch.float64).numpy()
    hub_server.add_repo("org/model", {"model.safetensors": pack(json.dumps(declared), b"\1" + truth.tobytes())})
    with remote(hub_server) as source:
        _, odd = source.stream(whole_tensors(source))
        assert odd.values.flags.aligned
        assert odd.values.tolist() == [truth.tolist()]


LIES = dict(lies())


@pytest.mark.parametrize(
    "lie",
    [
        "cut after 0 bytes",
        "cut after 7 bytes",
        "one byte more",
        "length 18446744073709551615",
        "length 100000000",
        "a hole",
        "name twice",
        "git lfs pointer",
        "embeddings.weight at [96, 0]",
        "scalar at [0, 8]",
        "deep objects",
    ],
)
def test_lies_are_refused_over_the_network_too(hub_server: LocalHub, lie: str) -> None:
    hub_server.add_repo("org/model", {"model.safetensors": LIES[lie]})
    with pytest.raises(CorruptWeights, match=r"'model\.safetensors'"):
        remote(hub_server)


def test_one_lying_shard_among_many_is_named(hub_server: LocalHub, sharded: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sharded, tmp_path / "copy")
    victim = sorted(folder.glob("*.safetensors"))[1]
    victim.write_bytes(victim.read_bytes()[:-3])
    hub_server.add_repo("org/model", folder=folder)
    with pytest.raises(CorruptWeights, match=victim.name):
        remote(hub_server)


def test_a_missing_shard_leaves_the_rest_readable(hub_server: LocalHub, sharded: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sharded, tmp_path / "copy")
    shards = sorted(folder.glob("*.safetensors"))
    shards[0].unlink()
    hub_server.add_repo("org/model", folder=folder)
    with remote(hub_server) as source:
        assert read_all(source) == official_bytes(*shards[1:])
        assert [skip.what for skip in source.skips] == [shards[0].name]
        assert "lost with it" in source.skips[0].why


def test_a_repository_without_weights(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/model", {"README.md": "# nothing here"})
    with pytest.raises(NothingToCompare, match="org/model"):
        remote(hub_server)


def test_an_index_beyond_all_measure_is_not_read(hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered here: the true one would cost 64 MiB of traffic."""
    monkeypatch.setattr("scanner.weights.layout.MAX_INDEX_BYTES", 1000)
    index = {"metadata": {}, "weight_map": {f"layer.{i}": "a.safetensors" for i in range(100)}}
    files = {"model.safetensors.index.json": json.dumps(index), "a.safetensors": honest_file()}
    hub_server.add_repo("org/model", files)
    with pytest.raises(FileTooLarge, match="index"):
        remote(hub_server)


@pytest.mark.parametrize("fault", [Status(code=503), Drop(), Truncate(after_bytes=10), WrongRange(), IgnoreRange()])
def test_passing_faults_change_nothing(hub_server: LocalHub, sharded: Path, fault: object) -> None:
    hub_server.add_repo("org/model", folder=sharded)
    hub_server.faults.add(fault, path=".safetensors", times=2)
    with remote(hub_server) as source:
        hub_server.faults.add(fault, path=".safetensors", times=2)
        assert read_all(source) == official_bytes(*sharded.glob("*.safetensors"))


@pytest.mark.parametrize("fault", [Status(code=503), Truncate(after_bytes=10), IgnoreRange(), ShortRange()])
def test_lasting_faults_end_in_an_error_and_earlier_blocks_stay_valid(hub_server: LocalHub, fault: object) -> None:
    tensors = {f"t{i}": torch.full((512, 1024), float(i)) for i in range(3)}
    hub_server.add_repo("org/model", {f"{name}.safetensors": save({name: value}) for name, value in tensors.items()})
    weight_map = {name: f"{name}.safetensors" for name in tensors}
    hub_server.commit(
        "org/model", {"model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map})}
    )
    with remote(hub_server) as source:
        hub_server.faults.add(fault, path="t1.safetensors", times=FOR_EVER)
        blocks = []
        with pytest.raises(HubUnreachable):
            blocks.extend(source.stream(whole_tensors(source)))
        assert [block.name for block in blocks] in ([], ["t0"])
        for block in source.stream([BlockRequest(name="t2", rows=(0, 512))]):
            assert (block.values == 2.0).all()


def test_stopping_early_stops_the_requests(hub_server: LocalHub) -> None:
    """More than is read ahead: however fast the rest arrives, some of it was never asked for."""
    rows = (AHEAD_BYTES + (64 << 20)) // 1024
    hub_server.add_repo("org/model", {"model.safetensors": save({"x": torch.zeros(rows, 256)})})
    with remote(hub_server) as source:
        blocks = source.stream(BlockRequest(name="x", rows=(at, at + 64)) for at in range(0, rows, 64))
        first = next(blocks)
        blocks.close()
        made = source.requests
        assert first.values.shape == (64, 256)
        assert made < 2 + rows * 1024 // (8 << 20)
    assert source.requests == made


def test_a_source_left_with_a_stream_open_ends_it(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/model", {"model.safetensors": save({"x": torch.zeros(1000, 256)})})
    with remote(hub_server) as source:
        blocks = source.stream(BlockRequest(name="x", rows=(at, at + 1)) for at in range(1000))
        next(blocks)
        before = source.requests
    assert source.requests == before


def test_a_vector_larger_than_memory_is_read_by_columns_and_never_whole(hub_server: LocalHub, tmp_path: Path) -> None:
    count = MAX_BLOCK_BYTES // 4 + 1
    header = json.dumps({"x": {"dtype": "F32", "shape": [count], "data_offsets": [0, count * 4]}})
    file = tmp_path / "model.safetensors"
    file.write_bytes(pack(header, b""))
    os.truncate(file, 8 + len(header) + count * 4)  # a hole: no disk
    hub_server.add_repo("org/model", {"model.safetensors": Declared(file=file, sha256="0" * 64)})
    with remote(hub_server) as source:
        with pytest.raises(CouldNotConclude, match="fewer rows or columns"):
            list(source.stream(whole_tensors(source)))
        (block,) = source.stream([BlockRequest(name="x", rows=(0, 1), columns=(count - 1000, count))])
        assert block.values.shape == (1, 1000)


def test_a_size_that_the_listing_gets_wrong_is_refused(hub_server: LocalHub) -> None:
    whole = save({"x": torch.zeros(40_000)})
    hub_server.add_repo("org/model", {"model.safetensors": whole})
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/model")
    for claimed in (len(whole) - 1, len(whole) + 1, 0, 10 * len(whole)):
        entry = FileEntry(path="model.safetensors", size_bytes=claimed)
        with pytest.raises(CorruptWeights, match="is listed with"):
            RemoteSafetensors(ref, Layout(files=(entry,), shard_of={}, skips=()), hub)


def test_a_hub_repository_needs_a_hub() -> None:
    ref = RepoRef(repo_id="org/model", revision="a" * 40)
    with pytest.raises(ValueError, match="without a Hub"):
        open_source(RepoFacts(ref=ref, files=()), None)
