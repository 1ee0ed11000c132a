"""The whole audit: order of questions, skips, and bad data."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, freeze

from audit.card import checks
from audit.detectors import token_rows, unreadable
from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import SCHEMA_V1, AuditReport, CardClaim, RuntimeRecord
from audit.run import audit, run_detectors, sorted_findings
from scanner.records import DriftFacts, Skip

BROKEN = Rule(id="HA999", title="Breaks", severity="high")


def breaks(_: Evidence) -> Iterator[Hit]:
    """A detector that raises half-way."""
    yield Hit(rule_id="HA999", score=0.9)
    raise ZeroDivisionError


def report(of: Evidence, **more: Any) -> AuditReport:
    """The report on this evidence."""
    return audit(
        of,
        created_at="2026-11-20T08:00:00Z",
        tool_version="1.2.3",
        runtime=RuntimeRecord(seconds=1.0, peak_rss_bytes=2, requests=3),
        **more,
    )


def test_the_claims_of_the_card_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Evidence] = []

    def counted(of: Evidence) -> list[CardClaim]:
        asked.append(of)
        return [CardClaim(claim="licence", declared="mit", observed="other", status="contradicted")]

    monkeypatch.setattr(checks, "CARD_CHECKS", (counted,))
    made = report(evidence())
    assert len(asked) == 1
    assert [claim.claim for claim in made.card] == ["licence"]
    assert any("declared: mit; observed: other" in finding.explanation for finding in made.findings)


def test_an_honest_fine_tune_passes() -> None:
    made = report(evidence())
    assert (made.verdict.outcome, made.findings) == ("pass", ())
    assert 0 < made.verdict.score < 0.5
    assert (made.schema, made.tool.version, made.created_at) == (SCHEMA_V1, "1.2.3", "2026-11-20T08:00:00Z")
    assert made.coverage.fraction == pytest.approx(1.0, abs=0.02)
    assert len(made.drift) == len(evidence().drift.tensors)  # type: ignore[union-attr]
    assert made.profile["id"] == evidence().profile.id


@pytest.mark.parametrize(
    ("plant", "tensor"),
    [
        (lambda m: pico.poison_row(m, 47), "embeddings.word_embeddings.weight"),
        (lambda m: pico.rank_one_edit(m, 2, strength=1.0), "encoder.layer.2.output.dense.weight"),
        (lambda m: pico.flip_neuron(m, 2, 5), "encoder.layer.2.output.dense.weight"),
        (lambda m: pico.scale_norm(m, 2), "encoder.layer.2.output.LayerNorm.weight"),
        (lambda m: pico.shift_bias(m, 2), "encoder.layer.2.output.dense.bias"),
        (lambda m: pico.plant_nan(m, 2), "encoder.layer.2.attention.self.value.weight"),
    ],
    ids=["row", "rank one", "unit", "norm", "bias", "nan"],
)
def test_every_edit_fails_and_is_placed(plant: Any, tensor: str) -> None:
    made = report(evidence(plant))
    assert made.verdict.outcome in {"review", "fail"}
    assert tensor in {place.tensor for finding in made.findings for place in finding.locations}
    assert set(made.verdict.reasons) <= {finding.fingerprint for finding in made.findings}


def test_one_tensor_is_told_once() -> None:
    made = report(evidence(lambda m: pico.rank_one_edit(m, 2, strength=2.0)))
    assert len(made.findings) == 1
    assert any(m.name.startswith("HA4") for m in made.findings[0].measurements)


def test_a_contradicted_base_silences_everything_else() -> None:
    of = dataclasses.replace(evidence(lambda m: pico.poison_row(m, 47)))
    of = dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, status="contradicted"))
    made = report(of)
    assert made.verdict.outcome == "fail"
    assert [f.rule_id for f in made.findings] == ["HA101"]
    assert {"HA201", "HA301"} <= {skip.what for skip in made.coverage.skipped}


def test_an_unverified_base_is_inconclusive() -> None:
    of = evidence()
    made = report(dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, status="unverified")))
    assert made.verdict.outcome == "inconclusive"
    assert [f.rule_id for f in made.findings] == ["HA102"]


def test_without_drift_nothing_passes() -> None:
    made = report(evidence_for.evidence(None))
    assert made.verdict.outcome == "inconclusive"
    assert made.coverage.parameters_total == 0
    assert made.drift == ()


def test_a_broken_detector_is_a_skip_and_forbids_a_pass() -> None:
    broken = Detector(name="broken", rules=(BROKEN,), run=breaks)
    made = report(evidence(), detectors=(token_rows.DETECTOR, broken))
    assert made.verdict.outcome == "inconclusive"
    assert "its detector broke (ZeroDivisionError)" in {skip.why for skip in made.coverage.skipped}
    assert "broken broke" in made.verdict.notes[0]
    assert made.verdict.score < 0.5


def test_a_broken_card_check_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of checks is replaced, since none of ours can be made to break."""

    def bad_check(_: Evidence) -> list[Any]:
        raise ValueError

    monkeypatch.setattr("audit.card.checks.CARD_CHECKS", (bad_check,))
    made = report(evidence())
    assert "card: bad_check" in {skip.what for skip in made.coverage.skipped}
    assert made.card == ()


def test_a_model_identical_to_its_base_passes_and_says_so() -> None:
    made = report(evidence(change=freeze("")))
    assert made.verdict.outcome == "pass"
    assert "identical" in made.verdict.notes[0]


def test_a_model_too_small_to_judge_is_inconclusive() -> None:
    made = report(evidence(layers=2, change=freeze("word_embeddings")))
    assert made.verdict.outcome == "inconclusive"
    assert "No rule could judge" in made.verdict.notes[0]


