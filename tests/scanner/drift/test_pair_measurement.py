import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from drift_facts import residual as plain_residual
from hypothesis import given, settings
from hypothesis import strategies as st
from paired import Array, block_of, exact, spec_of, stored

from scanner.drift.moments import MAX_COLUMNS
from scanner.drift.pair import PairMeasurement
from scanner.drift.workers import Workers
from scanner.records import TensorDrift

DTYPES = ("BF16", "F16", "F32", "F64")
MIXED = (("F32", "BF16"), ("BF16", "F32"), ("F16", "BF16"), ("F64", "F32"), ("F8_E4M3", "BF16"), ("F8_E5M2", "F8_E5M2"))


def weights(rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((rows, columns)) * 0.05
    scales = np.exp(rng.standard_normal((rows, 1))) * np.exp(0.5 * rng.standard_normal((1, columns)))
    return base, base + rng.standard_normal((rows, columns)) * 0.01 * scales


def drift_of(
    base: Array, candidate: Array, dtypes: tuple[str, str], *, heights: tuple[int, ...] = (), threads: int = 1
) -> TensorDrift:
    """Measure two storages, cut into blocks of these heights and a rest."""
    spec = spec_of("w", candidate.shape, *dtypes)
    with Workers(threads) as workers:
        measurement = PairMeasurement(spec, workers, depth="residual", seed=0)
        cuts = np.unique(np.clip(np.cumsum((0, *heights, candidate.shape[0])), 0, candidate.shape[0]))
        for start, end in pairwise(cuts):
            measurement.fold(
                block_of(base[start:end], dtypes[0], int(start)), block_of(candidate[start:end], dtypes[1], int(start))
            )
        return measurement.finish()


def check(drift: TensorDrift, base: Array, candidate: Array, rtol: float = 2e-6) -> None:
    """Compare with plain float64 sums over the dimensions that are finite on both sides."""
    kept = np.isfinite(base) & np.isfinite(candidate)
    b, c = np.where(kept, base, 0.0), np.where(kept, candidate, 0.0)
    delta = c - b
    assert drift.count == base.size
    assert drift.changed == np.count_nonzero(delta)
    assert drift.nonfinite == np.count_nonzero(~np.isfinite(candidate))
    assert drift.base_nonfinite == np.count_nonzero(~np.isfinite(base))
    for name, expected in {
        "base_l2": np.linalg.norm(b),
        "candidate_l2": np.linalg.norm(c),
        "delta_l2": np.linalg.norm(delta),
        "row_delta_sq": (delta**2).sum(1),
        "row_base_sq": (b**2).sum(1),
        "col_delta_sq": (delta**2).sum(0),
    }.items():
        np.testing.assert_allclose(getattr(drift, name), expected, rtol=rtol, err_msg=name)
    scale = np.linalg.norm(b) * np.linalg.norm(delta)
    np.testing.assert_allclose(drift.dot, (b * delta).sum(), atol=1e-6 * scale, rtol=rtol)
    np.testing.assert_allclose(drift.row_dot, (b * delta).sum(1), atol=1e-6 * scale, rtol=1e-5)
    if min(delta.shape) < 2 or not delta.any():
        assert drift.residual is None
        return
    expected_residual = plain_residual(delta)
    assert drift.residual is not None
    assert drift.residual.mean_square == pytest.approx(expected_residual.mean_square, rel=1e-5)
    assert drift.residual.maximum == pytest.approx(expected_residual.maximum, rel=1e-5)
    assert drift.residual.top[0][:2] == expected_residual.top[0][:2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (33, 31), (100, 384), (37, 5000), (5, 9001)])
def test_sums_equal_plain_float64_sums(dtype: str, shape: tuple[int, int]) -> None:
    base, candidate = (stored(array, dtype) for array in weights(*shape))
    check(drift_of(base, candidate, (dtype, dtype)), exact(base, dtype), exact(candidate, dtype))


