"""The rule about confirmed triggers: its words, its score, and silence where there is nothing to say."""

from dataclasses import replace

from evidence_for import lineage, repo
from probed import probe_facts, tried

from audit.detectors.confirmed_trigger import DETECTOR
from audit.evidence import Evidence
from audit.thresholds import load_profile


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
