"""A pickle that imports more than weights need: dangerous, unknown, none."""

import dataclasses

import evidence_for
import pytest

from audit.detectors.unsafe_files import DETECTOR
from scanner.records import PickleImports


def found(*pickles: PickleImports):
    of = dataclasses.replace(evidence_for.evidence(None), pickles=pickles)
    return of, list(DETECTOR.run(of))


@pytest.mark.parametrize(
    "pickle", [PickleImports(path="x.bin", dangerous=("os.system",)), PickleImports(path="x.bin", computed=True)]
)
def test_dangerous_imports_fail(pickle):
    of, (hit,) = found(pickle)
    assert hit.rule_id == "HA604"
    assert hit.score >= of.profile.value("policy.fail_score")
    assert hit.finding is not None
    assert hit.finding.severity == "critical"
    assert evidence_for.report(of).verdict.outcome == "fail"


def test_unknown_imports_inform():
    of, (hit,) = found(PickleImports(path="x.bin", unknown=tuple(f"own.C{i}" for i in range(9))))
    assert (hit.rule_id, hit.score) == ("HA605", 0.0)
    assert hit.finding is not None
    assert "and 4 more" in hit.finding.explanation
    assert evidence_for.report(of).verdict.outcome != "fail"


def test_no_pickles_give_nothing():
    assert found()[1] == []
