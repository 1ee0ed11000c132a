"""Renders a report as SARIF 2.1.0, for code scanning.

A finding without a line is not shown by code scanning, so each one is anchored to a file of the repository: the
README's ``base_model`` line, or the weight file; the tensor is the logical location. What was not compared becomes a
notification, so that an empty list of results is never all there is to see.
"""

import json
import re
from collections.abc import Iterable
from gzip import compress
from typing import Any
from urllib.parse import quote

from audit.records import AuditReport, Confidence, Finding, Location, Severity
from audit.rulebook import all_rules, explain
from reports.safe_text import clean_line, clean_prose, clean_token
from reports.wording import (
    HOMEPAGE,
    coverage,
    group_skips,
    headline,
    measured,
    outcome_sentence,
    place,
    triage_lines,
)

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
RULES_PAGE = f"{HOMEPAGE}/blob/main/docs/rules.md"
RESULTS_SHOWN = 5000
"""GitHub shows this many results of a run; findings are sorted worst first, so the rest is the least."""

LOCATIONS_SHOWN = 100
LOCATIONS_TOTAL = 25_000
"""Places in all results together; beyond that, each result names its share of them."""

PACKED_LIMIT_BYTES = 9_500_000
"""Below the 10 MB (packed by gzip) beyond which GitHub refuses an upload."""

TOKENS_SHOWN = 20
CARD = "README.md"

SEVERITY_TABLE: dict[Severity, tuple[str, str]] = {
    "critical": ("error", "9.5"),
    "high": ("error", "8.0"),
    "medium": ("warning", "5.5"),
    "low": ("note", "2.0"),
    "info": ("note", "0.0"),
}
"""Our severity → SARIF level and GitHub's ``security-severity`` (critical above 9, high from 7, medium from 4)."""

PRECISION: dict[Confidence, str] = {"exact": "very-high", "high": "high", "medium": "medium", "low": "low"}

_NOTIFICATIONS = {
    "inconclusive": "The audit could not conclude.",
    "note": "A remark of the verdict.",
    "not-compared": "Something was not read or not compared.",
    "sampled": "What a budget left out, and how likely an edit would have shown.",
    "not-listed": "There are more results than a viewer shows.",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)\Z", re.ASCII)
_HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?\Z", re.ASCII)
_BASE_MODEL_LINE = re.compile(r"[ \t]*base_model[ \t]*:")


def render_sarif(report: AuditReport, *, readme: str | None = None) -> str:
    """Return a SARIF log with one run, as ASCII JSON.

    ``readme`` is the text of the card, when at hand: findings about the card are then anchored to the line of
    ``base_model`` instead of line 1.
    """
    shown = min(RESULTS_SHOWN, len(report.findings))
    text = _log(report, readme, shown)
    while shown and len(text) > PACKED_LIMIT_BYTES and len(compress(text.encode("ascii"), 1)) > PACKED_LIMIT_BYTES:
        shown //= 2
        text = _log(report, readme, shown)
    return text


