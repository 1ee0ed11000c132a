"""PyTorch checkpoints: the same bytes as torch loads, nothing run, and every lie told."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from localhub.server import LocalHub
from weightfolders import facts_of, read_all

from scanner.errors import CorruptWeights, CouldNotConclude, UnsafeWeights
from scanner.facts import collect
from scanner.hub import Hub
from scanner.refs import parse_spec
from scanner.weights.opening import open_source

NAME = "pytorch_model.bin"


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    whole = torch.randn(12, 7)
    return {
        "a.weight": torch.randn(5, 3),
        "b.weight": torch.randn(300, 40).bfloat16(),
        "c.weight": torch.randn(2, 3, 4).half(),
        "d.part": whole[3:9],
        "d.whole": whole,
        "tied": whole,
        "ids": torch.arange(9),
        "scalar": torch.tensor(2.5),
        "e.weight": torch.randn(6, 4).to(torch.float8_e4m3fn),
    }


def raw_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {
        name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()
    }


def saved(tensors: object, folder: Path, name: str = NAME, **options) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / name, **options)
    return folder


def test_reads_the_bytes_that_torch_loads(tmp_path):
    folder = saved(state(), tmp_path / "m")
    with open_source(facts_of(folder), None) as source:
        assert read_all(source) == raw_bytes(torch.load(folder / NAME, weights_only=True, mmap=True))  # noqa: TID251
        assert not source.skips


@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "adapter_model.bin", "other.bin"])
def test_reads_the_only_checkpoint_there_is(name, tmp_path):
    with open_source(facts_of(saved(state(), tmp_path / "m", name)), None) as source:
        assert read_all(source) == raw_bytes(state())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_reads_weights_one_level_down(key, tmp_path):
    folder = saved({key: state(), "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "m")
    with open_source(facts_of(folder), None) as source:
        assert read_all(source) == raw_bytes(state())


def test_reads_shards_by_their_index_and_safetensors_first(tmp_path):
    one, two = dict(list(state().items())[:2]), dict(list(state(1).items())[2:4])
    folder = saved(one, tmp_path / "m", "pytorch_model-00001-of-00002.bin")
    saved(two, folder, "pytorch_model-00002-of-00002.bin")
    index = dict.fromkeys(one, "pytorch_model-00001-of-00002.bin")
    index |= dict.fromkeys(two, "pytorch_model-00002-of-00002.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with open_source(facts_of(folder), None) as source:
        assert read_all(source) == raw_bytes({**one, **two})


def test_reads_from_the_hub_by_ranges(tmp_path, hub_server: LocalHub):
    big = {f"layers.{i}.weight": torch.randn(400, 300) for i in range(12)}
    hub_server.add_repo("org/pickled", folder=saved(big, tmp_path / "m"))
    hub = Hub(hub_server.endpoint)
    facts = collect(hub.resolve(parse_spec("org/pickled", endpoint=hub.endpoint)), hub)
    with open_source(facts, hub) as source:
        assert hub.bytes_received < 2_500_000
        assert source.requests < 16
        assert read_all(source) == raw_bytes(big)


class Evil:
    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self):
        return os.mkdir, (str(self.where),)


def test_what_imports_anything_is_refused_and_not_run(tmp_path):
    target = tmp_path / "was-run"
    folder = saved({**state(), "evil": Evil(target)}, tmp_path / "m")
    with pytest.raises(UnsafeWeights, match="mkdir"):
        open_source(facts_of(folder), None)
    assert not target.exists()


def test_a_plain_pickle_of_old_is_refused(tmp_path):
    folder = saved(state(), tmp_path / "m", _use_new_zipfile_serialization=False)
    with pytest.raises(CouldNotConclude, match=r"before PyTorch 1\.6"):
        open_source(facts_of(folder), None)


def test_what_cannot_be_read_in_place_is_an_unread_skip(tmp_path):
    tensors = {"a": torch.randn(4, 4), "t": torch.randn(3, 5).T, "s": torch.eye(3).to_sparse(), "n": 3}
    with open_source(facts_of(saved(tensors, tmp_path / "m")), None) as source:
        assert set(source.table) == {"a"}
        assert {skip.what.split(" in ")[0] for skip in source.skips if skip.unread} == {"'t'", "'s'"}


def rewritten(folder: Path, change) -> Path:
    """The archive with its members passed through ``change(name, bytes) -> (bytes, compression)``."""
    with zipfile.ZipFile(folder / NAME) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(folder / NAME, "w") as new:
        for name, raw in members:
            done = change(name, raw)
            if done is not None:
                new.writestr(name, done[0], done[1])
    return folder


STORED = zipfile.ZIP_STORED


@pytest.mark.parametrize(
    "change",
    [
        lambda name, raw: (raw, zipfile.ZIP_DEFLATED),
        lambda name, raw: (raw[: len(raw) // 2], STORED) if "/data/" in name else (raw, STORED),
        lambda name, raw: (raw[:40], STORED) if name.endswith("data.pkl") else (raw, STORED),
        lambda name, raw: None if name.endswith("data.pkl") else (raw, STORED),
        lambda name, raw: None if name.endswith("/data/1") else (raw, STORED),
        lambda name, raw: (b"\x80\x02" + os.urandom(200), STORED) if name.endswith("data.pkl") else (raw, STORED),
        lambda name, raw: (b"big", STORED) if name.endswith("byteorder") else (raw, STORED),
    ],
)
def test_an_archive_that_contradicts_itself_is_refused(change, tmp_path):
    folder = rewritten(saved(state(), tmp_path / "m"), change)
    with pytest.raises(CouldNotConclude):
        open_source(facts_of(folder), None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: b"",
        lambda raw: b"PK\x03\x04" + raw,
        lambda raw: raw[:22] + b"\xff" * 8 + raw[30:],
        lambda raw: raw.replace(b"PK\x03\x04", b"PK\x03\x05"),
        lambda raw: b"version https://git-lfs.github.com/spec/v1\n",
        lambda raw: np.random.default_rng(0).bytes(500),
    ],
)
def test_a_spoilt_file_is_refused(spoil, tmp_path):
    folder = saved(state(), tmp_path / "m")
    (folder / NAME).write_bytes(spoil((folder / NAME).read_bytes()))
    with pytest.raises(CouldNotConclude):
        open_source(facts_of(folder), None)


def test_random_damage_ends_with_a_sentence_or_the_same_bytes(tmp_path):
    folder = saved({"a.weight": torch.randn(5, 3), "b": torch.randn(4)}, tmp_path / "m")
    whole = (folder / NAME).read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(300):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), 3):
            raw[at] = rng.integers(256)
        (folder / NAME).write_bytes(raw)
        try:
            with open_source(facts_of(folder), None) as source:
                read_all(source)
        except CouldNotConclude:
            pass


def test_a_tensor_that_passes_the_end_of_its_storage_is_refused(tmp_path):
    folder = saved({"a": torch.randn(8, 8)}, tmp_path / "m")
    cut = rewritten(folder, lambda name, raw: (raw[:-4] if name.endswith("/data/0") else raw, STORED))
    with pytest.raises(CorruptWeights, match="more values than its storage"):
        open_source(facts_of(cut), None)


def test_a_tail_is_read_once_and_the_directory_is_bounded(tmp_path):
    from scanner.weights.pickled import read_pickled_header

    buffer = io.BytesIO()
    torch.save({f"w{i}": torch.ones(3) for i in range(200)}, buffer)
    raw = buffer.getvalue()
    asked: list[int] = []

    def read(spans):
        asked.append(len(spans))
        return [raw[start:end] for start, end in spans]

    header = read_pickled_header(read, "m.bin", len(raw))
    assert len(header.tensors) == 200
    assert len(asked) == 4
    values = [struct.unpack("<3f", raw[meta.start : meta.end]) for meta in header.tensors]
    assert values == [(1.0, 1.0, 1.0)] * 200
