"""The pure middle of the program: evidence in, sealed report out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from audit.banks import Suited, suit
from audit.card.checks import claims_of, with_claims
from audit.card.plain import words
from audit.curvature_record import curvature_record
from audit.detectors import adapter_trend
from audit.detectors.lineage import CONTRADICTED
from audit.drift_records import drift_records
from audit.evidence import Detector, Evidence, Hit
from audit.merging import one_per_tensor
from audit.policy import decide
from audit.probe_record import probe_record
from audit.readings import calibrated, model_type
from audit.records import (
    SCHEMA_V1,
    SEVERITIES,
    AuditReport,
    DriftRecord,
    Finding,
    RuntimeRecord,
    SkipRecord,
    ToolRecord,
)
from audit.rule_digest import rule_digest
from audit.rulebook import DETECTORS
from audit.sealing import coverage_record, lineage_record, subject
from audit.suppressions import Entry, suppress
from audit.triage import sampling_doubts, triage_record
from scanner.records import Skip
from scanner.refs import as_repo_id
from scanner.weights.layout import PURIFICATION_PATCH

TOOL = "hubaudit"
RUN_ON_TEXTS = ("ForSequenceClassification", "ForCausalLM", "LMHeadModel")
"""Ends of the architectures that a scan with data runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the detectors said: hits, abstentions and skips, and the names of those that broke."""

    hits: tuple[Hit, ...]
    skips: tuple[SkipRecord, ...]
    broken: tuple[str, ...]
    ran: tuple[str, ...]
    """Ids of the drift rules that could judge."""


def audit(
    evidence: Evidence,
    *,
    created_at: str,
    tool_version: str,
    runtime: RuntimeRecord,
    skips: Sequence[Skip] = (),
    detectors: Sequence[Detector] = DETECTORS,
    accepted: Sequence[Entry] = (),
    judged: Judged | None = None,
) -> AuditReport:
    """Judge the evidence and seal the report.

    Args:
        evidence: the facts and the profile.
        created_at: UTC time stamp, ISO 8601; the clock is the caller's.
        tool_version: of hubaudit.
        runtime: what the scan cost.
        skips: what the caller could not read, beside those of the drift's coverage.
        detectors: the rule book, all of it unless a test says otherwise.
        accepted: entries of a baseline; they hold on the day of ``created_at``.
        judged: what those detectors said of this evidence, when they ran already.
    """
    suited = suit(evidence)
    evidence = with_claims(suited.evidence)
    judged = judged or run_detectors(evidence, detectors)
    about = subject(evidence)
    baseline = suppress(judged.hits, accepted, model=about.name, today=_day(created_at)) if accepted else None
    raw = baseline.hits if baseline else judged.hits
    # Apart, so that an accepted finding does not swallow what another rule says of the same tensor.
    hits = (*one_per_tensor([h for h in raw if not _accepted(h)]), *one_per_tensor([h for h in raw if _accepted(h)]))
    card, card_skips = claims_of(evidence)
    drift: list[DriftRecord] = []
    left_out: list[SkipRecord] = []
    for record in drift_records(evidence):
        if isinstance(record, DriftRecord):
            drift.append(record)
        else:
            left_out.append(record)
    verdict = decide(
        _weighing(hits, detectors),
        evidence.drift.coverage if evidence.drift else None,
        evidence.lineage,
        evidence.profile,
        (*_notes(suited, judged), *(baseline.notes if baseline else ())),
        doubts=_doubts(evidence, judged),
        calibrated=calibrated(evidence),
        accepted_base=any(hit.rule_id == CONTRADICTED.id and _accepted(hit) for hit in raw),
    )
    return AuditReport(
        schema=SCHEMA_V1,
        tool=ToolRecord(name=TOOL, version=tool_version),
        created_at=created_at,
        subject=about,
        lineage=lineage_record(evidence.lineage),
        coverage=coverage_record(evidence, skips, (*judged.skips, *card_skips, *left_out)),
        verdict=verdict,
        findings=sorted_findings(hit.finding for hit in hits if hit.finding is not None),
        card=card,
        drift=tuple(drift),
        runtime=runtime,
        probe=probe_record(evidence),
        triage=triage_record(evidence),
        curvature=curvature_record(evidence),
        profile={
            "id": evidence.profile.id,
            "digest": evidence.profile.digest,
            "rules": rule_digest(),
            "calibration": evidence.profile.calibration,
            "clean_models": evidence.profile.clean_models,
            "bank": evidence.profile.bank,
            "likeness": suited.likeness.p_value if suited.likeness else None,
        },
    )


def run_detectors(evidence: Evidence, detectors: Sequence[Detector] = DETECTORS) -> Judged:
    """Run every detector that can run; one that raises becomes a skip, since one broken rule must not end a scan."""
    hits: list[Hit] = []
    skips: list[SkipRecord] = []
    broken: list[str] = []
    ran: list[str] = []
    for detector in detectors:
        why = _cannot_run(detector, evidence)
        if why is not None:
            skips += [SkipRecord(what=rule.id, why=why) for rule in detector.rules]
            continue
        try:
            said = tuple(detector.run(evidence))
        except Exception as error:  # noqa: BLE001
            skips += [
                SkipRecord(what=rule.id, why=f"its detector broke ({type(error).__name__})") for rule in detector.rules
            ]
            broken.append(detector.name)
            continue
        hits += [hit for hit in said if isinstance(hit, Hit)]
        abstained = [skip for skip in said if isinstance(skip, SkipRecord)]
        skips += abstained
        if detector.needs_drift and detector.bears_a_pass:
            ran += [hit.rule_id for hit in said if isinstance(hit, Hit)]
    return Judged(hits=tuple(hits), skips=tuple(skips), broken=tuple(broken), ran=tuple(dict.fromkeys(ran)))


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Most severe first, then by rule, then by fingerprint."""
    return tuple(sorted(findings, key=lambda f: (-SEVERITIES.index(f.severity), f.rule_id, f.fingerprint)))


