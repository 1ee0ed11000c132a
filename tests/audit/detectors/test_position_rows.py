"""HA203: one written position stands out; honest slopes, ends and round trips do not."""

import dataclasses

import drift_facts
import evidence_for
import numpy as np
import pytest

from audit.detectors.position_rows import DETECTOR
from audit.evidence import Evidence, Hit
from audit.records import SkipRecord

NAME = "bert.embeddings.position_embeddings.weight"
ROWS, COLUMNS = 128, 64


def positions(change: np.ndarray, *, base: np.ndarray | None = None) -> Evidence:
    """Evidence of one position table with a change added."""
    before = np.random.default_rng(0).normal(0, 0.1, (ROWS, COLUMNS)) if base is None else base
    before = before.astype(np.float32)
    facts = drift_facts.tensor_drift(NAME, before, (before + change).astype(np.float32), role="position")
    return evidence_for.evidence(dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=(facts,)))


def trained(length: int = 48, *, seed: int = 1) -> np.ndarray:
    """What training on texts of up to ``length`` tokens does: a slow fall, then nothing."""
    rng = np.random.default_rng(seed)
    size = np.where(np.arange(ROWS) < length, 0.01 / (1 + np.arange(ROWS) / 16), 0.0)
    return rng.normal(0, 1, (ROWS, COLUMNS)) * size[:, None]


def hit(evidence: Evidence) -> Hit:
    (one,) = list(DETECTOR.run(evidence))
    assert isinstance(one, Hit)
    return one


@pytest.mark.parametrize("row", [1, 7, 60, ROWS - 1])
def test_a_written_position_is_named_alone(row: int) -> None:
    change = trained()
    change[row] += 0.1
    finding = hit(positions(change)).finding
    assert finding is not None
    assert (finding.rule_id, finding.severity) == ("HA203", "high")
    assert finding.locations[0].rows == ((row, row + 1),)
    assert f"Position {row} " in finding.explanation


def test_a_position_written_into_a_still_table_is_named() -> None:
    change = np.zeros((ROWS, COLUMNS))
    change[20] = 0.02
    one = hit(positions(change))
    assert one.finding is not None
    assert np.isfinite(one.value or np.inf)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [16, 48, ROWS])
def test_training_on_texts_of_any_length_is_innocent(length: int, seed: int) -> None:
    one = hit(positions(trained(length, seed=seed)))
    assert one.finding is None
    assert one.score < 0.5


def test_the_first_position_may_move_as_it_likes() -> None:
    change = trained()
    change[0] *= 20
    assert hit(positions(change)).finding is None


def test_a_round_trip_through_a_coarse_format_is_innocent() -> None:
    base = np.random.default_rng(0).normal(0, 0.1, (ROWS, COLUMNS))
    base[0] *= 10
    rounded = base.astype(np.float16).astype(np.float64)
    assert hit(positions(rounded - base.astype(np.float32), base=base)).finding is None


@pytest.mark.parametrize("change", [np.zeros((ROWS, COLUMNS)), np.full((ROWS, COLUMNS), 0.01)])
def test_a_table_that_stayed_or_moved_as_one_scores_nothing(change: np.ndarray) -> None:
    assert hit(positions(change)).score == pytest.approx(0.0, abs=1e-4)


def test_without_a_table_the_rule_abstains() -> None:
    (skip,) = list(DETECTOR.run(evidence_for.evidence(drift_facts.from_arrays({}, {}))))
    assert isinstance(skip, SkipRecord)
    assert skip.what == "HA203"