def test_skips_of_all_sources_are_listed_once() -> None:
    of = evidence()
    assert of.drift is not None
    theirs = Skip(what="lm_head", why="task head")
    coverage = dataclasses.replace(of.drift.coverage, skipped=(theirs, Skip(what="x", why="y")))
    of = dataclasses.replace(of, drift=dataclasses.replace(of.drift, coverage=coverage))
    listed = [(s.what, s.why) for s in report(of, skips=(theirs,)).coverage.skipped]
    assert listed.count(("lm_head", "task head")) == 1
    assert ("x", "y") in listed


def test_rules_that_could_not_judge_are_named() -> None:
    made = report(evidence(change=freeze("word_embeddings")))
    assert made.verdict.outcome == "pass"
    assert any("could not judge this model" in note and "HA201" in note for note in made.verdict.notes)


def test_an_uncalibrated_kind_of_model_quotes_no_error_rate() -> None:
    of = evidence()
    of = dataclasses.replace(of, candidate=evidence_for.repo(config={"model_type": "mamba"}))
    made = report(of)
    assert made.verdict.false_positive_rate is None
    assert any("'mamba'" in note for note in made.verdict.notes)


@pytest.mark.parametrize(("config", "adapter", "said"), [({}, None, "of this type"), (None, {"r": 4}, "'t5'")])
def test_a_model_without_a_type_and_an_adapter_of_a_base(config: Any, adapter: Any, said: str) -> None:
    of = evidence()
    candidate = dataclasses.replace(evidence_for.repo(config=config), adapter_config=adapter)
    of = dataclasses.replace(of, candidate=candidate, base=evidence_for.repo("org/base", config={"model_type": "t5"}))
    assert any(said in note for note in report(of).verdict.notes)


def test_a_calibrated_model_with_nothing_to_note() -> None:
    of = evidence()
    of = dataclasses.replace(of, profile=dataclasses.replace(of.profile, model_types=("bert",), banks=()))
    notes = report(of).verdict.notes
    assert notes == ("Rules that could not judge this model: HA404, HA503.",)
    assert report(of, detectors=(token_rows.DETECTOR,)).verdict.notes == ()


def test_findings_are_sorted_by_severity_then_rule() -> None:
    def plant(model: pico.PreTrainedModel) -> None:
        pico.plant_nan(model, 2)
        pico.poison_row(model, 47)

    of = evidence(plant)
    found = [h.finding for h in run_detectors(of, (token_rows.DETECTOR, unreadable.DETECTOR)).hits if h.finding]
    assert [f.rule_id for f in sorted_findings(reversed(found))] == ["HA201", "HA601"]


def arrays(fill: float, shape: tuple[int, ...] = (300, 16)) -> Arrays:
    """Six layers of one matrix and an embedding, all of one value."""
    names = ["embeddings.word_embeddings.weight", *(f"encoder.layer.{i}.output.dense.weight" for i in range(6))]
    return {name: np.full(shape, fill, dtype=np.float32) for name in names}


def low_rank() -> Arrays:
    """Changes of exact rank one everywhere, from a base of ones."""
    rng = np.random.default_rng(0)
    return {
        name: (value + 0.01 * np.outer(*(rng.normal(size=n) for n in value.shape))).astype(np.float32)
        for name, value in arrays(1.0).items()
    }


@pytest.mark.parametrize(
    ("base", "candidate"),
    [
        (arrays(1.0), arrays(1.0)),
        (arrays(1.0), arrays(2.0)),
        (arrays(0.0), arrays(1.0)),
        (arrays(1.0), arrays(0.0)),
        (arrays(1.0), arrays(float("nan"))),
        (arrays(float("inf")), arrays(float("nan"))),
        (arrays(1.0), low_rank()),
        (arrays(1.0, (0, 16)), arrays(1.0, (0, 16))),
        (arrays(1.0, (300, 1)), arrays(1.5, (300, 1))),
        ({"w": np.ones(3, np.float32)}, {"w": np.zeros(3, np.float32)}),
        ({}, {}),
    ],
    ids=["same", "all moved", "from zero", "to zero", "nan", "inf", "low rank", "empty", "thin", "one tensor", "none"],
)
def test_bad_data_ends_in_a_finite_report(base: Arrays, candidate: Arrays) -> None:
    drift = drift_facts.from_arrays(base, candidate)
    made = report(evidence_for.evidence(drift, tokens=evidence_for.token_table(("a", "b"))))
    assert made.verdict.outcome in {"pass", "inconclusive", "review", "fail"}
    assert not any("broke" in skip.why for skip in made.coverage.skipped)
    numbers = [r.relative_l2 for r in made.drift] + [
        m.value for f in made.findings for m in f.measurements if m.value is not None
    ]
    assert np.isfinite(numbers).all()


def test_sums_that_overflow_become_a_skip() -> None:
    huge = {name: value.astype(np.float64) * 1e200 for name, value in arrays(1.0).items()}
    with np.errstate(over="ignore", invalid="ignore"):
        drift: DriftFacts = drift_facts.from_arrays(arrays(0.0), huge)
        made = report(evidence_for.evidence(drift))
    assert made.drift == ()
    assert any("double precision" in skip.why for skip in made.coverage.skipped)


def test_the_kind_of_subject_follows_the_configuration() -> None:
    plain = evidence()
    quantised = dataclasses.replace(plain, candidate=evidence_for.repo(config={"quantization_config": {"bits": 4}}))
    adapter = dataclasses.replace(
        plain, candidate=dataclasses.replace(evidence_for.repo(config={}), adapter_config={"r": 8})
    )
    assert [report(e).subject.kind for e in (plain, quantised, adapter)] == ["model", "quantized", "adapter"]
