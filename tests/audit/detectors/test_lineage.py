"""The declared base: contradicted, unverified, disputed, absent, and in order."""

import dataclasses

import evidence_for
import pytest
from pico_cases import findings, run

from audit.detectors.lineage import DETECTOR
from scanner.records import LineageStatus


@pytest.mark.parametrize(
    ("status", "rule", "severity"), [("contradicted", "HA101", "high"), ("unverified", "HA102", "medium")]
)
def test_a_base_in_doubt_is_told(status: LineageStatus, rule: str, severity: str) -> None:
    (finding,) = findings(DETECTOR, evidence_for.evidence(None, status=status))
    assert (finding.rule_id, finding.severity) == (rule, severity)
    assert "org/base" in finding.explanation
    assert finding.locations[0].file == "README.md"
    assert finding.measurements[0].name == "rows: cosine"


def test_only_a_contradiction_weighs() -> None:
    scores = {
        status: run(DETECTOR, evidence_for.evidence(None, status=status))[0][0].score
        for status in ("contradicted", "unverified")
    }
    assert scores == {"contradicted": 1.0, "unverified": 0.0}


def test_a_verified_base_gives_nothing() -> None:
    assert run(DETECTOR, evidence_for.evidence(None)) == ([], [])


def test_each_conflict_is_a_finding_of_its_own() -> None:
    found = findings(DETECTOR, evidence_for.evidence(None, conflicts=("The card says a, the tags say b.", "Another.")))
    assert [f.rule_id for f in found] == ["HA103", "HA103"]
    assert len({f.fingerprint for f in found}) == 2
    assert found[0].explanation == "The card says a, the tags say b."


def test_no_base_is_told() -> None:
    of = evidence_for.evidence(None)
    lineage = dataclasses.replace(of.lineage, base=None, status="unverified", checks=())
    (finding,) = findings(DETECTOR, dataclasses.replace(of, base=None, lineage=lineage))
    assert finding.rule_id == "HA104"
    assert finding.measurements[0].name == "claims"


def test_a_base_without_any_check_says_so() -> None:
    of = evidence_for.evidence(None, status="unverified")
    (finding,) = findings(DETECTOR, dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, checks=())))
    assert "no check could run" in finding.explanation
