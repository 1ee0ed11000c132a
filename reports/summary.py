"""Composes the job summary of a CI run: Markdown under the size that GitHub shows (1 MiB)."""

from audit.records import AuditReport
from reports.markdown import finding_lines, from_template
from reports.wording import group_skips

LIMIT_BYTES = 1_000_000
"""Below the 1 MiB at which GitHub drops a step's whole summary, so that another step has room as well."""

FINDINGS_SHOWN = 200
CLAIMS_SHOWN = 50


def render_summary(report: AuditReport) -> str:
    """Return the summary; as many findings as fit, worst first, and the number of those that do not."""
    shown = min(FINDINGS_SHOWN, len(report.findings))
    text = _summary(report, shown)
    while shown and len(text.encode()) > LIMIT_BYTES:
        shown //= 2
        text = _summary(report, shown)
    return text


def _summary(report: AuditReport, shown: int) -> str:
    skips, more_skips = group_skips(report.coverage.skipped)
    return from_template(
        "summary.md.jinja",
        report,
        findings=finding_lines(report.findings[:shown]),
        more_findings=len(report.findings) - shown,
        claims=report.card[:CLAIMS_SHOWN],
        skips=skips,
        more_skips=more_skips,
    )
