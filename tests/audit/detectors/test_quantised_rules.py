"""Rules about quantised copies: honest ones pass, edits before quantising are found, fine-tunes are told apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coded_pairs
import pytest
import quantised_checkpoints as made_by
from coded_pairs import QUERY, TABLE, Edit, compare, gguf_of, layers_by
from evidence_for import evidence, report

from audit.detectors.quantised import run
from audit.evidence import Hit
from audit.records import SkipRecord

WRITERS: dict[str, Callable[..., None]] = {
    "Q8_0": gguf_of("Q8_0"),
    "Q4_0": gguf_of("Q4_0"),
    "nf4": layers_by(made_by.four_bit),
    "int8": layers_by(made_by.eight_bit),
    "fp8": layers_by(lambda weights: made_by.fine_grained_fp8(weights, (128, 128))),
    "gptq": layers_by(made_by.gptq),
    "awq": layers_by(made_by.awq),
    "int4": layers_by(
        lambda weights: made_by.compressed(
            weights, "pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=True
        )
    ),
}


def findings(folder: Path, writer: str, edit: Edit | None = None, **about: Any) -> dict[str, list[str | None]]:
    """Rule → tensors, of everything that was found."""
    found: dict[str, list[str | None]] = {}
    for hit in run(evidence(compare(folder, WRITERS[writer], edit), **about)):
        if isinstance(hit, Hit) and hit.finding is not None:
            found.setdefault(hit.rule_id, []).append(hit.finding.locations[0].tensor)
    return found


@pytest.mark.parametrize("writer", WRITERS)
def test_an_honest_copy_shows_nothing(tmp_path: Path, writer: str) -> None:
    facts = compare(tmp_path, WRITERS[writer])
    assert findings(tmp_path / "again", writer) == {}
    assert report(evidence(facts, relation="quantized")).verdict.outcome == "pass"


@pytest.mark.parametrize("writer", ["Q8_0", "Q4_0"])
def test_an_edited_row_is_found_by_row_and_by_code(tmp_path: Path, writer: str) -> None:
    found = findings(tmp_path, writer, coded_pairs.scale_row)
    assert found["HA803"] == [TABLE]
    if writer == "Q8_0":
        assert found["HA801"] == [TABLE]
    assert (
        report(evidence(compare(tmp_path / "again", WRITERS[writer], coded_pairs.scale_row))).verdict.outcome == "fail"
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_a_rank_one_edit_is_found(tmp_path: Path, writer: str) -> None:
    found = findings(tmp_path, writer, coded_pairs.add_rank_one)
    assert QUERY in found.get("HA802", []) + found.get("HA803", [])
    assert {tensor for tensors in found.values() for tensor in tensors} == {QUERY}


@pytest.mark.parametrize("writer", WRITERS)
def test_an_outlier_is_found(tmp_path: Path, writer: str) -> None:
    found = findings(tmp_path, writer, coded_pairs.plant_outlier)
    assert {tensor for tensors in found.values() for tensor in tensors} == {QUERY}


@pytest.mark.parametrize("writer", ["Q8_0", "int8", "fp8", "nf4"])
def test_a_fine_tune_is_no_quantised_copy(tmp_path: Path, writer: str) -> None:
    facts = compare(tmp_path, WRITERS[writer], coded_pairs.train)
    declared = list(run(evidence(facts, relation="quantized")))
    assert [hit.rule_id for hit in declared if isinstance(hit, Hit) and hit.finding] == ["HA804"]
    assert {skip.what for skip in declared if isinstance(skip, SkipRecord)} == {"HA802", "HA803"}
    assert not [hit for hit in run(evidence(facts)) if isinstance(hit, Hit) and hit.finding]


def test_a_plain_cast_is_judged_and_passes(tmp_path: Path) -> None:
    facts = compare(tmp_path, gguf_of("F16"))
    (hit,) = run(evidence(facts))
    assert isinstance(hit, Hit)
    assert hit.score == 0
    assert report(evidence(facts, relation="quantized")).verdict.outcome == "pass"


def test_the_file_that_was_read_is_not_called_unread(tmp_path: Path) -> None:
    from evidence_for import repo

    facts = compare(tmp_path, gguf_of("Q8_0"))
    sealed = report(evidence(facts, candidate=repo(config={"model_type": "bert"}, files=("m.gguf", "other.gguf"))))
    (unread,) = [finding for finding in sealed.findings if finding.rule_id == "HA603"]
    assert [location.file for location in unread.locations] == ["other.gguf"]
