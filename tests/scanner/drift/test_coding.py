"""Quantised copies against their base: what is reproduced, what strays, and how large errors are."""

from pathlib import Path

import coded_pairs
import numpy as np
import pytest
import quantised_checkpoints
import torch
from coded_pairs import QUERY, TABLE, compare, gguf_of, layers_by

from scanner.records import CodingDrift, DriftFacts, TensorDrift


def coded(facts: DriftFacts) -> dict[str, tuple[TensorDrift, CodingDrift]]:
    return {t.spec.name: (t, t.coding) for t in facts.tensors if t.coding is not None}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1"])
def test_an_honest_copy_is_reproduced_bit_for_bit(tmp_path: Path, kind: str) -> None:
    facts = compare(tmp_path, gguf_of(kind))
    found = coded(facts)
    assert len(found) >= 24
    for tensor, coding in found.values():
        assert coding.scheme == f"GGUF {kind}"
        assert coding.reproduced == tensor.count
        assert not coding.row_strays.any()  # type: ignore[union-attr]
        assert tensor.rounding_floor == pytest.approx(tensor.delta_l2, rel=1e-6)
        assert coding.error_ratio == pytest.approx(1.0, abs=0.2)


def test_a_copy_made_through_half_precision_is_reproduced_through_it(tmp_path: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        for name, tensor in weights.items():
            weights[name] = tensor.half().float() if tensor.is_floating_point() else tensor

    for _, coding in coded(compare(tmp_path, gguf_of("Q8_0"), halve)).values():
        assert coding.reproduced_through == "F16"
        assert not coding.row_strays.any()  # type: ignore[union-attr]


def test_an_edited_row_strays_alone(tmp_path: Path) -> None:
    found = coded(compare(tmp_path, gguf_of("Q8_0"), coded_pairs.scale_row))
    _, coding = found[TABLE]
    assert coding.row_strays is not None
    assert np.flatnonzero(coding.row_strays).tolist() == [77]
    ratios = coding.row_error_sq / np.maximum(coding.row_expected_sq, 1e-30)
    assert int(ratios.argmax()) == 77
    assert ratios[77] > 100 * np.median(ratios)
    assert all(not other.row_strays.any() for name, (_, other) in found.items() if name != TABLE)  # type: ignore[union-attr]


def test_an_outlier_shows_where_it_lies(tmp_path: Path) -> None:
    found = coded(compare(tmp_path, layers_by(quantised_checkpoints.eight_bit), coded_pairs.plant_outlier))
    _, coding = found[QUERY]
    assert coding.nearest
    assert int(coding.row_peak.argmax()) == 5
    assert int(coding.row_peak_column[5]) == 7
    assert coding.row_peak[5] > 50
    assert max(float(other.row_peak.max()) for name, (_, other) in found.items() if name != QUERY) < 1.5


def test_columns_that_were_rescaled_are_taken_as_such(tmp_path: Path) -> None:
    factors = torch.linspace(0.5, 2.0, 128)

    def rescale(weights: dict[str, torch.Tensor]) -> None:
        weights[QUERY] = weights[QUERY] * factors

    _, coding = coded(compare(tmp_path, layers_by(quantised_checkpoints.awq), rescale))[QUERY]
    assert coding.column_gains is not None
    assert coding.column_gains[1] / coding.column_gains[0] == pytest.approx(4.0, rel=0.1)
    assert coding.error_ratio == pytest.approx(1.0, abs=0.25)


def test_plain_tensors_have_no_coding(tmp_path: Path) -> None:
    facts = compare(tmp_path, gguf_of("F16"))
    assert not coded(facts)
    changed = [tensor for tensor in facts.tensors if tensor.changed]
    assert changed
    for tensor in changed:
        assert tensor.rounding_floor == pytest.approx(tensor.delta_l2, rel=1e-7)


def test_training_makes_larger_errors_than_the_codes_explain(tmp_path: Path) -> None:
    ratios = [c.error_ratio for _, c in coded(compare(tmp_path, gguf_of("Q8_0"), coded_pairs.train)).values()]
    assert min(ratio for ratio in ratios if ratio is not None) > 20
