"""A card without its weights: sealed in the usual form, counted, and never a pass."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest
from innocent_cards import INNOCENT, MERGE, PEFT, Innocent, evidence

from audit import card_alone
from audit.card_alone import CARD_DETECTORS, audit_card
from audit.evidence import Detector, Evidence, Hit, Rule
from audit.policy import CARD_ALONE
from audit.records import AuditReport, RuntimeRecord
from audit.suppressions import Entry
from reports.formats import RENDERERS, render
from reports.json_v1 import dump, load
from reports.letters import discussion_body, discussion_title, private_report
from reports.markdown import pr_body, pr_title
from reports.wording import headline, limits, outcome_sentence, read_bytes, reproduce


def report(of: Innocent, *accepted: Entry) -> AuditReport:
    return audit_card(
        evidence(of),
        created_at="2026-11-20T08:00:00Z",
        tool_version="0.0.0",
        runtime=RuntimeRecord(seconds=0.0, peak_rss_bytes=0, requests=0),
        accepted=accepted,
    )


@pytest.mark.parametrize("of", INNOCENT, ids=lambda of: of.repo_id)
def test_an_innocent_card_is_inconclusive_and_says_what_was_counted(of: Innocent) -> None:
    made = report(of)
    assert (made.verdict.outcome, made.verdict.policy) == ("inconclusive", CARD_ALONE)
    assert made.verdict.false_positive_rate is None
    assert (made.coverage.parameters_compared, made.coverage.parameters_total) == (0, of.parameters)
    assert " 0 contradicted" in made.verdict.notes[0]
    assert "No weights were read" in made.verdict.notes[0]
    assert [f.rule_id for f in made.findings if f.rule_id not in {"HA103", "HA104"}] == []
    assert "0 %" in headline(made)


def test_a_contradicted_claim_asks_for_a_review_with_its_reason() -> None:
    made = report(replace(MERGE, card=MERGE.card.replace("cc-by-nc-4.0", "apache-2.0")))
    assert made.verdict.outcome == "review"
    assert [f.fingerprint for f in made.findings if f.rule_id == "HA901"] == list(made.verdict.reasons)


def test_a_baseline_runs_no_detector_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Evidence] = []
    rule = Rule(id="HA999", title="Counts", severity="low", weighs=False)

    def run(of: Evidence) -> Iterator[Hit]:
        ran.append(of)
        return iter(())

    counter = Detector(name="counter", rules=(rule,), run=run, needs_drift=False, needs_verified_base=False)
    monkeypatch.setattr(card_alone, "CARD_DETECTORS", (*CARD_DETECTORS, counter))
    made = report(MERGE, Entry(fingerprint="0" * 16, reason="known", expires=date(2026, 1, 1), model=None, line=3))
    assert len(ran) == 1
    assert made.verdict.notes[-1] == "Entries of the baseline that match no finding: 0000000000000000."


def test_no_rule_about_weights_runs() -> None:
    assert {"lineage", "relation", "unreadable"}.isdisjoint(d.name for d in CARD_DETECTORS)
    assert not any(d.needs_drift for d in CARD_DETECTORS)
    assert {"card", "unsafe_files"} <= {d.name for d in CARD_DETECTORS}
    assert "HA102" not in {f.rule_id for f in report(PEFT).findings}, "nothing was tried, so nothing failed"


def test_the_report_tells_how_to_repeat_it() -> None:
    assert reproduce(report(MERGE)).startswith("hubaudit card someone/Starling-Monarch-7B@")


@pytest.mark.parametrize("name", sorted(RENDERERS))
def test_every_format_renders_it(name: str) -> None:
    made = report(replace(MERGE, card=MERGE.card.replace("cc-by-nc-4.0", "apache-2.0")))
    assert render(made, name)
    assert load(dump(made)) == made


def test_no_document_says_that_weights_were_compared() -> None:
    made = report(MERGE)
    texts = [str(render(made, "markdown")), discussion_body(made), pr_body(made)]
    assert all("no weights were read" in text for text in texts)
    texts += [private_report(made), pr_title(made), discussion_title(made), str(render(made, "html"))]
    wrong = ("compared the weights", "read the weights", "of the weights of", "eight audit", "weights changed")
    assert not any(phrase in text for phrase in wrong for text in texts)
    assert "hubaudit scan" in limits(made)[-1]
    assert read_bytes(made) == "no weights read"
    assert "Only the card" in outcome_sentence(made)


def test_files_that_fail_say_nothing_of_the_weights() -> None:
    made = report(MERGE)
    failing = replace(made, verdict=replace(made.verdict, outcome="fail"))
    assert outcome_sentence(failing).startswith("What comes beside the weights")
