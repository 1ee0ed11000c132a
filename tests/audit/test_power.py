"""The stated power: right where it can be counted, monotone in what is read, silent where nothing is judged."""

from dataclasses import replace

import drift_facts
import evidence_for
import numpy as np
import pytest
from scipy.stats import chi2

from audit.escalation import unusual_tensors
from audit.power import at_least, stated_power
from audit.triage import sampling_doubts, triage_record
from scanner.records import DriftFacts, Rows, Sampling, TensorDrift

LAYERS = 8
TOKENS = 4000
SAMPLING = Sampling(budget_bytes=100, escalation_bytes=100, checked_bytes=10, planned_bytes=80)


def sampled(tensor: TensorDrift, runs: tuple[Rows, ...], rows: int) -> TensorDrift:
    """The tensor as the compared rows of a larger one."""
    return replace(tensor, spec=replace(tensor.spec, rows=(0, rows), runs=runs))


def facts(*, rows: int = 32, larger: float = 1.0, tokens: int = 1000) -> DriftFacts:
    """Matrices of 256 rows in eight layers and a table of 4,000 tokens, of which so many rows were read."""
    rng = np.random.default_rng(0)
    names = [f"encoder.layer.{layer}.output.dense.weight" for layer in range(LAYERS)]
    tensors = []
    for number, name in enumerate(names):
        base = rng.standard_normal((rows, 64))
        scale = 0.01 * (larger if number == 3 else 1.0)
        found = drift_facts.tensor_drift(name, base, base + scale * rng.standard_normal((rows, 64)))
        half = rows // 2
        tensors.append(sampled(found, ((0, half), (100, 100 + rows - half)), 256))
    base = rng.standard_normal((tokens, 64))
    sizes = 0.01 * np.exp(rng.normal(0.0, 0.3, (tokens, 1)))
    moved = drift_facts.tensor_drift(
        "embeddings.word_embeddings.weight", base, base + sizes * rng.standard_normal((tokens, 64))
    )
    tensors.append(sampled(moved, ((500, 500 + tokens),), TOKENS))
    whole = drift_facts.from_arrays({}, {})
    return replace(whole, tensors=tuple(tensors), sampling=SAMPLING)


def power_of(drift: DriftFacts) -> dict[str, float]:
    return {record.edit: record.probability for record in stated_power(evidence_for.evidence(drift))}


def test_the_chance_of_a_row_is_the_share_of_rows_read() -> None:
    power = power_of(facts(rows=32, tokens=1000))
    assert next(p for edit, p in power.items() if edit.startswith("one token row")) == 0.25
    assert power["one row of one matrix written by hand"] == 32 / 256
    assert power["a behaviour trained into all layers at once, tied to ordinary words"] == 0.0


def test_more_rows_see_more() -> None:
    few, many = (power_of(facts(rows=rows))["one matrix of one layer edited in low rank"] for rows in (4, 64))
    assert 0 < few < many <= 1


def test_the_size_that_a_row_must_have_is_where_the_rule_begins() -> None:
    drift = facts()
    record = next(r for r in stated_power(evidence_for.evidence(drift)) if r.edit.startswith("one token row"))
    factor = float(record.size.split("at least ")[1].split(" times")[0])
    table = drift.tensors[-1]
    typical = float(np.median(np.sqrt(table.row_delta_sq)))
    for size, seen in ((0.7 * factor, False), (1.4 * factor, True)):
        energies = table.row_delta_sq.copy()
        energies[77] = (size * typical) ** 2
        changed = replace(drift, tensors=(*drift.tensors[:-1], replace(table, row_delta_sq=energies)))
        named = evidence_for.report(evidence_for.evidence(changed)).findings
        rows = [place.rows for f in named if f.rule_id == "HA201" for place in f.locations]
        assert (rows == [((577, 578),)]) == seen, "row 77 of those read is token 577"


def test_nothing_is_stated_against_a_base_that_is_not_verified() -> None:
    assert stated_power(evidence_for.evidence(facts(), status="unverified")) == ()


@pytest.mark.parametrize("degrees", [2, 8, 16, 64])
@pytest.mark.parametrize("value", [0.0, 1.0, 9.0, 40.0, 2000.0])
def test_the_tail_of_chi_square_is_the_textbooks(degrees: int, value: float) -> None:
    assert at_least(degrees, value) == pytest.approx(float(chi2.sf(value, degrees)), abs=1e-12)


def test_a_sample_that_comes_near_a_threshold_is_named() -> None:
    assert unusual_tensors(evidence_for.evidence(facts())) == ()
    (name, *_) = unusual_tensors(evidence_for.evidence(facts(larger=3.0)))
    assert name == "encoder.layer.3.output.dense.weight"


def test_what_was_read_whole_is_not_named_again() -> None:
    drift = facts(larger=3.0)
    whole = tuple(replace(t, spec=replace(t.spec, rows=(0, len(t.row_delta_sq)), runs=())) for t in drift.tensors)
    assert unusual_tensors(evidence_for.evidence(replace(drift, tensors=whole))) == ()


def test_a_sample_is_doubted_and_recorded_and_a_whole_scan_is_neither() -> None:
    of = evidence_for.evidence(facts())
    assert "sample" in sampling_doubts(of)[0]
    record = triage_record(of)
    assert record is not None
    assert record.power == stated_power(of)
    assert evidence_for.report(of).verdict.outcome == "inconclusive"
    whole = evidence_for.evidence(replace(facts(), sampling=None))
    assert sampling_doubts(whole) == ()
    assert triage_record(whole) is None


@pytest.mark.parametrize(
    ("changed", "rows", "found"), [(1, 1000, True), (7, 1000, True), (9, 1000, False), (9, 4000, True)]
)
def test_few_changed_rows_of_a_sample_stand_for_more_in_the_table(changed: int, rows: int, found: bool) -> None:
    """At most 32 rows of a table may have changed: nine of the quarter that was read stand for 36."""
    base = np.random.default_rng(0).standard_normal((rows, 64))
    after = base.copy()
    after[:changed] += 1.0
    table = drift_facts.tensor_drift("embeddings.word_embeddings.weight", base, after)
    table = sampled(table, ((0, rows),) if rows < TOKENS else (), TOKENS)
    drift = replace(facts(), tensors=(*facts().tensors[:-1], table))
    of = evidence_for.evidence(drift)
    assert any(finding.rule_id == "HA202" for finding in evidence_for.report(of).findings) == found
    assert (table.spec.name in unusual_tensors(of)) == (rows < TOKENS), "a sample is read further either way"
