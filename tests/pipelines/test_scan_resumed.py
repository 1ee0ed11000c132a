"""A scan that is killed half-way goes on where it was, and tells the same in the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from localhub.server import LocalHub
from transformers import AutoModel, BertConfig

from pipelines.resume import LEAST_BYTES

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a fine-tune of it, large enough to be worth keeping: 18 MB a side."""
    root = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    model = AutoModel.from_config(config)
    model.save_pretrained(root / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))
    model.save_pretrained(root / "tuned")
    (root / "tuned" / "README.md").write_text("---\nbase_model: big/base\n---\n")
    assert sum((root / name / WEIGHTS).stat().st_size for name in ("base", "tuned")) > LEAST_BYTES
    return root


def command(hub: LocalHub, cache: Path, output: Path) -> "subprocess.Popen[bytes]":
    words = ["--quiet", "scan", "big/tuned", "--format", "json", "--output", str(output), "--fail-on", "never"]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HUBAUDIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "pipelines", *words], env=environment)


def fetched(hub: LocalHub) -> int:
    return sum(record.sent for record in hub.log.matching(WEIGHTS, method="GET", ranged=True))


def told(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(output.read_text())
    return {key: value for key, value in report.items() if key not in {"created_at", "runtime"}}


def test_a_killed_scan_goes_on_and_reports_the_same(hub_server: LocalHub, family: Path, tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        hub_server.add_repo(f"big/{name}", folder=family / name)
    hub_server.configure(bandwidth=8e6)
    cache, other = tmp_path / "cache", tmp_path / "other"
    killed = command(hub_server, cache, tmp_path / "killed.json")
    deadline = time.monotonic() + 120
    while len(list(cache.rglob("*.npz"))) < 20:
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = len(list(cache.rglob("*.npz")))
    assert not (tmp_path / "killed.json").exists()

    # The same sampled rows for the scan that is not interrupted: its salt, and nothing else.
    for salt in cache.rglob("salt.json"):
        target = other / salt.relative_to(cache)
        target.parent.mkdir(parents=True)
        shutil.copy(salt, target)
    hub_server.configure(bandwidth=None)
    hub_server.log.clear()
    assert command(hub_server, cache, tmp_path / "resumed.json").wait() in {0, 3}
    resumed = fetched(hub_server)
    hub_server.log.clear()
    assert command(hub_server, other, tmp_path / "whole.json").wait() in {0, 3}
    whole = fetched(hub_server)

    assert kept >= 20
    # What was kept is not fetched again: the token table, which comes first, is a quarter of the weights.
    assert resumed < 0.75 * whole
    assert told(tmp_path / "resumed.json") == told(tmp_path / "whole.json")
    assert not list(cache.rglob("*.npz")), "a scan that has ended leaves nothing behind"
