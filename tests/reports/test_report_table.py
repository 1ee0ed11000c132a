import dataclasses

import pytest
import sample_reports
from rich.cells import cell_len

from audit.records import CardClaim, SkipRecord, Token
from reports.table import render_table
from reports.wording import headline


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_the_first_line_is_the_answer_and_nothing_is_wider_than_the_terminal(name):
    report = sample_reports.SAMPLES[name]()
    lines = render_table(report).splitlines()
    assert lines[0] == headline(report)
    assert max(cell_len(line) for line in lines) <= 80
    assert max(cell_len(line) for line in render_table(report, width=50).splitlines()) <= 50


def test_findings_come_with_tokens_figures_and_advice():
    text = render_table(sample_reports.poisoned_row())
    assert "CRITICAL HA201 A token's row moved far beyond" in text
    assert "rows 12,935, 24,098 tokens cf  mn" in text
    assert "robust z of log row drift 17.1 σ (threshold > 6)" in text
    assert "high confidence" in text
    assert "Do not feed untrusted text" in text
    assert "An estimated 2.0 % of clean fine-tunes score at least" in text
    assert "48 clean fine-tunes" in text


def test_a_finding_shows_what_decided_and_says_how_much_more_there_is():
    report = sample_reports.poisoned_row()
    finding = report.findings[0]
    decided = dataclasses.replace(finding.measurements[0], name="what decided")
    others = [dataclasses.replace(finding.measurements[2], name=f"figure {n}") for n in range(30)]
    finding = dataclasses.replace(finding, measurements=(*others, decided))
    text = render_table(dataclasses.replace(report, findings=(finding,)))
    assert "figure 10 " in text
    assert "figure 11 " not in text
    assert "what decided" in text
    assert "and 19 more figures" in text


def test_lineage_says_what_was_checked_and_what_disagrees():
    text = render_table(sample_reports.wrong_base())
    assert "failed sampled rows: median centred cosine 0.0031" in text
    assert "README.md names demo/other-encoder" in text
    assert "Runner-up   demo/small-encoder" in text
    assert "contradicted   base model: demo/other-encoder (measured: cosine 0.003" in text


def test_what_was_not_checked_is_grouped_and_always_there():
    text = render_table(sample_reports.inconclusive())
    assert "This is not a pass." in text
    assert "model-00002-of-00002.safetensors is missing from the repository" in text
    assert "and 11 more" in text
    assert "The model was not run" in text
    assert "none declared or found" in text


def test_long_lists_are_cut_and_say_so():
    report = sample_reports.poisoned_row()
    finding = report.findings[0]
    location = dataclasses.replace(finding.locations[0], tokens=tuple(Token(id=n, text=f"t{n}") for n in range(20)))
    finding = dataclasses.replace(finding, locations=(location,) * 7)
    skips = tuple(SkipRecord(what="x", why=f"reason {n}") for n in range(25))
    report = dataclasses.replace(
        report,
        findings=(finding,) * 60,
        coverage=dataclasses.replace(report.coverage, skipped=skips),
        card=(CardClaim(claim="licence", declared="", observed="mit", status="supported"),),
    )
    text = render_table(report)
    assert "and 8 more" in text
    assert "and 2 more places" in text
    assert "and 10 more findings" in text
    assert "and 5 more reasons" in text
    assert "licence: nothing declared (measured: mit)" in text


def test_colour_only_when_asked_for():
    report = sample_reports.poisoned_row()
    assert "\x1b" not in render_table(report)
    assert render_table(report, colour=True).startswith("\x1b[1;31mFAIL")


def test_a_terminal_s_environment_changes_nothing(monkeypatch):
    plain = render_table(sample_reports.honest())
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert render_table(sample_reports.honest()) == plain
    assert "\x1b" in render_table(sample_reports.honest(), colour=True)
