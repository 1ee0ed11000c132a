"""Scans of copies whose layers, or some of them, keep their units and heads in another order."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from audit.records import AuditReport
from pipelines.audit_repo import audit_repo
from scanner.hub import Hub

LAYERS, HIDDEN, UNITS, HEADS = 8, 64, 192, 8


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=500,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=UNITS,
        )
    )


def reordered(made: LlamaForCausalLM, layers: range, *, heads: bool) -> LlamaForCausalLM:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in (made.model.layers[i] for i in layers):
            order = torch.randperm(UNITS, generator=generator)
            for module in (layer.mlp.gate_proj, layer.mlp.up_proj):
                module.weight.copy_(module.weight[order])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order])
            if not heads:
                continue
            rows = torch.randperm(HEADS, generator=generator)[:, None] * (HIDDEN // HEADS)
            rows = (rows + torch.arange(HIDDEN // HEADS)).ravel()
            attention = layer.self_attn
            for module in (attention.q_proj, attention.k_proj, attention.v_proj):
                module.weight.copy_(module.weight[rows])
            attention.o_proj.weight.copy_(attention.o_proj.weight[:, rows])
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reordered") / "base"
    model().save_pretrained(folder)
    return folder


def scanned(base: Path, mine: LlamaForCausalLM, folder: Path, salt: int, budget: int | None = None) -> AuditReport:
    mine.save_pretrained(folder)
    return audit_repo(str(folder), base=str(base), hub=Hub(), salt=salt, threads=1, budget_bytes=budget).report


@pytest.mark.parametrize("salt", [1, 2])
@pytest.mark.parametrize(
    ("layers", "heads"), [(range(5, 6), True), (range(2, LAYERS), False)], ids=["one layer", "all but two"]
)
def test_only_the_order_of_some_layers_differs(
    base: Path, tmp_path: Path, layers: range, heads: bool, salt: int
) -> None:
    report = scanned(base, reordered(model(), layers, heads=heads), tmp_path / "mine", salt)
    assert report.lineage.status == "verified"
    assert not [record.tensor for record in report.drift if record.relative_l2 > 0]
    assert not [finding.rule_id for finding in report.findings if finding.rule_id.startswith(("HA3", "HA4"))]
    notes = [skip.what for skip in report.coverage.skipped if "in another order" in skip.why]
    assert any("feed-forward units" in what for what in notes)
    assert any("attention heads" in what for what in notes) == heads
    assert report.coverage.parameters_compared == report.coverage.parameters_total


def test_within_a_budget_it_is_said_that_the_order_was_not_looked_into(base: Path, tmp_path: Path) -> None:
    report = scanned(base, reordered(model(), range(5, 6), heads=True), tmp_path / "mine", 1, budget=1_500_000)
    assert report.triage is not None
    assert any("not looked into within a budget" in skip.why for skip in report.coverage.skipped)
