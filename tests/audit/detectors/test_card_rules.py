"""HA901-HA903: contradicted claims become findings, one a kind, and never move the verdict."""

from dataclasses import replace

import evidence_for
import pytest
from innocent_cards import INNOCENT, MERGE, PEFT, TRAINER, Innocent, evidence

from audit.detectors.card import CLAIM, COPIED, DETECTOR, LICENCE
from audit.records import Finding


def findings(of: Innocent) -> list[Finding]:
    return [hit.finding for hit in DETECTOR.run(evidence(of)) if hasattr(hit, "finding") and hit.finding]


@pytest.mark.parametrize("of", INNOCENT, ids=lambda of: of.repo_id)
def test_innocent_cards_are_not_found(of: Innocent) -> None:
    assert findings(of) == []


def test_a_licence_that_drops_a_condition_is_found() -> None:
    (found,) = findings(replace(MERGE, card=MERGE.card.replace("cc-by-nc-4.0", "apache-2.0")))
    assert (found.rule_id, found.severity) == (LICENCE.id, "medium")
    assert "declared: apache-2.0" in found.explanation
    assert "section 2(a)(1)" in found.explanation


def test_a_wrong_size_and_a_wrong_rank_are_told_apart() -> None:
    wrong = replace(
        TRAINER, dtypes={"F16": 66_955_010}, card=TRAINER.card.replace("- Accuracy: 0.9106", "- Accuracy: 0.5")
    )
    found = findings(wrong)
    assert [f.rule_id for f in found] == [CLAIM.id, CLAIM.id]
    assert {f.locations[0].file for f in found} == {"config.json", "README.md"}
    assert {f.confidence for f in found} == {"exact", "medium"}
    assert len({f.fingerprint for f in found}) == 2


def test_the_fingerprint_outlives_other_numbers() -> None:
    one, other = (findings(replace(TRAINER, dtypes={kind: 66_955_010}))[0] for kind in ("F16", "BF16"))
    assert one.explanation != other.explanation
    assert one.fingerprint == other.fingerprint


def test_a_copied_card_is_found() -> None:
    text = "# Base-7B\n\n" + " ".join(f"Sentence {n} tells of the base alone and of nothing else." for n in range(40))
    front = MERGE.card.split("# Starling", maxsplit=1)[0]
    (found,) = findings(replace(MERGE, card=front + text, base_card="---\nlicense: cc-by-nc-4.0\n---\n" + text))
    assert found.rule_id == COPIED.id
    assert "100 % of its phrases" in found.explanation


def test_another_base_in_the_adapter_is_left_to_the_rules_on_lineage() -> None:
    config = {**(PEFT.adapter_config or {}), "base_model_name_or_path": "google/gemma-2-9b"}
    assert findings(replace(PEFT, adapter_config=config)) == []


def test_the_verdict_stays_what_the_weights_say() -> None:
    of = evidence(replace(MERGE, card=MERGE.card.replace("cc-by-nc-4.0", "apache-2.0")))
    report = evidence_for.report(of)
    assert [f.rule_id for f in report.findings if f.rule_id.startswith("HA9")] == [LICENCE.id]
    assert report.verdict.outcome == "inconclusive"
    assert report.verdict.score == 0.0
