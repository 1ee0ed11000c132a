"""The relation of checkpoints in a quantiser's codes."""

from pathlib import Path

import coded_pairs
import pytest
import quantised_checkpoints as made_by
from coded_pairs import compare, gguf_of, layers_by

from scanner.lineage.coded import coded_relation, leading_direction


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
def test_a_copy_in_fewer_bits_is_quantised(tmp_path: Path, kind: str) -> None:
    found = coded_relation(compare(tmp_path, gguf_of(kind)))
    assert found is not None
    assert found[0] == "quantized"


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_fine_tune_in_fewer_bits_is_one(tmp_path: Path, kind: str) -> None:
    found = coded_relation(compare(tmp_path, gguf_of(kind), coded_pairs.train))
    assert found is not None
    assert found[0] == "finetune"


def test_a_trained_half_precision_file_is_not_judged_here(tmp_path: Path) -> None:
    assert coded_relation(compare(tmp_path, gguf_of("F16"), coded_pairs.train)) is None
    assert coded_relation(None) is None


def test_training_has_a_direction_and_rounding_has_none(tmp_path: Path) -> None:
    honest = compare(tmp_path, layers_by(made_by.gptq))
    trained = compare(tmp_path / "again", layers_by(made_by.gptq), coded_pairs.train)
    for facts, low, high in ((honest, 0.5, 2.5), (trained, 2.5, 1e3)):
        found = [d for t in facts.tensors if t.coding is not None and (d := leading_direction(t)) is not None]
        assert len(found) >= 24
        assert low < min(found)
        assert max(found) < high