def _log(report: AuditReport, readme: str | None, count: int) -> str:
    """Return the log with the first ``count`` findings."""
    shown = report.findings[:count]
    wanted = sum(min(LOCATIONS_SHOWN, len(finding.locations)) for finding in shown)
    places = LOCATIONS_SHOWN if wanted <= LOCATIONS_TOTAL else max(1, LOCATIONS_TOTAL // count)
    rules = _rules(shown)
    index = {rule["id"]: place for place, rule in enumerate(rules)}
    card_line = _base_model_line(readme)
    run = {
        "tool": {
            "driver": {
                "name": clean_line(report.tool.name),
                "version": clean_line(report.tool.version),
                "informationUri": HOMEPAGE,
                "rules": rules,
                "notifications": [{"id": key, "shortDescription": _text(text)} for key, text in _NOTIFICATIONS.items()],
            }
        },
        "automationDetails": {"id": f"hubaudit/{quote(report.subject.name, errors='replace')}/"},
        "invocations": [_invocation(report, count)],
        "results": [_result(finding, index[clean_line(finding.rule_id)], card_line, places) for finding in shown],
        "columnKind": "unicodeCodePoints",
        "properties": _properties(report),
        **_version_control(report),
    }
    return json.dumps({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False) + "\n"


def _rules(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return one descriptor per rule, in order of first appearance.

    Rules of this version are described by the rule book, so that a descriptor never moves with a finding.
    """
    book = {rule.id: rule for rule in all_rules()}
    rules: dict[str, dict[str, Any]] = {}
    for finding in findings:
        rule_id = clean_line(finding.rule_id)
        if rule_id not in rules:
            known = book.get(rule_id)
            title, severity = (known.title, known.severity) if known else (finding.title, finding.severity)
            level, security_severity = SEVERITY_TABLE[severity]
            help_text = _text(f"Run `hubaudit explain {rule_id}` for what it measures, its error rates and what to do.")
            rules[rule_id] = {
                "id": rule_id,
                "shortDescription": _text(title),
                "help": help_text | _section(rule_id),
                "helpUri": f"{RULES_PAGE}#{quote(rule_id.lower(), safe='', errors='replace')}",
                "defaultConfiguration": {"level": level},
                "properties": {
                    "tags": ["security", "model-weights"],
                    "security-severity": security_severity,
                    "precision": PRECISION[finding.confidence],
                },
            }
    return list(rules.values())


def _section(rule_id: str) -> dict[str, str]:
    """Return the rule's section of the rule book; nothing for a rule of another version, which the book has not."""
    try:
        return {"markdown": explain(rule_id)}
    except KeyError:
        return {}


def _result(finding: Finding, rule_index: int, card_line: int, places: int) -> dict[str, Any]:
    figures = "; ".join(measured(measurement) for measurement in finding.measurements)
    text = f"{finding.title}. {finding.explanation} Measured: {figures}. What to do: {finding.remedy}"
    return {
        "ruleId": clean_line(finding.rule_id),
        "ruleIndex": rule_index,
        "level": SEVERITY_TABLE[finding.severity][0],
        "message": _text(text),
        "locations": [_location(location, card_line) for location in finding.locations[:places]],
        "partialFingerprints": {"hubaudit/v1": clean_line(finding.fingerprint)},
        "suppressions": _suppressions(finding),
        "properties": {
            "severity": finding.severity,
            "confidence": finding.confidence,
            "measurements": [
                {"name": clean_line(m.name), "value": m.value, "unit": clean_line(m.unit), "threshold": m.threshold}
                for m in finding.measurements
            ],
        },
    }


def _suppressions(finding: Finding) -> list[dict[str, Any]]:
    """Return the acceptance of a finding (§ 3.27.23); the empty list says that there is none.

    Its state is left out, since the published schemas disagree on that property's name; absent means accepted.
    """
    if finding.suppression is None:
        return []
    justification = clean_prose(finding.suppression.reason)
    expires = {"expires": clean_line(finding.suppression.expires)}
    return [{"kind": "external", "justification": justification, "properties": expires}]


def _location(location: Location, card_line: int) -> dict[str, Any]:
    parts = [part for part in location.file.split("/") if part not in {"", ".", ".."}]
    uri = "/".join(quote(part, safe="", errors="replace") for part in parts) or CARD
    physical = {"artifactLocation": {"uri": uri}, "region": {"startLine": card_line if uri == CARD else 1}}
    if location.tensor is None:
        return {"physicalLocation": physical}
    logical: dict[str, Any] = {"fullyQualifiedName": clean_line(location.tensor), "kind": "array"}
    tokens = [clean_token(token.text) for token in location.tokens[:TOKENS_SHOWN]]
    logical["properties"] = {"where": place(location), "tokens": tokens}
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def _invocation(report: AuditReport, count: int) -> dict[str, Any]:
    """Return whether the audit concluded, and everything that it did not look at."""
    concluded = report.verdict.outcome != "inconclusive"
    notes = [_notification("note", "note" if concluded else "warning", note) for note in report.verdict.notes]
    notes += [_notification("sampled", "note", line) for line in triage_lines(report)]
    if not concluded:
        notes.insert(0, _notification("inconclusive", "error", f"{headline(report)}. {outcome_sentence(report)}"))
    groups, left_out = group_skips(report.coverage.skipped)
    for group in groups:
        more = f" and {group.more:,} more" if group.more else ""
        notes.append(_notification("not-compared", "note", f"{group.why}: {', '.join(group.names)}{more}"))
    if left_out:
        notes.append(_notification("not-compared", "note", f"and {left_out:,} more reasons, listed in the JSON report"))
    if len(report.findings) > count:
        surplus = len(report.findings) - count
        notes.append(_notification("not-listed", "warning", f"{surplus:,} more findings are in the JSON report"))
    invocation: dict[str, Any] = {"executionSuccessful": concluded, "toolExecutionNotifications": notes}
    time = _TIME.match(report.created_at)
    return invocation | ({"endTimeUtc": f"{time[1]}Z"} if time else {})


def _notification(kind: str, level: str, text: str) -> dict[str, Any]:
    return {"descriptor": {"id": kind}, "level": level, "message": _text(text)}


def _properties(report: AuditReport) -> dict[str, Any]:
    lineage = report.lineage
    return {
        "outcome": report.verdict.outcome,
        "score": report.verdict.score,
        "falsePositiveRate": report.verdict.false_positive_rate,
        "coverage": coverage(report),
        "parametersCompared": report.coverage.parameters_compared,
        "parametersTotal": report.coverage.parameters_total,
        "base": clean_line(lineage.base.name) if lineage.base else None,
        "lineage": lineage.status,
    }


def _version_control(report: AuditReport) -> dict[str, Any]:
    """Return the audited commit, when the subject is a repository of the Hub."""
    repo_id, revision = report.subject.repo_id, report.subject.revision
    if not (repo_id and revision and _HUB_ID.match(repo_id)):
        return {}
    details = {"repositoryUri": f"https://huggingface.co/{repo_id}", "revisionId": clean_line(revision)}
    return {"versionControlProvenance": [details]}


def _base_model_line(readme: str | None) -> int:
    """Return the line (from 1) of ``base_model`` in the front matter; 1 when there is none."""
    lines = (readme or "").splitlines()
    if not lines or lines[0].lstrip("\ufeff").strip() != "---":
        return 1
    for number, line in enumerate(lines[1:], start=2):
        if line.strip() == "---":
            break
        if _BASE_MODEL_LINE.match(line):
            return number
    return 1


def _text(text: str) -> dict[str, str]:
    """Return a SARIF message in which nothing reads as a link (§ 3.11.6) or as a placeholder (§ 3.11.5)."""
    return {"text": re.sub(r"\{(\d+)\}", r"{{\1}}", clean_prose(text).replace("](", "] ("))}
