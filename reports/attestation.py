"""Turns a report into an in-toto statement: what was audited, by which rules and thresholds, and with what verdict.

The subjects are the report file and the files whose hash the Hub declares; the predicate names both commits. The
statement says what a report says: it vouches for no model. Reading it back is strict, since a verifier acts on it.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from audit.records import AuditReport, BaseRecord, Subject
from reports.safe_text import clean_line
from reports.wording import HOMEPAGE

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = f"{HOMEPAGE}/attestations/weight-audit/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
HUB = "https://huggingface.co"


class NotAnAttestation(ValueError):  # noqa: N818
    """A signed text is no audit attestation; the message completes "the attestation …"."""


def statement(report: AuditReport, raw: bytes) -> bytes:
    """Return the statement as canonical JSON (sorted keys, no spaces, ASCII).

    Args:
        report: as read from ``raw``.
        raw: the bytes of the report file, whose SHA-256 is the first subject.
    """
    name = clean_line(report.subject.name)
    subjects = [{"name": "report.json", "digest": {"sha256": sha256(raw).hexdigest()}}]
    subjects += [
        {"name": f"{name}/{clean_line(file.path)}", "digest": {"sha256": file.sha256.lower()}}
        for file in report.subject.files
    ]
    content = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": _predicate(report, raw),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _predicate(report: AuditReport, raw: bytes) -> dict[str, Any]:
    verdict, lineage, reach = report.verdict, report.lineage, report.coverage
    return {
        "report": {
            "digest": {"sha256": sha256(raw).hexdigest()},
            "mediaType": "application/json",
            "schema": clean_line(report.schema),
            "createdAt": clean_line(report.created_at),
        },
        "model": _repository(report.subject),
        "base": _repository(lineage.base) if lineage.base else None,
        "lineage": {"status": lineage.status, "relation": clean_line(lineage.relation)},
        "tool": {"name": clean_line(report.tool.name), "version": clean_line(report.tool.version)},
        "rules": {"digest": _digest(report.profile.get("rules"))},
        "thresholds": {
            "id": clean_line(str(report.profile.get("id", ""))),
            "digest": _digest(report.profile.get("digest")),
        },
        "coverage": {
            "parametersCompared": reach.parameters_compared,
            "parametersTotal": reach.parameters_total,
            "skipped": len(reach.skipped),
        },
        "verdict": {
            "outcome": verdict.outcome,
            "score": verdict.score,
            "falsePositiveRate": verdict.false_positive_rate,
            "reasons": [clean_line(reason) for reason in verdict.reasons],
            "findings": len(report.findings),
            "accepted": sum(1 for finding in report.findings if finding.suppression is not None),
        },
    }


def _repository(repo: Subject | BaseRecord) -> dict[str, Any]:
    """Return a resource descriptor; a folder has neither address nor commit."""
    described: dict[str, Any] = {"name": clean_line(repo.name)}
    if repo.repo_id is not None:
        described["uri"] = f"{HUB}/{clean_line(repo.repo_id)}"
    if repo.revision:
        described["digest"] = {"gitCommit": clean_line(repo.revision)}
    return described


def _digest(value: object) -> dict[str, str] | None:
    """Return a digest set; None where a report of an older version does not say."""
    return {"sha256": clean_line(value)} if isinstance(value, str) and value else None


def read_statement(payload: bytes, payload_type: str) -> Mapping[str, Any]:
    """Return the predicate of a signed statement.

    Raises:
        NotAnAttestation: another payload type, not JSON, not an in-toto statement, or another predicate type.
    """
    if payload_type != PAYLOAD_TYPE:
        raise NotAnAttestation(f"holds a payload of type {clean_line(payload_type)!r}, not an in-toto statement")
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        raise NotAnAttestation("holds a payload that is not JSON") from None
    if not isinstance(content, dict) or content.get("_type") != STATEMENT_TYPE:
        raise NotAnAttestation(f"is no in-toto statement of type {STATEMENT_TYPE}")
    found = content.get("predicateType")
    if found != PREDICATE_TYPE:
        raise NotAnAttestation(f"is about something else ({clean_line(str(found))!r}), not a weight audit")
    predicate = content.get("predicate")
    if not isinstance(predicate, dict) or _report_digest(predicate) is None:
        raise NotAnAttestation("does not name the report that it attests")
    return predicate


def _report_digest(predicate: Mapping[str, Any]) -> str | None:
    try:
        digest = predicate["report"]["digest"]["sha256"]
    except (KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def attests(predicate: Mapping[str, Any], raw: bytes) -> bool:
    """Whether the statement is about a report file of exactly these bytes."""
    return _report_digest(predicate) == sha256(raw).hexdigest()


def summary(predicate: Mapping[str, Any]) -> str:
    """Return the attested answer in one line, fit for a terminal, whatever the signer wrote into it."""
    verdict, tool = _part(predicate, "verdict"), _part(predicate, "tool")
    parts = [
        f"{_pinned(predicate, 'model')}: {str(verdict.get('outcome', 'no outcome')).upper()}",
        f"base {_pinned(predicate, 'base')} {_part(predicate, 'lineage').get('status', '')}".rstrip(),
        f"{tool.get('name', '')} {tool.get('version', '')}".strip(),
        f"thresholds {_part(predicate, 'thresholds').get('id', '')}".rstrip(),
        str(_part(predicate, "report").get("createdAt", "")),
    ]
    return clean_line(" · ".join(filter(None, parts)), limit=600)


def _part(predicate: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = predicate.get(name)
    return found if isinstance(found, Mapping) else {}


def _pinned(predicate: Mapping[str, Any], name: str) -> str:
    repo = _part(predicate, name)
    commit = _part(repo, "digest").get("gitCommit")
    named = str(repo.get("name", "none"))
    return f"{named}@{commit}" if commit else named
