"""Findings about how the candidate descends: another model is nearer, or the relation is not the declared one.

Only explicit declarations count here (the card, the Hub), never what the files suggest.
"""

from collections.abc import Iterator, Mapping

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.records import Confidence, Finding, Location, Measurement
from scanner.records import Check

NEARER = Rule(id="HA105", title="Another model is nearer than the declared base", severity="low", weighs=False)
RELATION = Rule(id="HA106", title="The measured relation differs from the declared one", severity="low", weighs=False)

NEARER_CHECK = "nearer_model"
RELATION_CHECK = "measured_relation"
ALLOWED: Mapping[str, frozenset[str]] = {
    "finetune": frozenset({"finetune", "adapter", "merge", "unknown"}),
    "adapter": frozenset({"adapter", "unknown"}),
    "merge": frozenset({"merge", "finetune", "adapter", "unknown"}),
    "quantized": frozenset({"quantized", "unknown"}),
}
"""Declared relation → measured ones that do not contradict it. A merged adapter is a way of fine-tuning; whether
several models were merged shows only against those models."""
_CARD = "README.md"


def run(evidence: Evidence) -> Iterator[Hit]:
    """Compare the declared parentage with the measured one."""
    checks = {check.name: check for check in evidence.lineage.checks}
    nearer = checks.get(NEARER_CHECK)
    if nearer is not None and nearer.outcome == "failed":
        yield _hit(
            evidence,
            NEARER,
            "medium",
            f"{nearer.note} The declared base may be a sibling or a more distant ancestor.",
            "Declare the model that training started from; `hubaudit lineage` shows the distances.",
            checks.get("nearest_base") or nearer,
            nearer.name,
        )
    declared, measured = _declared(evidence), evidence.lineage.relation
    check = checks.get(RELATION_CHECK)
    if check is None or check.outcome != "passed" or declared is None or measured in ALLOWED[declared]:
        return
    yield _hit(
        evidence,
        RELATION,
        "exact" if measured == "identical" else "medium",
        f"The declared relation is {declared}; the weights show {measured}. {check.note}",
        "Correct base_model_relation in the card, or upload the weights that it describes.",
        check,
        declared,
    )


def _declared(evidence: Evidence) -> str | None:
    """The relation that the card or the Hub names, when it is one of the Hub's four."""
    words = (evidence.candidate.card.relation, evidence.candidate.hub.get("relation"))
    return next((word for word in words if isinstance(word, str) and word in ALLOWED), None)


def _hit(
    evidence: Evidence, rule: Rule, confidence: Confidence, explanation: str, remedy: str, check: Check, what: str
) -> Hit:
    numbers = tuple(Measurement(name=m.name, value=m.value, unit=m.unit) for m in check.measurements)
    finding = Finding(
        rule_id=rule.id,
        severity=rule.severity,
        confidence=confidence,
        title=rule.title,
        explanation=explanation,
        remedy=remedy,
        fingerprint=fingerprint(rule.id, evidence.candidate.ref.name, None, what),
        locations=(Location(file=_CARD),),
        measurements=numbers or (Measurement(name="checks", value=float(len(evidence.lineage.checks))),),
    )
    return Hit(rule_id=rule.id, score=0.0, finding=finding)


DETECTOR = Detector(name="relation", rules=(NEARER, RELATION), run=run, needs_drift=False)
