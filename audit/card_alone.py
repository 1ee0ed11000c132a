"""The report of a card that was examined without its weights: the same form, and an outcome that cannot be a pass."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from audit.card.checks import with_claims
from audit.detectors import card, lineage, relation, unreadable
from audit.evidence import Detector, Evidence, Hit
from audit.policy import CARD_ALONE
from audit.records import AuditReport, Outcome, RuntimeRecord, Verdict
from audit.rulebook import DETECTORS
from audit.run import Judged, audit, run_detectors
from audit.suppressions import Entry, suppress
from scanner.records import Skip

NOT_READ = "Only the card was asked about, so no weights were read."


def _declared(evidence: Evidence) -> Iterator[Hit]:
    """What the rules on lineage say of declarations alone; that nothing was verified is no finding here."""
    return (hit for hit in lineage.run(evidence) if hit.rule_id in {lineage.DISPUTED.id, lineage.UNDECLARED.id})


_DECLARATIONS = Detector(
    name="declarations",
    rules=(lineage.DISPUTED, lineage.UNDECLARED),
    run=_declared,
    needs_drift=False,
    needs_verified_base=False,
)
_ABOUT_WEIGHTS = {lineage.DETECTOR.name, relation.DETECTOR.name, unreadable.DETECTOR.name}
CARD_DETECTORS: tuple[Detector, ...] = (
    _DECLARATIONS,
    *(d for d in DETECTORS if not d.needs_drift and not d.needs_verified_base and d.name not in _ABOUT_WEIGHTS),
)
"""The rules that need no weights."""


def audit_card(
    evidence: Evidence,
    *,
    created_at: str,
    tool_version: str,
    runtime: RuntimeRecord,
    skips: Sequence[Skip] = (),
    accepted: Sequence[Entry] = (),
) -> AuditReport:
    """Judge a card and seal the report.

    The outcome is ``review`` when a claim is contradicted, unless that is accepted, or a rule on files asks for one,
    ``fail`` when such a rule does, else ``inconclusive``: whatever the card says, nothing was measured of the weights.
    Coverage is 0 of the parameters that the headers name. Arguments as ``audit.run.audit``.
    """
    evidence = with_claims(evidence)
    judged = run_detectors(evidence, CARD_DETECTORS)
    report = audit(
        evidence,
        created_at=created_at,
        tool_version=tool_version,
        runtime=runtime,
        skips=(*skips, Skip(what="weights", why=NOT_READ)),
        detectors=CARD_DETECTORS,
        accepted=accepted,
        judged=judged,
    )
    stored = evidence.card_context.stored
    return replace(
        report,
        coverage=replace(report.coverage, parameters_total=stored.parameters if stored else 0),
        verdict=_verdict(report, _baseline_notes(evidence, judged, accepted, created_at)),
    )


def _baseline_notes(evidence: Evidence, judged: Judged, accepted: Sequence[Entry], created_at: str) -> tuple[str, ...]:
    """What a reader has to be told about the baseline: the notes of a scan speak of weights besides."""
    if not accepted:
        return ()
    today = datetime.fromisoformat(created_at).astimezone(UTC).date()
    return suppress(judged.hits, accepted, model=evidence.candidate.ref.name, today=today).notes


def _verdict(report: AuditReport, baseline_notes: tuple[str, ...]) -> Verdict:
    counts = dict.fromkeys(("supported", "contradicted", "not_checkable"), 0)
    for claim in report.card:
        counts[claim.status] += 1
    ours = {rule.id for rule in (*card.DETECTOR.rules, lineage.DISPUTED)}
    told = [f for f in report.findings if f.rule_id in ours] if counts["contradicted"] else []
    contradicted = [f.fingerprint for f in told if f.suppression is None]
    outcome: Outcome = "review" if counts["contradicted"] and (contradicted or not told) else "inconclusive"
    if report.verdict.outcome in {"review", "fail"}:
        outcome = report.verdict.outcome
    return Verdict(
        outcome=outcome,
        score=report.verdict.score,
        false_positive_rate=None,
        reasons=tuple(dict.fromkeys((*report.verdict.reasons, *contradicted))),
        policy=CARD_ALONE,
        notes=(_note(counts), *baseline_notes),
    )


def _note(counts: dict[str, int]) -> str:
    return (
        f"Only the card was examined: {counts['supported']} claims are supported, {counts['contradicted']} "
        f"contradicted, {counts['not_checkable']} not checkable. No weights were read, so nothing is said of them."
    )
