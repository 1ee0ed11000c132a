"""`hubaudit scan` of a repository that holds nothing but a PEFT adapter."""

import json
from pathlib import Path

import pefts
import pytest
from click.testing import CliRunner
from localhub.server import LocalHub
from peft import LoraConfig

from pipelines.cli import cli


@pytest.fixture
def hub(hub_server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A base, and an adapter that declares it in its configuration alone."""
    base = pefts.save_base(pefts.llama(layers=8), tmp_path / "base")
    adapter = pefts.save_adapter(
        pefts.llama(layers=8),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        tmp_path / "adapter",
        name="pico/base",
    )
    (adapter / "README.md").unlink(missing_ok=True)
    hub_server.add_repo("pico/base", folder=base)
    hub_server.add_repo("pico/adapter", folder=adapter)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    return hub_server


def test_an_adapter_is_compared_with_the_base_that_its_configuration_names(hub, tmp_path):
    target = tmp_path / "report.json"
    done = CliRunner().invoke(
        cli, ["--quiet", "scan", "pico/adapter", "--format", "json", "--output", str(target), "--format", "table"]
    )
    assert target.exists(), done.output
    report = json.loads(target.read_text())
    assert report["subject"]["kind"] == "adapter"
    assert report["lineage"]["relation"] == "adapter"
    assert report["lineage"]["status"] == "verified"
    assert report["lineage"]["base"]["repo_id"] == "pico/base"
    fit = next(check for check in report["lineage"]["checks"] if check["name"] == "adapter_fit")
    assert fit["outcome"] == "passed"
    coverage = report["coverage"]
    assert coverage["parameters_compared"] == coverage["parameters_total"] > 0
    assert len(report["drift"]) == 16
    assert done.exit_code in (0, 1), report["verdict"]
    assert any("no separate adapters" in note for note in report["verdict"]["notes"])
