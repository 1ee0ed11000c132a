"""Copies the scanner's facts into the records of a report, which never change with the scanner."""

from collections.abc import Sequence
from typing import Literal

from audit.evidence import Evidence
from audit.records import (
    BaseRecord,
    CheckRecord,
    ClaimRecord,
    CoverageRecord,
    FileRecord,
    LineageRecord,
    Measurement,
    SkipRecord,
    Subject,
)
from scanner.records import Lineage, RepoRef, Skip

FILES_LISTED = 2000


def subject(evidence: Evidence) -> Subject:
    """What was audited."""
    ref = evidence.candidate.ref
    hashed = sorted((file for file in evidence.candidate.files if file.sha256), key=lambda file: file.path)
    return Subject(
        repo_id=ref.repo_id,
        path=ref.path,
        revision=ref.revision,
        kind=_kind(evidence),
        files=tuple(
            FileRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256 or "")
            for file in hashed[:FILES_LISTED]
        ),
    )


def _kind(evidence: Evidence) -> Literal["model", "adapter", "quantized"]:
    if evidence.candidate.adapter_config is not None:
        return "adapter"
    return "quantized" if (evidence.candidate.config or {}).get("quantization_config") else "model"


def _base(ref: RepoRef | None) -> BaseRecord | None:
    return None if ref is None else BaseRecord(repo_id=ref.repo_id, path=ref.path, revision=ref.revision)


def lineage_record(lineage: Lineage) -> LineageRecord:
    """The lineage, field by field."""
    return LineageRecord(
        base=_base(lineage.base),
        relation=lineage.relation,
        status=lineage.status,
        claims=tuple(ClaimRecord(source=c.source, value=c.value) for c in lineage.claims),
        checks=tuple(
            CheckRecord(
                name=check.name,
                outcome=check.outcome,
                measurements=tuple(Measurement(name=m.name, value=m.value, unit=m.unit) for m in check.measurements),
                note=check.note,
            )
            for check in lineage.checks
        ),
        runner_up=lineage.runner_up,
        conflicts=lineage.conflicts,
        chain=lineage.chain,
    )


def coverage_record(evidence: Evidence, skips: Sequence[Skip], ours: Sequence[SkipRecord]) -> CoverageRecord:
    """What was compared, and every skip once: the scanner's, the caller's, and the detectors'."""
    coverage = evidence.drift.coverage if evidence.drift else None
    theirs = (*skips, *(coverage.skipped if coverage else ()))
    records = [SkipRecord(what=skip.what, why=skip.why) for skip in theirs]
    return CoverageRecord(
        parameters_compared=coverage.parameters_compared if coverage else 0,
        parameters_total=coverage.parameters_total if coverage else 0,
        bytes_read=coverage.bytes_read if coverage else 0,
        bytes_total=coverage.bytes_total if coverage else 0,
        skipped=tuple(dict.fromkeys((*records, *ours))),
    )
