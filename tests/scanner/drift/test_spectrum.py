from dataclasses import replace

import numpy as np
import pytest
from drift_facts import spectrum as plain_spectrum
from paired import Array, block_of, exact, spec_of, stored

from scanner.drift.heading import WIDTH
from scanner.drift.spectrum import EXACT_SIDE, DeltaSpectrum, has_spectrum
from scanner.drift.workers import Workers
from scanner.records import Spectrum


def weights(rows: int, columns: int, spike: float = 0.0, seed: int = 0) -> tuple[Array, Array]:
    """A base and a fine-tune whose update has a decaying spectrum and, if asked for, one strong direction."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((rows, columns)) * 0.05
    update = 0.001 * rng.standard_normal((rows, 12)) @ rng.standard_normal((12, columns))
    edit = spike * np.outer(rng.standard_normal(rows), rng.standard_normal(columns))
    return base, base + update + edit + 1e-4 * rng.standard_normal((rows, columns))


def measured(base: Array, candidate: Array, dtype: str, height: int = 10_000) -> Spectrum | None:
    spectrum = DeltaSpectrum(spec_of("w", base.shape, dtype, dtype), Workers(2))
    delta = exact(candidate, dtype) - exact(base, dtype)
    energies = np.where(np.isfinite(delta), delta, 0.0) ** 2
    for start in range(0, base.shape[0], height):
        rows = slice(start, start + height)
        spectrum.fold(
            block_of(base[rows], dtype, start), block_of(candidate[rows], dtype, start), float(energies[rows].sum())
        )
    return spectrum.finish(float(energies.sum()))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("shape", [(2, 2), (64, 200), (200, 64), (EXACT_SIDE, 600)])
def test_small_matrices_are_exact(dtype: str, shape: tuple[int, int]) -> None:
    base, candidate = (stored(array, dtype) for array in weights(*shape))
    found = measured(base, candidate, dtype, height=30)
    truth = plain_spectrum(exact(candidate, dtype) - exact(base, dtype))
    assert found is not None
    assert found.exact
    np.testing.assert_allclose(found.values, truth.values, rtol=1e-6)
    assert found.energy == pytest.approx(truth.energy)
    for side in ("left_top", "right_top"):
        ours, theirs = getattr(found, side), getattr(truth, side)
        assert ours[0][0] == theirs[0][0]
        np.testing.assert_allclose([abs(v) for _, v in ours], [abs(v) for _, v in theirs], rtol=1e-4)
    assert found.right_top[0][1] > 0


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_large_matrices_are_sketched_closely(dtype: str) -> None:
    base, candidate = (stored(array, dtype) for array in weights(2500, 550, spike=0.002))
    found = measured(base, candidate, dtype, height=700)
    truth = plain_spectrum(exact(candidate, dtype) - exact(base, dtype))
    assert found is not None
    assert not found.exact
    np.testing.assert_allclose(found.values, truth.values, rtol=1e-2)
    assert found.top_share == pytest.approx(truth.top_share, rel=1e-2)
    assert found.left_top[0][0] == truth.left_top[0][0]
    assert found.right_top[0][0] == truth.right_top[0][0]


def test_a_rank_one_edit_stands_out() -> None:
    base, candidate = weights(900, 700, spike=0.05)
    found = measured(base, candidate, "F64")
    assert found is not None
    assert found.top_share > 0.95


@pytest.mark.parametrize("factor", [1e-35, 1e30])
def test_the_scale_of_the_update_does_not_matter(factor: float) -> None:
    base, candidate = weights(600, 700)
    zero = np.zeros_like(base)
    small = measured(zero, (candidate - base) * factor, "F64")
    plain = measured(zero, candidate - base, "F64")
    assert small is not None
    assert plain is not None
    np.testing.assert_allclose(np.array(small.values) / factor, plain.values, rtol=1e-5)


def test_rows_without_change_are_passed_over() -> None:
    base, candidate = weights(2000, 600)
    candidate[:1500] = base[:1500]
    found = measured(base, candidate, "F64", height=100)
    truth = plain_spectrum(candidate - base)
    assert found is not None
    np.testing.assert_allclose(found.values, truth.values, rtol=1e-3)
    assert all(index >= 1500 for index, _ in found.left_top)


def test_no_change_has_no_spectrum() -> None:
    base, _ = weights(30, 20)
    assert measured(base, base, "F64") is None


def test_non_finite_values_count_as_no_change() -> None:
    base, candidate = weights(40, 30)
    candidate[3, 4] = np.nan
    candidate[5, 6] = np.inf
    found = measured(base, candidate, "F64")
    repaired = np.where(np.isfinite(candidate), candidate, base)
    assert found is not None
    np.testing.assert_allclose(found.values, plain_spectrum(repaired - base).values, rtol=1e-6)


@pytest.mark.parametrize("columns", [70, 600])
def test_updates_of_too_many_magnitudes_have_no_spectrum(columns: int) -> None:
    base = np.zeros((2 * columns, columns))
    candidate = np.full(base.shape, 1e-30)
    candidate[columns:] = 1e30
    assert measured(base, candidate, "F64", height=columns) is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 100), False),
        ((100, 1), False),
        ((100,), False),
        ((2, 2), True),
        ((262_144, 4096), True),
        ((30_522, 384), True),
        ((4096, 14_336), True),
        ((8, 5120, 16_384), False),
        ((3_000_000, 600), False),
    ],
)
def test_who_has_a_spectrum(shape: tuple[int, ...], expected: bool) -> None:
    assert has_spectrum(spec_of("w", shape, "BF16", "BF16")) is expected


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("mlp_out", (True, True)),
        ("attention_output", (True, True)),
        ("embedding", (False, True)),
        ("query", (False, False)),
    ],
)
@pytest.mark.parametrize("shape", [(64, 200), (600, 700)], ids=["exact", "sketch"])
def test_writers_keep_whole_vectors_and_tables_the_right_one(
    role: str, kept: tuple[bool, bool], shape: tuple[int, int]
) -> None:
    base, candidate = (stored(array, "F32") for array in weights(*shape, spike=0.1))
    spectrum = DeltaSpectrum(replace(spec_of("w", shape, "F32", "F32"), role=role), Workers(1))
    delta = exact(candidate, "F32") - exact(base, "F32")
    energy = float((delta**2).sum())
    spectrum.fold(block_of(base, "F32", 0), block_of(candidate, "F32", 0), energy)
    found = spectrum.finish(energy)
    assert found is not None
    assert (found.left is not None, found.right is not None) == kept
    left, _, right = np.linalg.svd(delta, full_matrices=False)
    for ours, truth, top in ((found.left, left[:, 0], found.left_top), (found.right, right[0], found.right_top)):
        if ours is not None:
            assert ours.dtype == np.float32
            assert abs(float(ours @ truth)) == pytest.approx(1.0, abs=1e-4)
            assert float(ours[top[0][0]]) == pytest.approx(top[0][1], rel=1e-5)


def test_rows_that_went_the_same_way_have_the_same_heading() -> None:
    rng = np.random.default_rng(4)
    base = rng.standard_normal((60, 400)) * 0.05
    candidate = base + 1e-3 * rng.standard_normal(base.shape)
    candidate[20:30] = base[20:30] + np.outer(rng.uniform(0.1, 1.0, 10), rng.standard_normal(400))
    candidate[:7] = base[:7]
    spectrum = DeltaSpectrum(replace(spec_of("w", base.shape, "F32", "F32"), role="embedding"), Workers(1))
    for start in range(0, 60, 5):
        rows = slice(start, start + 5)
        energy = float(((candidate[rows] - base[rows]) ** 2).sum())
        spectrum.fold(
            block_of(stored(base[rows], "F32"), "F32", start),
            block_of(stored(candidate[rows], "F32"), "F32", start),
            energy,
        )
    heading = spectrum.row_heading()
    assert heading is not None
    assert heading.shape == (60, WIDTH)
    cosines = heading.astype(np.float64) @ heading.astype(np.float64).T
    np.testing.assert_allclose(cosines[20:30, 20:30], 1.0, atol=0.01)
    others = cosines[30:, 30:][np.triu_indices(30, 1)]
    assert float(np.sqrt((others**2).mean())) == pytest.approx(1 / np.sqrt(WIDTH), rel=0.2)
    assert not heading[:5].any(), "rows that did not move point nowhere"
