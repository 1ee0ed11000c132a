"""Composes Markdown for the Hub: the section of a model card, and the pull request that brings it.

Short and neutral, since it is read by people who did not ask for it. The templates escape everything they print
(``reports.environment``); what is Markdown on purpose is marked here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from audit.records import AuditReport, Finding
from reports.card_section import BEGIN, END
from reports.environment import MarkdownSource, markdown_environment, rendered
from reports.safe_text import clean_line, clean_token
from reports.template_folder import BadTemplate, in_use
from reports.wording import (
    HOMEPAGE,
    base_status,
    card_alone,
    coverage,
    curvature_lines,
    error_rate,
    group_skips,
    headline,
    limits,
    measured,
    moment,
    outcome_sentence,
    outcome_words,
    pinned,
    place,
    probe_lines,
    reproduce,
    severity,
    triage_lines,
)

PR_MARKER = "<!-- hubaudit:thread -->"
"""Hidden in every thread of ours, so that the next run updates that thread and opens no other."""

CARD_FINDINGS = 5
CARD_SKIPS = 5
TOKENS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """A finding as one table row; the texts are as they came, the template escapes them."""

    severity: str
    rule: str
    title: str
    explanation: str
    place: str
    tokens: tuple[str, ...]
    figures: tuple[str, ...]


def card_section(report: AuditReport) -> str:
    """Return the section of a model card, markers included, ending in a newline."""
    skips, more_skips = group_skips(report.coverage.skipped, groups=CARD_SKIPS, names=3)
    return from_template(
        "card_section.md.jinja",
        report,
        must=(BEGIN, END),
        begin=MarkdownSource(BEGIN),
        end=MarkdownSource(END),
        outcome=f"{outcome_words(report)}.",
        when=moment(report.created_at),
        relation=report.lineage.relation,
        findings=finding_lines(report.findings[:CARD_FINDINGS]),
        more_findings=max(0, len(report.findings) - CARD_FINDINGS),
        contradicted=[claim for claim in report.card if claim.status == "contradicted"][:CARD_FINDINGS],
        skips=skips,
        more_skips=more_skips,
    )


def pr_title(report: AuditReport) -> str:
    """Return the title of the pull request and of its commit; the same for every outcome, since titles are public."""
    what = "card" if card_alone(report) else "weight"
    return f"Add {what} audit to the model card ({clean_line(report.tool.name, limit=40)})"


def pr_body(report: AuditReport, *, metadata: bool = False) -> str:
    """Return the first comment of the pull request; its hidden marker lets later runs find and update it.

    ``metadata`` says that the pull request changes a line of the card's metadata as well.
    """
    marker = MarkdownSource(PR_MARKER)
    return from_template("pr_body.md.jinja", report, must=(PR_MARKER,), marker=marker, metadata=metadata)


def finding_lines(findings: Iterable[Finding]) -> list[FindingLine]:
    """Return findings as rows: the primary place, up to eight tokens, and the figures that have a threshold."""
    return [
        FindingLine(
            severity=severity(finding),
            rule=finding.rule_id,
            title=finding.title,
            explanation=finding.explanation,
            place=_place(finding),
            tokens=tuple(clean_token(token.text) for token in finding.locations[0].tokens[:TOKENS_SHOWN]),
            figures=tuple(measured(m) for m in finding.measurements[:4] if m.threshold is not None),
        )
        for finding in findings
    ]


def base_context(report: AuditReport) -> dict[str, Any]:
    """Return what all Markdown documents say of a report."""
    return {
        "tool": f"{report.tool.name} {report.tool.version}",
        "subject": pinned(report.subject),
        "base": pinned(report.lineage.base) if report.lineage.base else "",
        "headline": headline(report),
        "sentence": outcome_sentence(report),
        "base_status": base_status(report),
        "coverage": coverage(report),
        "error_rate": error_rate(report),
        "card_alone": card_alone(report),
        "calibration": report.verdict.calibration,
        "notes": report.verdict.notes[:5],
        "triage": triage_lines(report),
        "probe": probe_lines(report),
        "curvature": curvature_lines(report),
        "limits": limits(report),
        "command": reproduce(report),
        "homepage": MarkdownSource(HOMEPAGE),
    }


def _place(finding: Finding) -> str:
    location = finding.locations[0]
    return " ".join(filter(None, (location.tensor or location.file, place(location))))


def from_template(template: str, report: AuditReport, *, must: tuple[str, ...] = (), **context: Any) -> str:
    """Return a Markdown document.

    Args:
        template: its name.
        report: what it is about.
        must: markers that the text has to hold, each once and in this order, for later runs to find it again.
        context: what the template needs besides ``base_context``.

    Raises:
        BadTemplate: a user's template fails, or left a marker out.
    """
    text = rendered(markdown_environment(), template, **base_context(report), **context)
    places = [text.find(marker) for marker in must]
    if in_use() and (-1 in places or places != sorted(places) or any(text.count(marker) != 1 for marker in must)):
        raise BadTemplate(
            f"{template}: print {' and '.join(must)} once each, in this order, for a later run to find the text again."
        )
    if in_use() and must == (BEGIN, END) and not (text.strip().startswith(BEGIN) and text.strip().endswith(END)):
        raise BadTemplate(f"{template}: nothing may stand before {BEGIN} or after {END}; it would stay in the card.")
    return text
