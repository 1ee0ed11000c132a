"""Composes what is said to people on the Hub besides the card section: discussions, farewells, private reports.

Written to people who did not ask: neutral, short, with a way to say no. The templates escape everything they print.
"""

from audit.records import SEVERITIES, AuditReport
from reports.card_section import BEGIN, END
from reports.environment import MarkdownSource
from reports.markdown import PR_MARKER, card_section, finding_lines, from_template
from reports.safe_text import clean_line
from reports.wording import card_alone

SECURITY_CONTACT = "security@huggingface.co"
"""Where the Hub's security team takes reports (SECURITY.md of the transformers repository)."""

SUPERSEDED = (
    "The card was edited since this pull request was opened, and the two can no longer be merged. "
    "A fresh pull request, made from the present card, takes its place."
)
LETTER_FINDINGS = 20


def discussion_title(report: AuditReport) -> str:
    """Return the title of a discussion; the same for every outcome, since titles are public."""
    what = "Card" if card_alone(report) else "Weight"
    return f"{what} audit of this model ({clean_line(report.tool.name, limit=40)})"


def discussion_body(report: AuditReport) -> str:
    """Return the first comment of a discussion: the card section as text, and the hidden marker of our threads."""
    section = _bare_section(report)
    return from_template("discussion_body.md.jinja", report, must=(PR_MARKER,), section=section, marker=_marker())


def answer(report: AuditReport, *, severe: bool, key: str) -> str:
    """Return the reply to somebody who asked for an audit in a comment.

    Args:
        report: the finished audit.
        severe: there are findings that the owner hears of first, so the figures are left out.
        key: a hidden mark, by which a second run finds its answer; letters and digits.
    """
    section, marker = _bare_section(report), answer_mark(key)
    return from_template("answer.md.jinja", report, must=(marker,), section=section, severe=severe, marker=marker)


def answer_mark(key: str) -> MarkdownSource:
    """Return the hidden mark of the answer to one comment."""
    if not key.isalnum():
        raise ValueError(key)
    return MarkdownSource(f"<!-- hubaudit:answer {key} -->")


def closing_comment(report: AuditReport) -> str:
    """Return the comment with which a thread is closed once its findings are gone."""
    return from_template("closing_comment.md.jinja", report)


def private_report(report: AuditReport) -> str:
    """Return the letter to the owner that takes the place of a public thread when findings are severe."""
    worst = sorted(report.findings, key=lambda finding: -SEVERITIES.index(finding.severity))[:LETTER_FINDINGS]
    return from_template(
        "private_report.md.jinja",
        report,
        owner=report.subject.name.split("/")[0],
        name=report.subject.name,
        contact=SECURITY_CONTACT,
        findings=finding_lines(worst),
        remedies=[finding.remedy for finding in worst],
        more_findings=len(report.findings) - len(worst),
    )


def _bare_section(report: AuditReport) -> MarkdownSource:
    """Return the card section without its markers."""
    return MarkdownSource(card_section(report).strip().removeprefix(BEGIN).removesuffix(END).strip())


def _marker() -> MarkdownSource:
    return MarkdownSource(PR_MARKER)
