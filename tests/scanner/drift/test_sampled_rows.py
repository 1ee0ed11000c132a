"""A pair compared in several runs of rows measures what those rows hold, and says which they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paired import opened, write_model

from scanner.drift.measure import measure

RUNS = ((3, 5), (20, 36), (90, 100))


def test_runs_measure_as_those_rows_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = rng.standard_normal((100, 40)).astype(np.float32)
    after = (before + 0.01 * rng.standard_normal((100, 40))).astype(np.float32)
    after[25, 7] += 3
    rows = np.concatenate([np.arange(*run) for run in RUNS])
    whole = [write_model(tmp_path / n, {"w": (v, "F32")}) for n, v in (("b", before), ("c", after))]
    alone = [write_model(tmp_path / n, {"w": (v[rows], "F32")}) for n, v in (("bs", before), ("cs", after))]
    with opened(*alone) as (alignment, base, candidate):
        (expected,) = measure(alignment, base, candidate).tensors
    for block_bytes in (1, 700, 1 << 20):
        with opened(*whole) as (alignment, base, candidate):
            pair = replace(alignment.pairs[0], runs=RUNS)
            facts = measure(replace(alignment, pairs=(pair,)), base, candidate, block_bytes=block_bytes)
            assert base.bytes_read == len(rows) * 160
        (found,) = facts.tensors
        assert (found.count, found.changed) == (expected.count, expected.changed)
        assert facts.coverage.parameters_compared == len(rows) * 40
        np.testing.assert_allclose(found.row_delta_sq, expected.row_delta_sq, rtol=1e-6)
        np.testing.assert_allclose(found.col_delta_sq, expected.col_delta_sq, rtol=1e-6)
        assert found.spectrum is not None
        assert expected.spectrum is not None
        np.testing.assert_allclose(found.spectrum.values, expected.spectrum.values, rtol=1e-5)
        assert found.residual is not None
        assert expected.residual is not None
        assert [place[:2] for place in found.residual.top] == [place[:2] for place in expected.residual.top]
        assert found.spec.row_at(int(np.argmax(found.row_delta_sq))) == 25


def test_places_and_rows_are_each_others_inverse(tmp_path: Path) -> None:
    facts = write_model(tmp_path / "m", {"w": (np.ones((100, 4)), "F32")})
    with opened(facts, facts) as (alignment, _, _):
        pair = replace(alignment.pairs[0], runs=RUNS)
    assert [pair.row_at(i) for i in range(pair.compared_rows)] == pair.row_indices().tolist()
    assert [pair.place_of(row) for row in pair.row_indices()] == list(range(28))
    assert pair.sampled
    assert not replace(pair, runs=()).sampled
    for nowhere in (5, 0, 100):
        with pytest.raises(IndexError):
            pair.place_of(nowhere)
    with pytest.raises(IndexError):
        pair.row_at(28)
