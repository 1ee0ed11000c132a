import dataclasses
import re

import pytest
import sample_reports

from audit.records import CardClaim
from reports.summary import LIMIT_BYTES, render_summary
from reports.wording import headline


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_the_summary_begins_with_the_answer(name):
    report = sample_reports.SAMPLES[name]()
    text = render_summary(report)
    assert text.splitlines()[0] == f"## {headline(report)}".replace(">", "&gt;")
    assert "The model was not run" in text
    assert "\n\n\n" not in text


def test_findings_and_claims_are_tables():
    text = render_summary(sample_reports.poisoned_row())
    assert "| critical | `HA201` | **A token's row moved" in text
    assert "`embeddings.word_embeddings.weight rows 12,935, 24,098` `cf` `mn` |" in text
    assert "| licence | `apache-2.0` | – | not checkable |" in text


def test_a_summary_of_ten_thousand_hostile_findings_stays_under_the_limit():
    report = sample_reports.poisoned_row()
    finding = dataclasses.replace(
        report.findings[0], title="<" * 5000, explanation="`<" * 5000, remedy="|" * 5000, rule_id="`|" * 500
    )
    claim = CardClaim(claim="&" * 9000, declared="<" * 9000, observed="|" * 9000, status="supported")
    report = dataclasses.replace(report, findings=(finding,) * 10_000, card=(claim,) * 1000)
    text = render_summary(report)
    assert len(text.encode()) < LIMIT_BYTES
    shown = len(re.findall(r"^\| critical", text, re.MULTILINE))
    assert 10 < shown < 200
    assert f"{10_000 - shown} more findings are in the JSON report." in text.replace(",", "")


def test_a_summary_whose_every_part_is_huge_and_hostile_stays_under_the_limit():
    report = sample_reports.hostile("|`*<!--" + "\U0001f600" * 3000)
    finding = dataclasses.replace(report.findings[0], locations=report.findings[0].locations * 50)
    claims = tuple(dataclasses.replace(report.card[0], claim=f"{n}" + "é|" * 5000) for n in range(5000))
    skips = tuple(dataclasses.replace(report.coverage.skipped[0], why=f"{n} " + "é|" * 5000) for n in range(5000))
    report = dataclasses.replace(
        report,
        findings=(finding,) * 5000,
        card=claims,
        coverage=dataclasses.replace(report.coverage, skipped=skips),
        verdict=dataclasses.replace(report.verdict, notes=("é|" * 5000,) * 500),
    )
    assert len(render_summary(report).encode()) <= LIMIT_BYTES
