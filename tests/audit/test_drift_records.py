"""The drift of each tensor as reports show it."""

import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, freeze, half_precision

from audit.drift_records import drift_records
from audit.evidence import Evidence
from audit.records import DriftRecord

ROW = 47
TABLE = "embeddings.word_embeddings.weight"


def records(of: Evidence) -> dict[str, DriftRecord]:
    """The records by tensor."""
    return {r.tensor: r for r in drift_records(of) if isinstance(r, DriftRecord)}


def test_a_poisoned_row_leads_the_table_with_its_token_and_z() -> None:
    of = evidence(lambda m: pico.poison_row(m, ROW))
    top = records(of)[TABLE].top_rows[0]
    assert of.tokens is not None
    assert (top.row, top.token) == (ROW, of.tokens.texts[ROW])
    assert top.z is not None
    assert top.z > 8
    assert top.relative > 3


def test_the_histogram_counts_every_row_that_moved() -> None:
    histogram = records(evidence())[TABLE].row_histogram
    of = evidence()
    assert histogram is not None
    assert of.drift is not None
    table = next(t for t in of.drift.tensors if t.spec.name == TABLE)
    assert sum(histogram.counts) == int((table.row_delta_sq > 0).sum())
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert np.allclose(np.diff(histogram.edges), 0.1)
    assert histogram.unit == "log10 of row drift in weight units"


def test_dust_far_below_is_counted_in_the_first_bin() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        base[TABLE] = base[TABLE].astype(np.float64)
        candidate[TABLE] = base[TABLE].copy()
        candidate[TABLE][:, 0] += 1.0
        candidate[TABLE][3] = base[TABLE][3]
        candidate[TABLE][3, 0] += 1e-17

    histogram = records(evidence(change=change))[TABLE].row_histogram
    assert histogram is not None
    assert len(histogram.counts) <= 120
    assert histogram.counts[0] in {0, 1}
    assert sum(histogram.counts) in {319, 320}


def test_a_frozen_table_has_neither_rows_nor_histogram() -> None:
    record = records(evidence(change=freeze("word_embeddings")))[TABLE]
    assert (record.top_rows, record.row_histogram, record.changed_fraction) == ((), None, 0.0)


def test_a_table_that_was_only_rounded_names_no_rows() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("")(base, candidate)
        half_precision(base, candidate)

    assert records(evidence(change=change))[TABLE].top_rows == ()


def test_matrices_show_their_top_rows_without_tokens() -> None:
    record = records(evidence(lambda m: pico.flip_neuron(m, 2, 5)))["encoder.layer.2.intermediate.dense.weight"]
    assert record.top_rows[0].row == 5
    assert record.top_rows[0].token is None
    assert len(record.top_rows) == 3
    assert record.row_histogram is None


@pytest.mark.parametrize("name", ["embeddings.LayerNorm.bias", "encoder.layer.2.output.dense.bias"])
def test_vectors_have_no_rows_and_no_spectrum(name: str) -> None:
    record = records(evidence())[name]
    assert (record.top_rows, record.singular_values, record.top_share) == ((), (), None)


def test_the_numbers_are_those_of_the_scanner() -> None:
    of = evidence()
    assert of.drift is not None
    for tensor in of.drift.tensors:
        record = records(of)[tensor.spec.name]
        assert record.relative_l2 == tensor.relative_l2
        assert record.cosine == tensor.cosine
        if tensor.spectrum:
            assert record.singular_values == tensor.spectrum.values


def test_without_drift_there_are_no_records() -> None:
    import dataclasses

    assert list(drift_records(dataclasses.replace(evidence(), drift=None))) == []
