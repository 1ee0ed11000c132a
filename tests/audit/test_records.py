"""Small laws of the records."""

import pytest

from audit.records import BaseRecord, CoverageRecord, Finding, Location, Measurement, Subject, Verdict


def test_a_finding_needs_a_place_and_a_number() -> None:
    words = dict.fromkeys(("rule_id", "title", "explanation", "remedy", "fingerprint"), "x")
    place, number = (Location(file="f"),), (Measurement(name="m", value=1.0),)
    for locations, measurements in ((place, ()), ((), number)):
        with pytest.raises(ValueError, match="location and a measurement"):
            Finding(severity="low", confidence="low", locations=locations, measurements=measurements, **words)


def test_a_verdict_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="compare its outcome"):
        bool(Verdict(outcome="pass", score=0.0, false_positive_rate=None))


def test_names_are_the_repository_or_the_folder() -> None:
    assert Subject(repo_id="a/b", path=None, revision=None).name == "a/b"
    assert BaseRecord(repo_id=None, path="/x", revision=None).name == "/x"
    assert BaseRecord(repo_id=None, path=None, revision=None).name == ""


@pytest.mark.parametrize(("compared", "total", "share"), [(1, 4, 0.25), (0, 0, 0.0)])
def test_coverage_is_a_share(compared: int, total: int, share: float) -> None:
    made = CoverageRecord(parameters_compared=compared, parameters_total=total, bytes_read=0, bytes_total=0)
    assert made.fraction == share
