"""Copies by calibrated quantisers: error feedback and rescaling leave directions, and are no training and no edit."""

from collections.abc import Callable
from pathlib import Path

import coded_pairs
import numpy as np
import pytest
import torch
from coded_pairs import QUERY, compare
from evidence_for import evidence
from safetensors.torch import save_file

from audit.detectors.partial_change import run as partial
from audit.detectors.quantised import run as quantised
from audit.evidence import Hit
from benchmarks.quantised import copy_by_awq, copy_by_gptq, summarise
from scanner.lineage.coded import coded_relation, is_calibrated, leading_direction


def entering(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs as real ones are: a few directions hold most of their energy, some columns are large."""
    generator = torch.Generator().manual_seed(6)
    made = {}
    for name, tensor in weights.items():
        if tensor.ndim == 2 and "layer." in name:
            columns = tensor.shape[1]
            few = torch.randn(400, 8, generator=generator) @ torch.randn(8, columns, generator=generator)
            size = torch.exp(0.8 * torch.randn(columns, generator=generator))
            made[name] = (few + 0.3 * torch.randn(400, columns, generator=generator)) * size
    return made


def by_gptq(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    made = copy_by_gptq(weights, entering(weights), group=32, sort=True, feedback=True, symmetric=True)
    save_file({name: value.contiguous() for name, value in made.items()}, folder / "model.safetensors")


def by_awq(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    made = copy_by_awq(weights, entering(weights), group=32)
    save_file({name: value.contiguous() for name, value in made.items()}, folder / "model.safetensors")


WRITERS = {"gptq": by_gptq, "awq": by_awq}
Writer = Callable[[Path, dict[str, torch.Tensor]], None]


def found(facts) -> dict[str, list[str | None]]:
    hits = [hit for detector in (quantised, partial) for hit in detector(evidence(facts)) if isinstance(hit, Hit)]
    rules: dict[str, list[str | None]] = {}
    for hit in hits:
        if hit.finding is not None:
            rules.setdefault(hit.rule_id, []).append(hit.finding.locations[0].tensor)
    return rules


@pytest.mark.parametrize("writer", WRITERS)
def test_an_honest_copy_is_called_quantized_and_shows_nothing(tmp_path: Path, writer: str) -> None:
    facts = compare(tmp_path, WRITERS[writer])
    coded = [tensor for tensor in facts.tensors if tensor.coding is not None]
    assert len(coded) == 24
    assert all(is_calibrated(tensor) for tensor in coded)
    relation = coded_relation(facts)
    assert relation is not None
    assert relation[0] == "quantized"
    assert "would not show" in relation[1]
    assert found(facts) == {}


def test_error_feedback_leaves_directions_that_rounding_does_not(tmp_path: Path) -> None:
    def nearest(folder: Path, weights: dict[str, torch.Tensor]) -> None:
        made = copy_by_gptq(weights, entering(weights), group=32, sort=False, feedback=False, symmetric=True)
        save_file({name: value.contiguous() for name, value in made.items()}, folder / "model.safetensors")

    def directions(writer: Writer, name: str) -> list[float]:
        (tmp_path / name).mkdir()
        tensors = compare(tmp_path / name, writer).tensors
        return [d for t in tensors if t.coding is not None and (d := leading_direction(t)) is not None]

    rounded, fed_back = directions(nearest, "nearest"), directions(by_gptq, "gptq")
    assert max(rounded) < 1.3
    assert np.median(fed_back) > 1.2 * np.median(rounded)
    assert max(fed_back) > 2


@pytest.mark.parametrize("writer", WRITERS)
def test_an_edit_is_found_all_the_same(tmp_path: Path, writer: str) -> None:
    rules = found(compare(tmp_path, WRITERS[writer], coded_pairs.add_rank_one))
    assert QUERY in rules.get("HA802", [])


def test_a_copy_by_the_weights_alone_is_not_calibrated(tmp_path: Path) -> None:
    facts = compare(tmp_path, coded_pairs.gguf_of("Q8_0"))
    assert not any(is_calibrated(tensor) for tensor in facts.tensors)


def test_the_summary_holds_each_copy_against_its_own_tensors() -> None:
    tensors = [
        {"tensor": n, "ratio": r, "row_excess": 0.1, "peak": 1.0} for n, r in (("a", 1.0), ("b", 1.0), ("c", 2.0))
    ]
    record = {"way": "AWQ, 32", "tensors": tensors, "findings": [], "verdict": "pass", "relation": "quantized"}
    (row,) = summarise([record, record | {"findings": ["HA802"], "verdict": "fail"}])
    assert row["tensor_excess"] == pytest.approx(0.693)
    assert (row["models"], row["tensors"], row["false_alarms"], row["not_passed"]) == (2, 6, 1, 1)
    assert row["rules"] == ["HA802"]
