"""From hits to a verdict."""

import dataclasses

import evidence_for
import pytest

from audit.evidence import Hit
from audit.policy import decide
from audit.records import Finding, Location, Measurement, Outcome, Verdict
from audit.thresholds import load_profile
from scanner.records import Coverage, Lineage, LineageStatus, Skip

PROFILE = dataclasses.replace(load_profile(), clean_scores=(0.1, 0.2, 0.3, 0.4), model_types=("bert",))


def hit(score: float, *, found: bool = True, mark: str = "f") -> Hit:
    """A hit of that score."""
    finding = Finding(
        rule_id="HA201",
        severity="high",
        confidence="high",
        title="t",
        explanation="e",
        remedy="r",
        fingerprint=f"{mark}{score}",
        locations=(Location(file="a"),),
        measurements=(Measurement(name="m", value=1.0),),
    )
    return Hit(rule_id="HA201", score=score, value=1.0, finding=finding if found else None)


def coverage(compared: int = 100, *skips: Skip) -> Coverage:
    """Coverage of so many percent."""
    return Coverage(parameters_compared=compared, parameters_total=100, bytes_read=1, bytes_total=1, skipped=skips)


def lineage(status: LineageStatus = "verified") -> Lineage:
    """A lineage of that status."""
    return evidence_for.lineage(evidence_for.repo(), evidence_for.repo("org/base"), status=status)


def verdict(
    *hits: Hit,
    compared: int | None = 100,
    status: LineageStatus = "verified",
    doubts: tuple[str, ...] = (),
    calibrated: bool = True,
) -> Verdict:
    """The verdict on these hits."""
    seen = None if compared is None else coverage(compared)
    return decide(hits, seen, lineage(status), PROFILE, ("a note",), doubts=doubts, calibrated=calibrated)


@pytest.mark.parametrize(
    ("score", "outcome"), [(0.0, "pass"), (0.49, "pass"), (0.5, "review"), (0.79, "review"), (0.8, "fail"), (1, "fail")]
)
def test_findings_decide_by_their_score(score: float, outcome: Outcome) -> None:
    assert verdict(hit(score)).outcome == outcome


@pytest.mark.parametrize("score", [0.5, 0.99])
def test_a_value_without_a_finding_raises_the_score_alone(score: float) -> None:
    made = verdict(hit(score, found=False))
    assert (made.outcome, made.score, made.reasons) == ("pass", score, ())


def test_the_worst_hit_decides_and_reasons_name_what_counted() -> None:
    made = verdict(hit(0.6), hit(0.9), hit(0.3), hit(0.9))
    assert (made.outcome, made.score) == ("fail", 0.9)
    assert made.reasons == ("f0.6", "f0.9")


@pytest.mark.parametrize(
    "doubtful",
    [
        {"compared": 89},
        {"compared": None},
        {"status": "unverified"},
        {"doubts": ("The detector x broke.",)},
    ],
)
def test_doubt_turns_a_pass_into_inconclusive_and_nothing_else(doubtful: dict) -> None:
    assert verdict(**doubtful).outcome == "inconclusive"
    assert verdict(hit(0.6), **doubtful).outcome == "review"
    assert verdict(hit(0.9), **doubtful).outcome == "fail"
    assert len(verdict(**doubtful).notes) == 2


def test_unread_weights_forbid_a_pass() -> None:
    unread = Skip(what="shard 2", why="missing", unread=True)
    made = decide((), coverage(100, unread, unread), lineage(), PROFILE)
    assert made.outcome == "inconclusive"
    assert "shard 2 (and 1 more)" in made.notes[0]


def test_a_contradicted_base_fails_without_any_hit() -> None:
    assert verdict(status="contradicted").outcome == "fail"


def test_a_refuted_base_is_a_conclusion_from_little() -> None:
    made = verdict(status="contradicted", compared=0)
    assert made.outcome == "fail"
    assert not [note for note in made.notes if "a conclusion needs" in note], "this is one"
    assert any("refuted the declared base" in note for note in made.notes)


def test_no_base_is_inconclusive() -> None:
    made = decide((), None, dataclasses.replace(lineage("unverified"), base=None), PROFILE)
    assert made.outcome == "inconclusive"
    assert made.notes == ("No base is declared or given, so nothing was compared.",)


@pytest.mark.parametrize(
    ("score", "rate", "count"), [(0.0, 1.0, 4), (0.25, 0.6, 2), (0.4, 0.4, 1), (0.5, 0.2, 0), (0.99, 0.2, 0)]
)
def test_the_error_rate_is_the_measured_one(score: float, rate: float, count: int) -> None:
    made = verdict(hit(score, found=False))
    assert made.false_positive_rate == pytest.approx(rate)
    assert f"{count} of n = 4 score at least as high" in made.calibration
    assert f"({count} + 1) / (4 + 1)" in made.calibration
    assert (count + 1) / (4 + 1) == pytest.approx(rate)


@pytest.mark.parametrize(
    "incomparable", [{"calibrated": False}, {"status": "unverified"}, {"status": "contradicted"}, {"compared": None}]
)
def test_no_error_rate_is_quoted_for_what_was_not_calibrated(incomparable: dict) -> None:
    made = verdict(hit(0.2, found=False), **incomparable)
    assert (made.false_positive_rate, made.calibration) == (None, "")


def test_a_profile_without_a_bank_quotes_nothing() -> None:
    bare = dataclasses.replace(PROFILE, clean_scores=())
    made = decide((), coverage(), lineage(), bare)
    assert (made.false_positive_rate, made.calibration) == (None, "")
