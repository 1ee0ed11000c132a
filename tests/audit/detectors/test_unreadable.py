"""What could not be judged: planted, clean and inherited."""

import dataclasses

import evidence_for
import pico
import pytest
from pico_cases import Arrays, evidence, findings, run

from audit.detectors.unreadable import DETECTOR
from scanner.records import Skip


def test_not_a_number_is_an_exact_fact() -> None:
    (finding,) = findings(DETECTOR, evidence(lambda m: pico.plant_nan(m, 1, count=3)))
    assert (finding.rule_id, finding.severity, finding.confidence) == ("HA601", "high", "exact")
    assert finding.locations[0].tensor == "encoder.layer.1.attention.self.value.weight"
    assert finding.measurements[0].value == 3


def test_not_a_number_in_the_base_as_well_is_inherited() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        for side in (base, candidate):
            side["pooler.dense.weight"][0, 0] = float("inf")

    (hit,), _ = run(DETECTOR, evidence(change=change))
    assert hit.score == 0.0
    assert hit.finding is not None
    assert hit.finding.severity == "low"


def test_an_honest_fine_tune_gives_nothing() -> None:
    assert run(DETECTOR, evidence()) == ([], [])


def test_low_coverage_is_told() -> None:
    of = evidence()
    assert of.drift is not None
    coverage = dataclasses.replace(
        of.drift.coverage,
        parameters_compared=of.drift.coverage.parameters_total // 2,
        skipped=(Skip(what="a", why="b"),),
    )
    found = findings(DETECTOR, dataclasses.replace(of, drift=dataclasses.replace(of.drift, coverage=coverage)))
    assert [f.rule_id for f in found] == ["HA602"]
    assert "1 parts were skipped" in found[0].explanation


def test_low_coverage_against_a_contradicted_base_is_not_told_twice() -> None:
    of = evidence()
    assert of.drift is not None
    coverage = dataclasses.replace(of.drift.coverage, parameters_compared=0)
    of = dataclasses.replace(
        of,
        drift=dataclasses.replace(of.drift, coverage=coverage),
        lineage=dataclasses.replace(of.lineage, status="contradicted"),
    )
    assert run(DETECTOR, of) == ([], [])


@pytest.mark.parametrize(("count", "words"), [(1, "1 weight file besides"), (30, "30 weight files besides")])
def test_files_of_other_formats_are_told(count: int, words: str) -> None:
    names = tuple(f"pytorch_model-{i}.bin" for i in range(count))
    of = evidence_for.evidence(None, candidate=evidence_for.repo(files=("model.safetensors", *names)))
    (finding,) = findings(DETECTOR, of)
    assert finding.rule_id == "HA603"
    assert words in finding.explanation
    assert len(finding.locations) == min(count, 10)
