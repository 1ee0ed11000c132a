"""Scans that may read only so much: what they read, what they say of the rest, and that they never pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from localhub.server import LocalHub
from quickhub import quick_hub
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig

from audit.records import AuditReport
from pipelines.audit_repo import audit_repo
from pipelines.cli import cli
from pipelines.sizes import parse_size
from reports.formats import RENDERERS
from reports.json_v1 import dump, load
from scanner.errors import RequestsSpent
from scanner.hub import Hub

BUDGET = 9_000_000
VOCABULARY = 4000
FOR_MACHINES = {"json", "cyclonedx"}
HEADERS = 600_000
"""What the first reads of two weight files take, and of their revisions."""
EDITED = "encoder.layer.4.output.dense.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of eight layers and a fine-tune in which everything moved: 29 MB a side."""
    root = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=8, num_attention_heads=4, intermediate_size=1024
    )
    model = AutoModel.from_config(config)
    model.save_pretrained(root / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))
    model.save_pretrained(root / "honest")
    (root / "honest" / "README.md").write_text("---\nbase_model: pico/base\n---\n")
    return root / "base", root / "honest"


@pytest.fixture
def hub(hub_server: LocalHub, folders: tuple[Path, Path]) -> LocalHub:
    hub_server.add_repo("pico/base", folder=folders[0])
    hub_server.add_repo("pico/honest", folder=folders[1])
    return hub_server


def scanned(
    model: str | Path, base: str | Path, *, hub: Hub | None = None, salt: int = 1, budget: int = BUDGET
) -> AuditReport:
    return audit_repo(str(model), base=str(base), hub=hub or Hub(), salt=salt, threads=1, budget_bytes=budget).report


