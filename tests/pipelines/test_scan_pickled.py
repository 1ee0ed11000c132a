"""`hubaudit scan` of PyTorch checkpoints: read as safetensors are, and refused when they want to run code."""

import json
import os
import shutil
from pathlib import Path

import pefts
import pytest
import torch
from click.testing import CliRunner
from localhub.server import LocalHub
from safetensors.torch import load_file

from pipelines.cli import cli


class Evil:
    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self):
        return os.mkdir, (str(self.where),)


def scanned(name: str, target: Path):
    arguments = ["--quiet", "scan", name, "--base", "pico/base", "--format", "json", "--output", str(target)]
    done = CliRunner().invoke(cli, arguments)
    assert target.exists(), done.output
    return done, json.loads(target.read_text())


@pytest.fixture
def folders(hub_server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LocalHub, Path]:
    """A base, and a folder with a pickled fine-tune of it that is not published yet."""
    base = pefts.save_base(pefts.llama(layers=8), tmp_path / "base")
    hub_server.add_repo("pico/base", folder=base)
    folder = Path(shutil.copytree(base, tmp_path / "pickled"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    moved = {name: value + 0.001 * torch.randn_like(value) for name, value in tensors.items()}
    torch.save(moved, folder / "pytorch_model.bin")
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    return hub_server, folder


def test_a_pickled_fine_tune_is_compared_in_full(folders, tmp_path):
    hub, folder = folders
    hub.add_repo("pico/pickled", folder=folder)
    done, report = scanned("pico/pickled", tmp_path / "report.json")
    assert done.exit_code in (0, 1), report["verdict"]
    assert report["lineage"]["status"] == "verified"
    assert report["coverage"]["parameters_compared"] == report["coverage"]["parameters_total"] > 0
    assert not [finding for finding in report["findings"] if finding["rule_id"] in ("HA603", "HA604", "HA605")]


def test_a_pickle_that_runs_code_fails_without_being_opened(folders, tmp_path):
    hub, folder = folders
    target = tmp_path / "was-run"
    whole = torch.load(folder / "pytorch_model.bin", weights_only=True)  # noqa: TID251
    torch.save({**whole, "evil": Evil(target)}, folder / "pytorch_model.bin")
    hub.add_repo("pico/evil", folder=folder)
    done, report = scanned("pico/evil", tmp_path / "report.json")
    assert report["verdict"]["outcome"] == "fail"
    (finding,) = [finding for finding in report["findings"] if finding["rule_id"] == "HA604"]
    assert "mkdir" in finding["explanation"]
    assert done.exit_code != 0
    assert not target.exists()
