"""HA105 and HA106: a nearer model, and a relation that the weights do not show."""

from dataclasses import replace

import pytest
from evidence_for import repo

from audit.detectors.relation import DETECTOR
from audit.evidence import Evidence
from audit.thresholds import load_profile
from scanner.card import parse_card
from scanner.records import CardFacts, Check, Lineage, Measured, Relation

ROWS = Check(name="measured_relation", outcome="passed", measurements=(Measured(name="n", value=1.0),), note="Seen.")


def evidence(measured: Relation, *checks: Check, declared: str | None = None, hub: str | None = None) -> Evidence:
    card = parse_card(f"---\nbase_model: org/base\nbase_model_relation: {declared}\n---\n") if declared else CardFacts()
    candidate = replace(repo(card=card), hub={"relation": hub} if hub else {})
    base = repo("org/base")
    return Evidence(
        candidate=candidate,
        base=base,
        lineage=Lineage(
            candidate=candidate.ref, base=base.ref, relation=measured, status="verified", checks=checks or (ROWS,)
        ),
        drift=None,
        tokens=None,
        profile=load_profile(),
    )


def findings(found: Evidence):
    return [hit.finding for hit in DETECTOR.run(found)]


@pytest.mark.parametrize(
    ("declared", "measured"),
    [
        ("finetune", "identical"),
        ("finetune", "quantized"),
        ("adapter", "finetune"),
        ("quantized", "finetune"),
        ("merge", "identical"),
    ],
)
def test_another_relation_is_a_finding(declared, measured):
    (finding,) = findings(evidence(measured, declared=declared))
    assert finding.rule_id == "HA106"
    assert f"declared relation is {declared}; the weights show {measured}" in finding.explanation
    assert finding.confidence == ("exact" if measured == "identical" else "medium")
    assert findings(evidence(measured, hub=declared))


@pytest.mark.parametrize(
    ("declared", "measured"),
    [
        ("finetune", "finetune"),
        ("finetune", "adapter"),
        ("merge", "finetune"),
        ("quantized", "quantized"),
        ("adapter", "unknown"),
    ],
)
def test_a_relation_that_fits_is_none(declared, measured):
    assert not findings(evidence(measured, declared=declared))


def test_nothing_declared_or_nothing_measured_is_none():
    assert not findings(evidence("identical"))
    assert not findings(evidence("identical", replace(ROWS, outcome="not_run"), declared="finetune"))
    assert not findings(evidence("identical", declared="stolen"))


def test_a_nearer_model_is_a_finding():
    nearer = Check(name="nearer_model", outcome="failed", note="org/x is nearer than the declared base, org/base.")
    (finding,) = findings(evidence("finetune", nearer, declared="finetune"))
    assert finding.rule_id == "HA105"
    assert "org/x is nearer" in finding.explanation
    assert finding.measurements
