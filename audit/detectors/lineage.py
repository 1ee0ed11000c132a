"""Findings about the declared base: contradicted, not verified, disputed, or absent.

These are the only rules that speak when the base is wrong: against a wrong base every drift statistic is noise.
"""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Confidence, Location, Measurement, Severity
from audit.stated import stated
from scanner.records import Check

CONTRADICTED = Rule(id="HA101", title="The weights do not descend from the declared base", severity="high")
UNVERIFIED = Rule(id="HA102", title="The declared base could not be verified", severity="medium", weighs=False)
DISPUTED = Rule(id="HA103", title="The declarations of the base disagree", severity="low", weighs=False)
UNDECLARED = Rule(id="HA104", title="No base is declared", severity="low", weighs=False)

_CARD = "README.md"


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge the lineage; the contradicted one alone moves the score."""
    lineage = evidence.lineage
    if lineage.base is None:
        yield _hit(
            evidence,
            UNDECLARED,
            "low",
            "exact",
            "Neither the card nor the configuration names a base model, so there is nothing to compare with.",
            "Declare base_model in the card, or name a base with --base.",
            "",
        )
    elif lineage.status == "contradicted":
        yield _hit(
            evidence,
            CONTRADICTED,
            "high",
            "high",
            f"The weights were compared with {lineage.base}, the declared base, and do not descend from it: "
            f"{_outcomes(lineage.checks)}. What else the comparison shows against that base means nothing, so it is "
            f"not reported.",
            "Ask the author which base was used, correct base_model in the card, and scan again.",
            lineage.base.name,
        )
    elif lineage.status == "unverified":
        yield _hit(
            evidence,
            UNVERIFIED,
            "medium",
            "medium",
            f"Descent from {lineage.base} could neither be shown nor refuted: {_outcomes(lineage.checks)}.",
            "Check that the base and its revision are the ones used; a heavily changed model may stay unverified.",
            lineage.base.name,
        )
    for conflict in lineage.conflicts:
        yield _hit(
            evidence,
            DISPUTED,
            "low",
            "exact",
            conflict,
            "Make the card, the tags and the configuration files name the same base.",
            conflict,
        )


def _outcomes(checks: tuple[Check, ...]) -> str:
    """The checks that ran, in words."""
    said = [f"{check.name} {check.outcome}" for check in checks if check.outcome != "not_run"]
    return ", ".join(said) if said else "no check could run"


def _hit(
    evidence: Evidence,
    rule: Rule,
    severity: Severity,
    confidence: Confidence,
    explanation: str,
    remedy: str,
    discriminator: str,
) -> Hit:
    return stated(
        evidence,
        rule,
        severity,
        confidence,
        explanation,
        remedy,
        *_measurements(evidence),
        locations=(Location(file=_CARD),),
        discriminator=discriminator,
        score=1.0 if rule.weighs else 0.0,
    )


def _measurements(evidence: Evidence) -> tuple[Measurement, ...]:
    """The numbers of the lineage checks, or how many claims there were."""
    numbers = tuple(
        Measurement(name=f"{check.name}: {measured.name}", value=measured.value, unit=measured.unit)
        for check in evidence.lineage.checks
        for measured in check.measurements
    )
    return numbers or (Measurement(name="claims", value=float(len(evidence.lineage.claims))),)


DETECTOR = Detector(
    name="lineage",
    rules=(CONTRADICTED, UNVERIFIED, DISPUTED, UNDECLARED),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
