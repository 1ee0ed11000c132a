"""The declared base and relation against what the weights say."""

from collections.abc import Iterator

from audit.card.plain import joined, short
from audit.detectors.relation import ALLOWED
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_STATUS: dict[str, ClaimStatus] = {
    "verified": "supported",
    "contradicted": "contradicted",
    "unverified": "not_checkable",
}


def base(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the card's ``base_model`` with the base that the weights were compared with."""
    declared = evidence.candidate.card.base_models
    lineage = evidence.lineage
    if not declared:
        return
    compared = lineage.base.name if lineage.base else None
    if compared is None:
        observed, status = "the base could not be read", "not_checkable"
    elif compared.lower() not in {name.strip().lower() for name in declared}:
        observed, status = f"the weights were compared with another base, {short(compared)}", "not_checkable"
    else:
        observed = {
            "verified": f"the weights descend from {short(compared)}",
            "contradicted": f"the weights do not descend from {short(compared)}",
            "unverified": f"descent from {short(compared)} could not be verified",
        }[lineage.status]
        status = _STATUS[lineage.status]
    yield CardClaim(claim="base_model", declared=joined(declared), observed=observed, status=status)  # type: ignore[arg-type]


def relation(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare ``base_model_relation`` with the relation measured."""
    declared = evidence.candidate.card.relation
    if not declared:
        return
    measured = evidence.lineage.relation
    status: ClaimStatus
    if measured == "unknown" or evidence.lineage.status != "verified":
        observed, status = "could not be verified", "not_checkable"
    else:
        observed = measured
        status = _judged(declared.strip().lower(), measured)
    yield CardClaim(claim="base_model_relation", declared=short(declared), observed=observed, status=status)


def _judged(declared: str, measured: str) -> ClaimStatus:
    """Equal is supported; what the rule on relations (HA106) lets pass stays open."""
    if declared == measured:
        return "supported"
    return "not_checkable" if measured in ALLOWED.get(declared, ()) else "contradicted"
