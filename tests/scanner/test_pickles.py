"""Which imports of a repository's pickles are told, and that none of them is opened."""

import os
import pickle  # noqa: TID251  # to write what a stranger may publish
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from localhub.server import LocalHub
from stopwatch import at_most
from weightfolders import facts_of

from scanner.facts import collect
from scanner.hub import Hub
from scanner.pickles import MAX_PICKLE_BYTES, inspect_pickles
from scanner.refs import parse_spec


class Evil:
    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self):
        return os.mkdir, (str(self.where),)


class Own:
    """A class of a training program."""


def test_dangerous_imports_are_told_in_every_kind_of_pickle_and_not_run(tmp_path):
    target = tmp_path / "was-run"
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    torch.save({"a": torch.ones(2), "x": Evil(target)}, folder / "pytorch_model.bin")
    torch.save({"a": torch.ones(2), "x": Evil(target)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "sub" / "extra.PKL").write_bytes(pickle.dumps(Evil(target)))
    found, skips = inspect_pickles(facts_of(folder), None)
    assert [item.path for item in found] == ["old.pt", "pytorch_model.bin", "sub/extra.PKL"]
    assert all(any(name.endswith(".mkdir") for name in item.dangerous) for item in found)
    assert not skips
    assert not target.exists()


def test_weights_alone_are_not_told(tmp_path):
    state = OrderedDict(a=torch.randn(4, 4).bfloat16(), b=torch.nn.Parameter(torch.ones(3)))
    torch.save(state, tmp_path / "pytorch_model.bin")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "numbers.bin").write_bytes(np.random.default_rng(0).bytes(10_000))
    (tmp_path / "empty.bin").write_bytes(b"")
    assert inspect_pickles(facts_of(tmp_path), None) == ((), ())


def test_classes_of_a_training_program_are_unknown(tmp_path):
    (tmp_path / "args.pkl").write_bytes(pickle.dumps(Own()))
    (found,), _ = inspect_pickles(facts_of(tmp_path), None)
    assert not found.dangerous
    assert found.unknown[0].endswith(".Own")


def test_a_name_that_is_computed_is_told(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04\x93.")
    (found,), _ = inspect_pickles(facts_of(tmp_path), None)
    assert found.computed


def test_an_import_after_garbage_in_an_archive_is_found(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "m.bin")
    with zipfile.ZipFile(tmp_path / "m.bin", "a") as archive:
        archive.writestr("m/second.pkl", pickle.dumps(Evil(tmp_path / "was-run")) + b"\xff\xff")
    (found,), _ = inspect_pickles(facts_of(tmp_path), None)
    assert found.dangerous


def test_what_would_take_for_ever_is_a_skip(tmp_path):
    opcodes = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}
    marks = b"N" + opcodes["MEMOIZE"] * 400_000 + opcodes["STACK_GLOBAL"] * 20_000
    (tmp_path / "slow.pkl").write_bytes(b"\x80\x04" + marks + b".")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\0" * (MAX_PICKLE_BYTES + 1))
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04" + b"x" * 100)
    with at_most(30):
        found, skips = inspect_pickles(facts_of(tmp_path), None)
    assert not found
    assert sorted(skip.what for skip in skips) == ["bomb.pt", "slow.pkl", "torn.pt"]


def test_of_a_remote_file_only_the_description_is_fetched(tmp_path, hub_server: LocalHub):
    folder = tmp_path / "m"
    folder.mkdir()
    torch.save({"x": Evil(tmp_path / "was-run"), "w": torch.randn(2_000, 2_000)}, folder / "pytorch_model.bin")
    hub_server.add_repo("org/pickled", folder=folder)
    hub = Hub(hub_server.endpoint)
    facts = collect(hub.resolve(parse_spec("org/pickled", endpoint=hub.endpoint)), hub)
    (found,), _ = inspect_pickles(facts, hub)
    assert found.dangerous
    assert hub.bytes_received < 1_000_000
