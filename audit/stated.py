"""From a fact about a file to a hit, the same for every rule on the files around the weights."""

from collections.abc import Iterable

from audit.evidence import Evidence, Hit, Rule, fingerprint
from audit.records import Confidence, Finding, Location, Measurement, Severity


def stated(
    evidence: Evidence,
    rule: Rule,
    severity: Severity,
    confidence: Confidence,
    explanation: str,
    remedy: str,
    *measurements: Measurement,
    locations: tuple[Location, ...],
    tensor: str | None = None,
    discriminator: str = "",
    score: float | None = None,
) -> Hit:
    """Return the hit of a rule that was met.

    Args:
        evidence: whose candidate the fingerprint names, and whose profile holds the rule's score.
        rule: gives id and title.
        severity: of this finding.
        confidence: likewise.
        explanation: what is the case, in words.
        remedy: what to do about it.
        measurements: the numbers behind it.
        locations: where it stands, the primary place first.
        tensor: what the fingerprint names in place of a tensor.
        discriminator: tells findings of one rule apart.
        score: in [0, 1], 0 for what does not weigh; the profile's ``<rule>.score`` when None.
    """
    return Hit(
        rule_id=rule.id,
        score=evidence.profile.value(f"{rule.id}.score") if score is None else score,
        finding=Finding(
            rule_id=rule.id,
            severity=severity,
            confidence=confidence,
            title=rule.title,
            explanation=explanation,
            remedy=remedy,
            fingerprint=fingerprint(rule.id, evidence.candidate.ref.name, tensor, discriminator),
            locations=locations,
            measurements=measurements,
        ),
    )


def listed(items: Iterable[str], *, most: int) -> str:
    """Join the first entries by commas and count the rest: ``a, b and 3 more``."""
    every = list(items)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