@pytest.mark.parametrize(
    ("text", "size"),
    [("200MB", 200_000_000), ("64MiB", 64 << 20), ("1.5 gb", 1_500_000_000), ("2g", 2 * 10**9), ("10", 10)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1e9", "64iB", "12 parsecs", "٣MB", "1" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    "words", [("--budget", "64MB", "--full"), ("--budget", "soon"), ("--budget", "9kB"), ("--max-requests", "0")]
)
def test_options_that_make_no_sense_are_usage_errors(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["scan", "org/model", *words])
    assert done.exit_code == 2
    assert words[0] in done.output


def test_a_sample_stays_within_its_budget_and_is_never_a_pass(folders: tuple[Path, Path]) -> None:
    whole = audit_repo(str(folders[1]), base=str(folders[0]), hub=Hub(), salt=1, threads=1).report
    report = scanned(folders[1], folders[0])
    assert report.lineage.status == "verified"
    assert report.triage is not None
    assert report.coverage.bytes_read <= BUDGET + report.triage.escalated_bytes
    assert report.triage.checked_bytes + report.triage.planned_bytes <= BUDGET
    assert 0 < report.coverage.fraction < 0.9 < whole.coverage.fraction
    assert report.verdict.outcome == "inconclusive"
    assert any("sample" in note for note in report.verdict.notes)
    assert whole.triage is None


def test_a_budget_for_everything_is_an_ordinary_scan(folders: tuple[Path, Path]) -> None:
    whole = audit_repo(str(folders[1]), base=str(folders[0]), hub=Hub(), salt=1, threads=1).report
    report = scanned(folders[1], folders[0], budget=200_000_000)
    assert report.triage is None
    assert report.verdict == whole.verdict
    assert report.drift == whole.drift


def test_an_edit_in_the_sample_is_found_and_read_further(folders: tuple[Path, Path], tmp_path: Path) -> None:
    edited = shutil.copytree(folders[1], tmp_path / "edited")
    content = load_file(edited / "model.safetensors")
    rows, columns = content[EDITED].shape
    content[EDITED] += 0.01 * torch.outer(torch.randn(rows), torch.randn(columns))
    save_file(content, edited / "model.safetensors", metadata={"format": "pt"})
    report = scanned(edited, folders[0])
    assert report.triage is not None
    assert report.verdict.outcome in {"review", "fail"}
    assert EDITED in report.triage.escalated
    assert any(place.tensor == EDITED for finding in report.findings for place in finding.locations)
    record = next(r for r in report.drift if r.tensor == EDITED)
    assert record.top_share is not None
    assert record.top_share > 0.9
    assert report.triage.escalated_bytes <= report.triage.escalation_bytes == BUDGET


def test_power_is_stated_in_every_format_and_survives_json(folders: tuple[Path, Path]) -> None:
    report = scanned(folders[1], folders[0])
    assert report.triage is not None
    assert load(dump(report)) == report
    power = {record.edit: record.probability for record in report.triage.power}
    table = next(r for r in report.drift if r.role == "embedding")
    assert table.shape[0] == VOCABULARY
    assert any("token row" in edit and 0 < p < 1 for edit, p in power.items())
    assert all(0 <= p <= 1 for p in power.values())
    for name, renderer in RENDERERS.items():
        text = " ".join(renderer.render(report).split())
        assert ("likely to be seen" in text) or name in FOR_MACHINES, name
        assert name != "json" or '"power"' in text


def test_the_same_salt_reads_the_same_rows(folders: tuple[Path, Path]) -> None:
    one, same, other = (scanned(folders[1], folders[0], salt=salt) for salt in (3, 3, 4))
    assert one.drift == same.drift
    assert one.drift != other.drift


def test_a_remote_sample_fetches_about_what_it_reads(hub: LocalHub) -> None:
    reader = quick_hub(hub)
    report = scanned("pico/honest", "pico/base", hub=reader)
    assert report.triage is not None
    fetched = sum(record.sent for record in hub.log.matching("model.safetensors", method="GET", ranged=True))
    assert report.coverage.bytes_read <= fetched <= 1.1 * BUDGET + report.triage.escalated_bytes + HEADERS


def test_a_request_budget_ends_the_scan_with_what_it_has(hub: LocalHub) -> None:
    for most in (1, 8, 12, 16):
        reader = quick_hub(hub, most_requests=most)
        before = len(hub.log)
        if most == 1:
            with pytest.raises(RequestsSpent, match="--max-requests"):
                audit_repo("pico/honest", base="pico/base", hub=reader, threads=1)
        else:
            audited = audit_repo("pico/honest", base="pico/base", hub=reader, threads=1, salt=1)
            assert audited.report.verdict.outcome == "inconclusive"
        assert len(hub.log) - before == reader.requests <= most


def test_the_command_stops_at_its_requests(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    target = tmp_path / "report.json"
    words = ["--quiet", "scan", "pico/honest", "--max-requests", "9", "--format", "json", "--output", str(target)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 3
    assert len(hub.log) <= 9
    assert "--max-requests" in (done.output + (json.dumps(json.loads(target.read_text())) if target.exists() else ""))


@pytest.fixture
def many_parents(hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path) -> LocalHub:
    """A base with two versions of its weights, which itself declares a base, and a fine-tune that declares three."""
    tensors = load_file(folders[0] / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    other = {n: v + 0.002 * torch.randn(v.shape, generator=generator) for n, v in tensors.items()}
    save_file(other, tmp_path / "other.safetensors", metadata={"format": "pt"})
    newer = (tmp_path / "other.safetensors").read_bytes()
    older = (folders[0] / "model.safetensors").read_bytes()
    config = (folders[0] / "config.json").read_bytes()
    hub.add_repo("pico/grown", {"config.json": config, "model.safetensors": older})
    hub.commit("pico/grown", {"model.safetensors": newer})
    hub.add_repo("pico/rival", {"config.json": config, "model.safetensors": newer})
    hub.add_repo("pico/child", folder=folders[1])
    hub.commit("pico/child", {"README.md": b"---\nbase_model: [pico/grown, pico/rival, pico/base]\n---\n"})
    return hub


def test_versions_and_other_parents_count_against_the_budget(many_parents: LocalHub) -> None:
    reader = quick_hub(many_parents)
    report = audit_repo("pico/child", hub=reader, salt=1, threads=1, budget_bytes=BUDGET).report
    assert report.triage is not None
    assert report.lineage.runner_up is not None
    checks = {check.name: check for check in report.lineage.checks}
    assert checks["base_revision"].outcome == "failed", "the older version is the nearer one"
    assert report.triage.checked_bytes + report.triage.planned_bytes <= BUDGET
    fetched = sum(record.sent for record in many_parents.log.matching("model.safetensors", method="GET", ranged=True))
    headers = 7 * (HEADERS // 2)  # two versions, the base, the candidate, and three models beside each other
    assert report.coverage.bytes_read <= fetched <= 1.1 * BUDGET + report.triage.escalated_bytes + headers


def test_a_budget_too_small_for_the_versions_leaves_them_unread(many_parents: LocalHub) -> None:
    report = audit_repo("pico/child", hub=quick_hub(many_parents), salt=1, threads=1, budget_bytes=300_000).report
    revision = next(check for check in report.lineage.checks if check.name == "base_revision")
    assert revision.outcome == "not_run"
    assert "@COMMIT" in revision.note
