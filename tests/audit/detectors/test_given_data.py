"""Rows that given data do not explain: planted, clean, innocent, and bad data."""

from dataclasses import replace

import curved
import numpy as np
import pytest
from evidence_for import token_table
from pico_cases import evidence, run

from audit.curvature_record import curvature_record
from audit.detectors.given_data import DETECTOR, ROWS

NAME = "encoder.layer.2.intermediate.dense.weight"
TABLE = "embeddings.word_embeddings.weight"


def with_data(**options):
    measured = evidence()
    specs = [t.spec for t in measured.drift.tensors if len(t.spec.shape) == 2 and t.spec.shape[0] >= 60]
    assert {NAME, TABLE} <= {spec.name for spec in specs}
    return replace(measured, curvature=curved.curvature_facts(*specs, **options))


def test_an_edited_unit_is_named_and_only_informs():
    hits, skips = run(DETECTOR, with_data(edited={NAME: {11: 400.0}}))
    found = [hit.finding for hit in hits if hit.finding]
    assert [f.rule_id for f in found] == [ROWS.id]
    assert found[0].locations[0].tensor == NAME
    assert found[0].locations[0].rows == ((11, 12),)
    assert found[0].measurements[0].value > found[0].measurements[0].threshold
    assert "curvature on the given data" in found[0].explanation
    assert not ROWS.weighs
    assert skips == []


def test_tokens_that_the_data_hold_are_named():
    of = with_data(edited={TABLE: {77: 600.0}}, unreached={TABLE: slice(120, 10_000)})
    rows = next(t for t in of.drift.tensors if t.spec.name == TABLE).spec.shape[0]
    tokens = token_table(tuple(f"tok{i}" for i in range(rows)))
    hits, _ = run(DETECTOR, replace(of, tokens=tokens))
    (finding,) = [hit.finding for hit in hits if hit.finding]
    assert [token.text for token in finding.locations[0].tokens] == ["tok77"]
    record = curvature_record(replace(of, tokens=tokens))
    assert (record.tensors[0].tensor, record.tensors[0].rows[0].token) == (TABLE, "tok77")
    assert record.tensors[0].by_e_bh
    assert record.by_e_bh == 1


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_model_has_a_score_and_no_finding(seed):
    hits, _ = run(DETECTOR, with_data(seed=seed))
    assert [hit.finding for hit in hits] == [None]
    assert 0 <= hits[0].score < 0.5


def test_training_on_the_same_channel_everywhere_is_innocent():
    writers = [f"encoder.layer.{layer}.output.dense.weight" for layer in range(6)]
    hits, _ = run(DETECTOR, with_data(edited={name: {5: 400.0} for name in writers}))
    assert all(hit.finding is None for hit in hits)


def test_without_data_nothing_is_said():
    assert run(DETECTOR, evidence()) == ([], [])
    assert curvature_record(evidence()) is None


def test_too_small_a_model_is_an_abstention():
    hits, skips = run(DETECTOR, replace(evidence(), curvature=curved.curvature_facts(curved.spec("a", (8, 8)))))
    assert hits == []
    assert [skip.what for skip in skips] == [ROWS.id]


def test_the_record_ranks_and_plots():
    record = curvature_record(with_data(edited={NAME: {11: 400.0}}))
    assert record.tensors[0].tensor == NAME
    assert record.tensors[0].rows[0].row == 11
    assert [plot.indicator for plot in record.plots] == ["fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2"]
    p_values = [tensor.p_value for tensor in record.tensors]
    assert p_values == sorted(p_values)
    assert np.isfinite([plot.measured for plot in record.plots]).all()
    assert record.exponent == pytest.approx(0.1, abs=0.05)
