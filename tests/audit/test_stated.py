"""The hit of a fact about a file, and lists in words."""

import drift_facts
import evidence_for
import pytest

from audit.detectors.owners import LOOKALIKE
from audit.evidence import Hit, fingerprint
from audit.records import Location, Measurement
from audit.stated import listed, stated

OF = evidence_for.evidence(drift_facts.from_arrays({}, {}))


def made(**more: object) -> Hit:
    number = Measurement(name="names", value=1.0, unit="names")
    return stated(
        OF, LOOKALIKE, "low", "medium", "Said.", "Do.", number, locations=(Location(file="README.md"),), **more
    )  # type: ignore[arg-type]


def test_the_profile_scores_what_is_not_scored() -> None:
    assert made().score == OF.profile.value(f"{LOOKALIKE.id}.score") > 0
    assert made(score=0.0).score == 0.0


def test_the_finding_says_what_was_given() -> None:
    finding = made(discriminator="x", tensor="a.bin").finding
    assert finding is not None
    assert (finding.rule_id, finding.title, finding.severity, finding.confidence) == (
        LOOKALIKE.id, LOOKALIKE.title, "low", "medium",
    )  # fmt: skip
    assert (finding.explanation, finding.remedy) == ("Said.", "Do.")
    assert finding.fingerprint == fingerprint(LOOKALIKE.id, OF.candidate.ref.name, "a.bin", "x")
    assert finding.fingerprint != made().finding.fingerprint  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("items", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")]
)
def test_lists_are_cut_and_counted(items: list[str], words: str) -> None:
    assert listed(iter(items), most=2) == words