def _accepted(hit: Hit) -> bool:
    return hit.finding is not None and hit.finding.suppression is not None


def _day(created_at: str) -> date:
    """The day of the audit, UTC."""
    return datetime.fromisoformat(created_at).astimezone(UTC).date()


def _cannot_run(detector: Detector, evidence: Evidence) -> str | None:
    if detector.needs_drift and evidence.drift is None:
        return "the weights were not compared"
    if detector.needs_verified_base and evidence.lineage.status != "verified":
        return f"the declared base is {evidence.lineage.status}, and changes against another base mean nothing"
    return None


def _weighing(hits: Iterable[Hit], detectors: Sequence[Detector]) -> tuple[Hit, ...]:
    weighs = {rule.id for detector in detectors for rule in detector.rules if rule.weighs}
    return tuple(hit for hit in hits if hit.rule_id in weighs)


def _changed(evidence: Evidence) -> bool:
    return evidence.drift is not None and any(t.changed for t in evidence.drift.tensors)


def _doubts(evidence: Evidence, judged: Judged) -> tuple[str, ...]:
    """Reasons beyond coverage and lineage that forbid a pass."""
    doubts = [f"The detector {name} broke, so its rules were not judged." for name in judged.broken]
    if evidence.probe_problem:
        doubts.append(f"The probe that was asked for did not run: {evidence.probe_problem}.")
    if evidence.data_problem:
        doubts.append(f"The data that were given could not be used: {evidence.data_problem}.")
    doubts += sampling_doubts(evidence)
    verified = evidence.lineage.status == "verified"
    if verified and _changed(evidence) and not judged.ran and not judged.broken:
        doubts.append("No rule could judge how this model changed: it is too small, or too little of it changed.")
    return tuple(doubts)


def _usable_data(evidence: Evidence) -> str | None:
    """A dataset that the card declares and that the user could have given; None where some were given."""
    given = evidence.curvature is not None or evidence.data_problem is not None
    named = (evidence.candidate.config or {}).get("architectures")
    of_texts = isinstance(named, list) and any(isinstance(n, str) and n.endswith(RUN_ON_TEXTS) for n in named)
    if given or not of_texts or evidence.drift is None or not _changed(evidence):
        return None
    declared = words((evidence.candidate.card.metadata or {}).get("datasets"))
    return next((name for name in declared if as_repo_id(name) == name), None)


def _notes(suited: Suited, judged: Judged) -> tuple[str, ...]:
    evidence, notes = suited.evidence, []
    # Where config.json names it as the weights, it was read as such, and this would be untrue.
    named = (evidence.candidate.config or {}).get("transformers_weights")
    if named != PURIFICATION_PATCH and any(entry.path == PURIFICATION_PATCH for entry in evidence.candidate.files):
        notes.append(
            f"{PURIFICATION_PATCH} holds what a purification replaced; no loader picks it, and it was not read."
        )
    if (declared := _usable_data(evidence)) is not None:
        notes.append(f"The card declares data: with --data {declared} the change is held against examples of it.")
    if evidence.lineage.status == "verified":
        if evidence.drift is not None and not _changed(evidence):
            notes.append("Every compared value is identical to the base's.")
        # That whole models are no separate adapters is among the skips, and nothing that a reader lacks.
        elsewhere = () if evidence.candidate.adapter_config is not None else adapter_trend.DETECTOR.rules
        abstained = sorted({skip.what for skip in judged.skips} - set(judged.ran) - {rule.id for rule in elsewhere})
        if abstained:
            notes.append(f"Rules that could not judge this model: {', '.join(abstained)}.")
        if suited.abstains:
            notes.append(suited.abstains)
        elif not calibrated(evidence):
            kind = f"of type {model_type(evidence)!r}" if model_type(evidence) else "of this type"
            notes.append(f"The clean bank holds no models {kind}: thresholds are carried over, error rates unknown.")
    return tuple(notes)
