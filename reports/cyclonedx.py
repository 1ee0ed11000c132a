"""Renders a report as a CycloneDX 1.6 ML-BOM: the model, its base as ancestor, its files, the findings.

The library builds, orders and serialises; it has no classes for model cards and annotations yet, so those two are
put into its output as plain JSON. A base that the weights contradict is no ancestor: it is named in the notes alone.
The serial number is derived from the report, so the same report gives the same bytes.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.impact_analysis import ImpactAnalysisResponse
from cyclonedx.model.tool import ToolRepository
from cyclonedx.model.vulnerability import (
    BomTarget,
    Vulnerability,
    VulnerabilityAnalysis,
    VulnerabilityRating,
    VulnerabilityScoreSource,
    VulnerabilitySeverity,
    VulnerabilitySource,
)
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from audit.records import AuditReport, BaseRecord, Finding, Subject
from reports.json_v1 import dump
from reports.safe_text import clean_line, clean_prose, clean_token
from reports.wording import (
    HOMEPAGE,
    base_status,
    coverage,
    error_rate,
    headline,
    limits,
    measured,
    outcome_sentence,
    pinned,
    place,
    reproduce,
    spoken,
)
from scanner.refs import as_repo_id

HUB = "https://huggingface.co"
RULES_PAGE = f"{HOMEPAGE}/blob/main/docs/rules.md"
MODEL_REF = "model"
FINDINGS_LISTED = 5000
CLAIMS_LISTED = 500
CHAIN_LISTED = 20
PLACES_LISTED = 20
TOKENS_LISTED = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def render_cyclonedx(report: AuditReport) -> str:
    """Return the bill of materials as ASCII JSON.

    Raises:
        ReportFormatError: a number of the report is not finite.
    """
    when = _moment(report.created_at)
    model = _model(report.subject, ref=MODEL_REF)
    model.pedigree = _pedigree(report)
    model.properties = _properties(_figures(report))
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, sha256(dump(report)).hexdigest()),
        metadata=BomMetaData(timestamp=when, component=model, tools=_tools(report)),
        components=_files(report.subject),
        vulnerabilities=[
            _vulnerability(finding, ref=f"finding-{number}")
            for number, finding in enumerate(report.findings[:FINDINGS_LISTED])
        ],
    )
    bom.register_dependency(model, bom.components)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"]["component"]["modelCard"] = _model_card(report)
    document["annotations"] = [_annotation(report, when)]
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _moment(created_at: str) -> datetime:
    """Return the time of the report; the epoch where a report of somebody else's making has none."""
    try:
        when = datetime.fromisoformat(created_at)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return _EPOCH


def _tools(report: AuditReport) -> ToolRepository:
    tool = Component(
        name=clean_line(report.tool.name),
        version=clean_line(report.tool.version),
        type=ComponentType.APPLICATION,
        bom_ref="tool",
    )
    return ToolRepository(components=[tool])


def _model(repo: Subject | BaseRecord, *, ref: str) -> Component:
    return _named(repo.name, revision=repo.revision, on_hub=repo.repo_id is not None, ref=ref)


def _named(name: str, *, revision: str | None, on_hub: bool, ref: str) -> Component:
    """Return a model; with its package URL and its pages when it is a repository of the Hub."""
    repo_id = as_repo_id(name) if on_hub else None
    if repo_id is None:
        version = clean_line(revision) if revision else None
        kind = ComponentType.MACHINE_LEARNING_MODEL
        return Component(type=kind, name=clean_line(name), version=version, bom_ref=ref)
    owner, _, short = repo_id.rpartition("/")
    page = f"{HUB}/{quote(repo_id)}"
    at = f"/blob/{quote(revision, safe='', errors='replace')}" if revision else "/blob/main"
    pages = {
        ExternalReferenceType.DISTRIBUTION: page,
        ExternalReferenceType.MODEL_CARD: f"{page}{at}/README.md",
    }
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        group=owner or None,
        name=short,
        version=clean_line(revision) if revision else None,
        purl=PackageURL(
            type="huggingface", namespace=owner or None, name=short, version=clean_line(revision) if revision else None
        ),
        external_references=[ExternalReference(type=kind, url=XsUri(url)) for kind, url in pages.items()],
        bom_ref=ref,
    )


def _pedigree(report: AuditReport) -> Pedigree:
    """Return where the model comes from: the base and its declared ancestors, nested, and how sure that is."""
    lineage = report.lineage
    if lineage.base is None:
        return Pedigree(notes="No base is declared or was found.")
    notes = f"{pinned(lineage.base)}: {base_status(report)}, relation {lineage.relation}."
    if lineage.runner_up:
        notes += f" Nearest other model: {lineage.runner_up}."
    if lineage.status == "contradicted":
        return Pedigree(notes=clean_prose(notes))
    base = _model(lineage.base, ref="base")
    child = base
    roots = [name for name in lineage.chain if name != lineage.base.name]
    for number, name in enumerate(roots[:CHAIN_LISTED]):
        parent = _named(name, revision=None, on_hub=True, ref=f"ancestor-{number}")
        child.pedigree = Pedigree(ancestors=[parent], notes="As declared; not compared.")
        child = parent
    return Pedigree(ancestors=[base], notes=clean_prose(notes))


