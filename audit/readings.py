"""From a statistic to a hit: scores, thresholds and the cap on findings, the same for every calibrated rule."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from audit.evidence import Evidence, Hit, Rule, fingerprint
from audit.records import Confidence, Finding, Location, Measurement, Severity, SkipRecord, Token
from scanner.records import TensorDrift

REVIEW_SCORE = 0.5
"""Score of a value that just reaches its review threshold; a convention of the scale, not a threshold."""
FAIL_SCORE = 0.8
"""Score of a value that just reaches its fail threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of a rule's statistic and where it was taken."""

    value: float
    tensor: TensorDrift
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    tokens: tuple[Token, ...] = ()
    context: tuple[Measurement, ...] = ()
    note: str = ""
    factor: float = 1.0
    """How many times the expected was measured, for the words of the finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A reading in words: what was measured and what looks so, and what to do next."""

    explanation: str
    remedy: str


def score_of(value: float, *, review: float, fail: float) -> float:
    """Map a statistic to [0, 1), monotone: 0 → 0, review → 0.5, fail → 0.8, infinity → 1.

    Linear below ``fail``, and 1 − 0.2·fail/value beyond it, so that two large values still differ.
    """
    if value <= 0:
        return 0.0
    if value < review:
        return REVIEW_SCORE * value / review
    if value < fail:
        return REVIEW_SCORE + (FAIL_SCORE - REVIEW_SCORE) * (value - review) / (fail - review)
    return 1.0 - (1.0 - FAIL_SCORE) * fail / value


def judge(
    rule: Rule,
    readings: Iterable[Reading],
    evidence: Evidence,
    *,
    tell: Callable[[Reading], Told],
    measured: str,
    unit: str = "",
) -> Iterator[Hit]:
    """Turn a rule's readings into hits: a finding for each that reaches the review threshold, else the largest alone.

    ``tell`` puts a reading into words; ``measured`` and ``unit`` name the statistic.
    At most ``findings.most`` of the profile become findings; the last one then says how many more there were.
    """
    profile = evidence.profile
    review, fail = profile.value(f"{rule.id}.review"), profile.value(f"{rule.id}.fail")
    ranked = sorted(readings, key=lambda r: r.value, reverse=True)
    over = [r for r in ranked if r.value >= review]
    if not over:
        if ranked:
            value = ranked[0].value
            yield Hit(rule_id=rule.id, score=score_of(value, review=review, fail=fail), value=value)
        return
    most = int(profile.value("findings.most"))
    for number, reading in enumerate(over[:most]):
        told = tell(reading)
        explanation = told.explanation
        if number == most - 1 and len(over) > most:
            explanation += f" {len(over) - most} more tensors exceed the same threshold and are not listed."
        failed = reading.value >= fail
        yield Hit(
            rule_id=rule.id,
            score=score_of(reading.value, review=review, fail=fail),
            value=reading.value,
            finding=Finding(
                rule_id=rule.id,
                severity=rule.severity if failed else _one_lower(rule.severity),
                confidence=_confidence(evidence, failed=failed),
                title=rule.title,
                explanation=explanation,
                remedy=told.remedy,
                fingerprint=fingerprint(rule.id, evidence.candidate.ref.name, reading.tensor.spec.name),
                locations=(location_of(reading),),
                measurements=(
                    Measurement(name=measured, value=reading.value, unit=unit, threshold=review, comparison=">="),
                    *reading.context,
                ),
            ),
        )


def location_of(reading: Reading) -> Location:
    """Where a reading was taken, rows and columns as half-open runs of one."""
    return Location(
        file=reading.tensor.spec.candidate.file,
        tensor=reading.tensor.spec.name,
        rows=tuple((row, row + 1) for row in reading.rows),
        columns=tuple((column, column + 1) for column in reading.columns),
        tokens=reading.tokens,
    )


def abstain(rule: Rule, why: str) -> SkipRecord:
    """Say that a rule cannot judge this model."""
    return SkipRecord(what=rule.id, why=why)


def calibrated(evidence: Evidence) -> bool:
    """True when the clean bank of the profile holds models of the candidate's type."""
    return model_type(evidence) in evidence.profile.model_types


def model_type(evidence: Evidence) -> str:
    """The ``model_type`` of the candidate's config (an adapter's is its base's), empty when there is none."""
    config = evidence.candidate.config
    if config is None and evidence.candidate.adapter_config is not None and evidence.base is not None:
        config = evidence.base.config
    value = (config or {}).get("model_type")
    return value if isinstance(value, str) else ""


def tokens_at(texts: Sequence[str], ids: Iterable[int]) -> tuple[Token, ...]:
    """The tokens of those ids; an id beyond the vocabulary has the empty text."""
    return tuple(Token(id=int(i), text=texts[i] if 0 <= i < len(texts) else "") for i in ids)


def _one_lower(severity: Severity) -> Severity:
    order: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
    return order[max(order.index(severity) - 1, 1)]


def _confidence(evidence: Evidence, *, failed: bool) -> Confidence:
    if not calibrated(evidence):
        return "medium" if failed else "low"
    return "high" if failed else "medium"
