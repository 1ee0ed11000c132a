"""Findings about the card itself: what it says against what was measured, its licence, and whose card it is.

The claims themselves are judged in ``audit.card``; here the contradicted ones become findings. The base and the
relation have rules of their own (HA101, HA103, HA106).
"""

from collections import defaultdict
from collections.abc import Iterator

from audit.card.checks import claims_of
from audit.card.copied import CLAIM as COPIED_CLAIM
from audit.card.licence import CLAIM as LICENCE_CLAIM
from audit.card.licence import INHERITED
from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.records import CardClaim, Confidence, Finding, Location, Measurement

LICENCE = Rule(
    id="HA901", title="The declared licence leaves out what the base's asks for", severity="medium", weighs=False
)
CLAIM = Rule(id="HA902", title="The card differs from what was measured", severity="low", weighs=False)
COPIED = Rule(id="HA903", title="The card is that of another model", severity="low", weighs=False)

ELSEWHERE = frozenset({"base_model", "base_model_relation", "base_model (all places)"})
"""Claims about the parent, which the rules on lineage judge."""
_CARD = "README.md"
_SHOWN = 5
_REMEDIES = {
    LICENCE: "Read the clause that is named, and declare a licence that follows it; when in doubt, the base's own.",
    CLAIM: "Correct the card or the configuration, or upload the weights that they describe.",
    COPIED: "Ask the author for a card of this model; until then, take nothing in it as said of these weights.",
}


def run(evidence: Evidence) -> Iterator[Hit]:
    """Yield one finding per contradicted claim; several statements of one kind share theirs."""
    contradicted: defaultdict[str, list[CardClaim]] = defaultdict(list)
    for claim in claims_of(evidence)[0]:
        if claim.status == "contradicted" and claim.claim not in ELSEWHERE:
            contradicted[claim.claim].append(claim)
    for name, claims in contradicted.items():
        rule = {LICENCE_CLAIM: LICENCE, INHERITED: LICENCE, COPIED_CLAIM: COPIED}.get(name, CLAIM)
        yield Hit(rule_id=rule.id, score=0.0, finding=_finding(evidence, rule, name, claims))


def _finding(evidence: Evidence, rule: Rule, name: str, claims: list[CardClaim]) -> Finding:
    said = "; ".join(f"declared: {claim.declared}; observed: {claim.observed}" for claim in claims[:_SHOWN])
    file = name.rpartition("(")[2].rstrip(")") if name.endswith(".json)") else _CARD
    confidence: Confidence = "exact" if file != _CARD else "medium"
    return Finding(
        rule_id=rule.id,
        severity=rule.severity,
        confidence=confidence,
        title=rule.title,
        explanation=f"{name[0].upper()}{name[1:]}: {said}.",
        remedy=_REMEDIES[rule],
        fingerprint=fingerprint(rule.id, evidence.candidate.ref.name, None, name),
        locations=(Location(file=file),),
        measurements=(
            Measurement(
                name="statements contradicted", value=float(len(claims)), unit="", threshold=0.0, comparison=">"
            ),
        ),
    )


DETECTOR = Detector(name="card", rules=(LICENCE, CLAIM, COPIED), run=run, needs_drift=False, needs_verified_base=False)
