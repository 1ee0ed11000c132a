"""One finding per tensor."""

from audit.evidence import Hit
from audit.merging import one_per_tensor
from audit.records import Finding, Location, Measurement, Severity


def hit(
    rule: str, tensor: str | None, *, score: float = 0.9, severity: Severity = "high", value: float | None = 2.0
) -> Hit:
    """A hit of that rule on that tensor."""
    return Hit(
        rule_id=rule,
        score=score,
        value=value,
        finding=Finding(
            rule_id=rule,
            severity=severity,
            confidence="high",
            title=rule,
            explanation="e",
            remedy="r",
            fingerprint=f"{rule}{tensor}{score}",
            locations=(Location(file="f", tensor=tensor),),
            measurements=(Measurement(name=f"statistic of {rule}", value=value),),
        ),
    )


def told(hits: tuple[Hit, ...]) -> list[str]:
    """The rules that still have a finding, in order."""
    return [h.rule_id for h in hits if h.finding is not None]


def test_the_plainest_of_equally_severe_rules_tells_and_the_others_lend_numbers() -> None:
    merged = one_per_tensor((hit("HA402", "w"), hit("HA401", "w"), hit("HA301", "w")))
    assert told(merged) == ["HA301"]
    assert merged[2].finding is not None
    names = [m.name for m in merged[2].finding.measurements]
    assert names == ["statistic of HA301", "HA401: statistic of HA401", "HA402: statistic of HA402"]


def test_the_more_severe_rule_tells_first_of_all() -> None:
    assert told(one_per_tensor((hit("HA301", "w", severity="medium"), hit("HA402", "w")))) == ["HA402"]


def test_two_findings_of_one_rule_become_the_stronger_one() -> None:
    merged = one_per_tensor((hit("HA403", "w", score=0.85), hit("HA403", "w", score=0.9)))
    assert [h.finding is not None for h in merged] == [False, True]


def test_other_tensors_exact_facts_and_places_without_tensor_stay() -> None:
    hits = (
        hit("HA301", "a"),
        hit("HA301", "b"),
        hit("HA601", "a", value=None),
        hit("HA303", "a", value=None),
        hit("HA101", None),
        Hit(rule_id="HA201", score=0.3, value=1.0),
    )
    assert one_per_tensor(hits) == hits


def test_scores_stay() -> None:
    hits = (hit("HA402", "w", score=0.95), hit("HA301", "w", score=0.85))
    assert [h.score for h in one_per_tensor(hits)] == [0.95, 0.85]
