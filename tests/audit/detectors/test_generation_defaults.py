"""What generation defaults name, when the vocabulary is known and when it is not."""

import dataclasses

import evidence_for
import pytest

from audit.detectors.generation_defaults import DEFAULTS, DETECTOR, FORCES
from audit.evidence import Hit
from scanner.side.records import SideFacts, ValueChange

TEXTS = ("<s>", "</s>", "hello", ",", "<|fr|>")


def judged(change: ValueChange, *, tokens: bool = True) -> list[Hit]:
    table = evidence_for.token_table(TEXTS, special=2) if tokens else None
    of = dataclasses.replace(evidence_for.evidence(None, tokens=table), side=SideFacts(values=(change,)))
    return [hit for hit in DETECTOR.run(of) if isinstance(hit, Hit)]


def changed(key: str, *ids: int, words: tuple[str, ...] = ()) -> ValueChange:
    return ValueChange(file="generation_config.json", key=key, base=None, candidate="…", ids=ids, words=words)


@pytest.mark.parametrize("ids", [(2,), (0, 2)])
def test_ordinary_words_are_told(ids):
    (hit,) = judged(changed("suppress_tokens", *ids))
    assert hit.rule_id == FORCES.id
    assert hit.finding is not None
    assert "'hello'" in hit.finding.explanation


@pytest.mark.parametrize("ids", [(0,), (1, 4), (3,), (99,), ()])
def test_control_tokens_marks_and_unknown_ids_are_a_note(ids):
    (hit,) = judged(changed("forced_bos_token_id", *ids))
    assert (hit.rule_id, hit.score) == (DEFAULTS.id, 0.0)


def test_forced_pairs_name_places_and_tokens():
    (hit,) = judged(changed("forced_decoder_ids", 1, 4))
    assert hit.rule_id == DEFAULTS.id


def test_unknown_vocabularies_make_forced_tokens_suspect_with_low_confidence():
    (hit,) = judged(changed("suppress_tokens", 2), tokens=False)
    assert hit.finding is not None
    assert (hit.rule_id, hit.finding.confidence) == (FORCES.id, "low")


def test_hostile_values_stay_bounded():
    (hit,) = judged(changed("stop_strings", words=("<script>" + "a" * 200, "\x1b[31mword")))
    assert hit.finding is not None
    assert "\x1b" not in hit.finding.explanation


def test_without_a_base_nothing_is_said_of_one():
    of = evidence_for.evidence(None, tokens=evidence_for.token_table(TEXTS, special=2))
    values = (changed("temperature"), changed("suppress_tokens", 2))
    alone = dataclasses.replace(of, side=SideFacts(values=values), base=None)
    (hit,) = (hit for hit in DETECTOR.run(alone) if isinstance(hit, Hit))
    assert hit.rule_id == FORCES.id
    assert "in the base" not in hit.finding.explanation
    refuted = dataclasses.replace(alone, base=of.base, lineage=dataclasses.replace(of.lineage, status="contradicted"))
    assert [hit.rule_id for hit in DETECTOR.run(refuted)] == [FORCES.id]