def _files(subject: Subject) -> list[Component]:
    return [
        Component(
            type=ComponentType.FILE,
            bom_ref=f"file-{number}",
            name=clean_line(file.path),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256.lower())]
            if _is_sha256(file.sha256)
            else [],
            properties=_properties([("size", str(file.size_bytes)), ("hash", "as the Hub declares it")]),
        )
        for number, file in enumerate(subject.files)
    ]


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(char in "0123456789abcdefABCDEF" for char in text)


def _figures(report: AuditReport) -> Iterator[tuple[str, str]]:
    """Yield what the audit says of the model as a whole."""
    yield "outcome", report.verdict.outcome
    yield "score", repr(float(report.verdict.score))
    if report.verdict.false_positive_rate is not None:
        yield "false-positive-rate", repr(float(report.verdict.false_positive_rate))
    yield "error-rate", error_rate(report)
    yield "coverage", coverage(report)
    yield "base", base_status(report)
    yield "relation", report.lineage.relation
    for key in ("id", "digest"):
        if key in report.profile:
            yield f"profile-{key}", str(report.profile[key])
    yield "command", reproduce(report)
    if len(report.findings) > FINDINGS_LISTED:
        yield "findings-not-listed", str(len(report.findings) - FINDINGS_LISTED)


def _properties(pairs: Iterable[tuple[str, str]]) -> list[Property]:
    return [Property(name=f"hubaudit:{clean_line(name)}", value=clean_prose(value)) for name, value in pairs]


def _vulnerability(finding: Finding, *, ref: str) -> Vulnerability:
    """Return a finding; its severity is ours, by a method of our own, and never a CVSS score."""
    rule = clean_line(finding.rule_id)
    url = f"{RULES_PAGE}#{quote(rule.lower(), safe='', errors='replace')}"
    source = VulnerabilitySource(name="hubaudit", url=XsUri(url))
    figures = "; ".join(measured(measurement) for measurement in finding.measurements)
    rating = VulnerabilityRating(
        source=source, severity=VulnerabilitySeverity(finding.severity), method=VulnerabilityScoreSource.OTHER
    )
    accepted = finding.suppression
    return Vulnerability(
        bom_ref=ref,
        id=rule,
        source=source,
        ratings=[rating],
        description=clean_prose(finding.title),
        detail=clean_prose(f"{finding.explanation} Measured: {figures}."),
        recommendation=clean_prose(finding.remedy),
        affects=[BomTarget(ref=MODEL_REF)],
        analysis=VulnerabilityAnalysis(
            responses=[ImpactAnalysisResponse.WILL_NOT_FIX],
            detail=clean_prose(f"Accepted until {accepted.expires}: {accepted.reason}"),
        )
        if accepted
        else None,
        properties=_properties(_places(finding)),
    )


def _places(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "fingerprint", finding.fingerprint
    yield "confidence", finding.confidence
    for location in finding.locations[:PLACES_LISTED]:
        tokens = " ".join(clean_token(token.text) for token in location.tokens[:TOKENS_LISTED])
        parts = (location.file, location.tensor or "", place(location), f"tokens {tokens}" if tokens else "")
        yield "location", " ".join(filter(None, parts))


def _model_card(report: AuditReport) -> dict[str, Any]:
    """Return what the model's own card claims, each claim with what was observed."""
    claims = [
        {
            "name": f"hubaudit:claim:{clean_line(spoken(claim.claim))}",
            "value": clean_prose(
                f"{claim.status.replace('_', ' ')}: declared {claim.declared or 'nothing'}"
                + (f", observed {claim.observed}" if claim.observed else "")
            ),
        }
        for claim in report.card[:CLAIMS_LISTED]
    ]
    return {"bom-ref": "model-card", "properties": claims}


def _annotation(report: AuditReport, when: datetime) -> dict[str, Any]:
    """Return the answer in words, with what it does not speak for."""
    said = [headline(report), outcome_sentence(report), *report.verdict.notes[:10], "Not checked:", *limits(report)]
    tool = {"type": "application", "name": clean_line(report.tool.name), "version": clean_line(report.tool.version)}
    return {
        "bom-ref": "answer",
        "subjects": [MODEL_REF],
        "annotator": {"component": tool},
        "timestamp": when.isoformat(),
        "text": "\n".join(clean_prose(line) for line in said),
    }
