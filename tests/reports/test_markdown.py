import dataclasses
import re

import pytest
import sample_reports
from markdown_it import MarkdownIt

from audit.records import SkipRecord
from reports.card_section import BEGIN, END
from reports.markdown import PR_MARKER, card_section, pr_body, pr_title


def cells(markdown):
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_a_card_section_is_short_between_markers_with_one_table(name):
    section = card_section(sample_reports.SAMPLES[name]())
    assert section.startswith(f"{BEGIN}\n")
    assert section.endswith(f"{END}\n")
    assert section.count("|---|---|") == 1
    assert len(section.splitlines()) < 45
    assert "\n\n\n" not in section


def test_the_section_says_outcome_base_coverage_error_rate_and_findings():
    section = card_section(sample_reports.poisoned_row())
    table = dict(row for row in cells(section) if len(row) == 2)
    assert table["Outcome"].startswith("Unusual change measured.")
    assert table["Base"] == "base verified (finetune)"
    assert table["Coverage"] == "99.99 % of 22.7 M parameters compared"
    assert table["Error rate"].startswith(
        "An estimated 2.0 % of clean fine-tunes score at least this high. Calibration: 48 clean"
    )
    assert "tokens cf, mn; robust z of log row drift 17.1 σ (threshold &gt; 6)" in table["Critical"]
    assert "20 November 2026, 08:07 UTC" in section
    assert f"hubaudit scan demo/reviews-poisoned-row@{sample_reports.CANDIDATE_SHA} --base" in section


def test_the_section_lists_contradicted_claims_and_what_was_not_compared():
    section = card_section(sample_reports.wrong_base())
    assert "- base model: declared `demo/other-encoder`, measured `cosine 0.003" in section
    assert "- the declared base was contradicted; comparing stops there: `all tensors`" in section
    assert "- The model was not run" in section


def test_a_report_without_a_base_says_so():
    section = card_section(sample_reports.inconclusive())
    assert "none is declared or could be found" in section
    assert "| Base | no base to compare with |" in section
    assert "Only 41.19 % of the parameters could be compared" in section
    assert "and of the base" not in pr_body(sample_reports.inconclusive())


def test_long_lists_are_cut_and_say_so():
    report = sample_reports.poisoned_row()
    skips = tuple(SkipRecord(what=f"t{n}", why=f"reason {n % 7}") for n in range(70))
    report = dataclasses.replace(
        report, findings=report.findings * 4, coverage=dataclasses.replace(report.coverage, skipped=skips)
    )
    section = card_section(report)
    assert "| | and 3 more |" in section
    assert "- and 2 more reasons" in section
    assert "`t0`, `t7`, `t14` and 7 more\n" in section


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_the_pull_request_explains_itself_and_can_be_found_again(name):
    report = sample_reports.SAMPLES[name]()
    body = pr_body(report)
    assert body.endswith(f"{PR_MARKER}\n")
    assert body.count(PR_MARKER) == 1
    assert "every byte outside the section's markers stays as it is" in body
    assert "hubaudit scan" in body
    assert "a person will read it" in body
    assert "\n\n\n" not in body
    assert body == pr_body(report)


def test_the_title_never_tells_the_outcome():
    titles = {pr_title(make()) for make in sample_reports.SAMPLES.values()}
    assert titles == {"Add weight audit to the model card (hubaudit)"}


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_words_are_neutral(name):
    report = sample_reports.SAMPLES[name]()
    text = (card_section(report) + pr_body(report)).lower()
    assert not re.search(r"\b(safe|malicious|infected|attack|compromised)\b", text)