@pytest.mark.parametrize("dtypes", MIXED, ids="-".join)
def test_mixed_and_eight_bit_dtypes(dtypes: tuple[str, str]) -> None:
    base, candidate = (
        stored(array, dtype) for array, dtype in zip(weights(700, 600), dtypes, strict=True)
    )  # more elements than are decoded at a time
    check(drift_of(base, candidate, dtypes), exact(base, dtypes[0]), exact(candidate, dtypes[1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_values_are_counted_and_left_out(dtype: str) -> None:
    base, candidate = weights(70, 90)
    candidate[3, 4], candidate[3, 5], candidate[64, 0] = np.nan, np.inf, -np.inf
    base[3, 4], base[10, 10] = np.inf, np.nan
    base[20], candidate[21] = np.nan, np.nan
    base, candidate = stored(base, dtype), stored(candidate, dtype)
    drift = drift_of(base, candidate, (dtype, dtype))
    assert (drift.nonfinite, drift.base_nonfinite) == (93, 92)
    check(drift, exact(base, dtype), exact(candidate, dtype))


def test_nothing_but_nan() -> None:
    base, _ = weights(8, 8)
    drift = drift_of(stored(base, "F32"), stored(np.full((8, 8), np.nan), "F32"), ("F32", "F32"))
    assert (drift.nonfinite, drift.changed, drift.delta_l2, drift.residual) == (64, 0, 0.0, None)


@pytest.mark.parametrize(
    ("dtype", "factor"), [("F32", 1e-27), ("F32", 1e30), ("BF16", 1e-30), ("BF16", 3e38), ("F64", 1e-60), ("F64", 1e60)]
)
def test_squares_outside_the_range_of_float32_are_not_lost(dtype: str, factor: float) -> None:
    base, candidate = (stored(array * factor, dtype) for array in weights(40, 50))
    drift = drift_of(base, candidate, (dtype, dtype))
    assert drift.delta_l2 > 0
    check(drift, exact(base, dtype), exact(candidate, dtype))


def test_a_tiny_update_of_large_weights_is_not_lost() -> None:
    base = np.zeros((4, 6)) + 1e-8
    candidate = base.copy()
    candidate[1, 2] = np.nextafter(np.float32(1e-8), np.float32(1))
    stored_base, stored_candidate = stored(base, "F32"), stored(candidate, "F32")
    drift = drift_of(stored_base, stored_candidate, ("F32", "F32"))
    assert drift.changed == 1
    check(drift, exact(stored_base, "F32"), exact(stored_candidate, "F32"))


def test_float64_beyond_what_squares_can_hold_counts_as_non_finite() -> None:
    base, candidate = weights(5, 7)
    candidate[2, 2] = sys.float_info.max
    drift = drift_of(base, candidate, ("F64", "F64"))
    assert drift.nonfinite == 1
    assert np.isfinite(drift.delta_l2)
    assert np.isfinite(drift.candidate_l2)


def test_negative_zero_is_no_change() -> None:
    base, candidate = np.zeros((2, 3)), -np.zeros((2, 3))
    for dtype in DTYPES:
        assert drift_of(stored(base, dtype), stored(candidate, dtype), (dtype, dtype)).changed == 0


def test_rows_too_long_for_column_sums_keep_their_row_sums() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((2, MAX_COLUMNS + 77), dtype=np.float32)
    candidate = base + np.float32(0.01) * rng.standard_normal(base.shape, dtype=np.float32)
    candidate[1, MAX_COLUMNS + 3] = np.nan
    spec = spec_of("w", base.shape, "F32", "F32")
    with Workers(2) as workers:
        measurement = PairMeasurement(spec, workers, depth="spectrum", seed=0)
        measurement.fold(block_of(base[:1], "F32"), block_of(candidate[:1], "F32"))
        for start, end in ((0, 600_001), (600_001, base.shape[1])):
            blocks = (block_of(side[1:, start:end], "F32", 1) for side in (base, candidate))
            measurement.fold(*(replace(block, columns=(start, end)) for block in blocks))
        drift = measurement.finish()
    delta = np.nan_to_num(candidate.astype(np.float64) - base)
    np.testing.assert_allclose(drift.row_delta_sq, (delta**2).sum(1), rtol=1e-6)
    assert (drift.count, drift.changed, drift.nonfinite) == (base.size, np.count_nonzero(delta), 1)
    assert drift.col_delta_sq.size == 0
    assert drift.residual is None
    assert drift.spectrum is None


def test_blocks_of_different_shape_are_refused() -> None:
    base, candidate = weights(4, 4)
    with Workers(1) as workers, pytest.raises(ValueError, match="cannot be compared"):
        PairMeasurement(spec_of("w", (4, 4), "F64", "F64"), workers, depth="moments", seed=0).fold(
            block_of(base[:3], "F64"), block_of(candidate, "F64")
        )


def test_depth_moments_leaves_the_rest_out() -> None:
    base, candidate = weights(6, 6)
    with Workers(1) as workers:
        measurement = PairMeasurement(spec_of("w", (6, 6), "F64", "F64"), workers, depth="moments", seed=0)
        measurement.fold(block_of(base, "F64"), block_of(candidate, "F64"))
        drift = measurement.finish()
    assert drift.residual is None
    assert drift.spectrum is None
    assert drift.delta_l2 == pytest.approx(np.linalg.norm(candidate - base))


SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    dtype=st.sampled_from(DTYPES),
    heights=st.lists(st.integers(1, 40), max_size=5),
    seed=st.integers(0, 99),
)
def test_block_sizes_do_not_change_the_statistics(
    shape: tuple[int, int], dtype: str, heights: list[int], seed: int
) -> None:
    base, candidate = (stored(array, dtype) for array in weights(*shape, seed))
    whole = drift_of(base, candidate, (dtype, dtype))
    parts = drift_of(base, candidate, (dtype, dtype), heights=tuple(heights))
    assert (whole.changed, whole.count) == (parts.changed, parts.count)
    np.testing.assert_array_equal(whole.row_delta_sq, parts.row_delta_sq)
    np.testing.assert_array_equal(whole.row_dot, parts.row_dot)
    np.testing.assert_allclose(whole.col_delta_sq, parts.col_delta_sq, rtol=1e-5)
    if whole.residual is not None:
        assert parts.residual is not None
        assert parts.residual.mean_square == pytest.approx(whole.residual.mean_square, rel=1e-5)
        assert parts.residual.maximum == pytest.approx(whole.residual.maximum, rel=1e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_the_statistics(threads: int) -> None:
    base, candidate = (stored(array, "BF16") for array in weights(1100, 600))
    alone = drift_of(base, candidate, ("BF16", "BF16"))
    shared = drift_of(base, candidate, ("BF16", "BF16"), threads=threads)
    np.testing.assert_array_equal(alone.row_delta_sq, shared.row_delta_sq)
    np.testing.assert_allclose(alone.col_delta_sq, shared.col_delta_sq, rtol=1e-6)
    assert alone.residual is not None
    assert shared.residual is not None
    assert [place[:2] for place in alone.residual.top] == [place[:2] for place in shared.residual.top]


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, dtype=st.sampled_from((*DTYPES, "F8_E4M3")), seed=st.integers(0, 99))
def test_identical_weights_have_no_drift(shape: tuple[int, int], dtype: str, seed: int) -> None:
    base = stored(weights(*shape, seed)[0], dtype)
    drift = drift_of(base, base.copy(), (dtype, dtype))
    assert (drift.changed, drift.delta_l2, drift.dot, drift.relative_l2) == (0, 0.0, 0.0, 0.0)
    assert drift.candidate_l2 == drift.base_l2
    assert not drift.col_delta_sq.any()


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, power=st.integers(-8, 8), seed=st.integers(0, 99))
def test_scaling_the_delta_scales_its_norm(shape: tuple[int, int], power: int, seed: int) -> None:
    base, candidate = (array.astype(np.float32) for array in weights(*shape, seed))
    delta = candidate - base
    zero = np.zeros_like(base)
    one = drift_of(zero, delta, ("F32", "F32"))
    scaled = drift_of(zero, np.float32(2.0**power) * delta, ("F32", "F32"))
    assert scaled.delta_l2 == pytest.approx(2.0**power * one.delta_l2, rel=1e-12)
    if one.residual is not None and scaled.residual is not None:
        assert scaled.residual.mean_square == pytest.approx(one.residual.mean_square, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_permuting_rows_permutes_row_results(shape: tuple[int, int], dtype: str, seed: int) -> None:
    base, candidate = (stored(array, dtype) for array in weights(*shape, seed))
    order = np.random.default_rng(seed).permutation(shape[0])
    drift = drift_of(base, candidate, (dtype, dtype))
    permuted = drift_of(base[order], candidate[order], (dtype, dtype))
    np.testing.assert_array_equal(permuted.row_delta_sq, drift.row_delta_sq[order])
    np.testing.assert_array_equal(permuted.row_base_sq, drift.row_base_sq[order])
    np.testing.assert_allclose(permuted.col_delta_sq, drift.col_delta_sq, rtol=1e-5)
    if drift.residual is not None and permuted.residual is not None:
        assert permuted.residual.maximum == pytest.approx(drift.residual.maximum, rel=1e-5)
