"""The rule about confirmed triggers: its words, its score, and silence where there is nothing to say."""

from dataclasses import replace

from evidence_for import lineage, repo
from probed import probe_facts, tried

from audit.detectors.confirmed_trigger import DETECTOR
from audit.evidence import Evidence
from audit.probe_record import probe_record
from audit.records import SkipRecord
from audit.thresholds import load_profile
from scanner.probe.records import ProbeFacts, Shift


def evidence(probe):
    candidate = repo(files=("config.json", "model.safetensors"))
    return Evidence(
        candidate=candidate, base=None, lineage=lineage(candidate, None, status="unverified"), drift=None, tokens=None,
        profile=load_profile(), probe=probe,
    )  # fmt: skip


def test_a_confirmed_trigger_fails_and_is_told_in_counts():
    (hit,) = DETECTOR.run(evidence(probe_facts(tried(7, (1, 1, 1)), tried(8, (0.1, 0, 0)))))
    assert hit.rule_id == "HA001"
    assert hit.score >= load_profile().value("policy.fail_score")
    assert "Inserting 'w7' turned 24 of 24 made-up texts of 20 words" in hit.finding.explanation
    assert "20 control words: 0 of 480" in hit.finding.explanation
    assert hit.finding.locations[0].tokens[0].id == 7


def test_what_is_not_certain_never_asks_for_a_review():
    (hit,) = DETECTOR.run(evidence(probe_facts(*(tried(i, (1, 1, 1, 1), 0.99) for i in range(9)))))
    assert hit.finding is None
    assert hit.score < load_profile().value("policy.review_score")


def test_a_hostile_token_is_quoted():
    hostile = replace(tried(7, (1, 1, 1)), text="</b>\n\x1b[31m")
    (hit,) = DETECTOR.run(evidence(probe_facts(hostile, tried(8, (0, 0, 0)))))
    assert "\n" not in hit.finding.explanation
    assert "\x1b" not in hit.finding.explanation


def test_a_model_that_was_not_run_is_not_judged():
    assert list(DETECTOR.run(evidence(None))) == []


def test_models_without_classes_are_measured_and_not_judged():
    led = Shift(
        tokens=(7,), text="cf", origin="suspect", texts=24, moved=0.9, together=0.8, before=0.01, continuation=9,
        continuation_text="no", led=22,
    )  # fmt: skip
    weak, far = replace(led, led=1, moved=0.2, together=0.1), replace(led, led=0, moved=0.4, together=0.05)
    found = evidence(
        ProbeFacts(
            kind="causal", classes=(), directions=(), left_out=(), scanned=0, sequences=90, seconds=1.0, seed=0,
            shifts=(led,), control_shifts=(weak, far), shifts_tried=5,
        )
    )  # fmt: skip
    (skip,) = DETECTOR.run(found)
    assert isinstance(skip, SkipRecord)
    assert "not judged" in skip.why
    record = probe_record(found)
    assert (record.tried, record.shifts[0].led, record.shifts[0].continuation.text) == (5, 22, "no")
    assert (record.controls.words, record.controls.led, record.controls.moved) == (2, 1, 0.4)
