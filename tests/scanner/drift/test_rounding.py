import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paired import NUMBERS, block_of, exact, spec_of, stored

from scanner.drift.pair import PairMeasurement
from scanner.drift.rounding import loses_precision, rounding_energy
from scanner.drift.workers import Workers
from scanner.weights.dtypes import ELEMENT_TYPES, is_float

FLOATS = [name for name in ELEMENT_TYPES if is_float(name)]


@pytest.mark.parametrize("base", list(NUMBERS))
@pytest.mark.parametrize("candidate", list(NUMBERS))
def test_loses_precision_where_some_value_does_not_survive(base: str, candidate: str) -> None:
    kind = NUMBERS[base][0]
    bits = {1: np.uint8, 2: np.uint16}.get(np.dtype(kind).itemsize)
    if bits is None:  # too many values to try them all: one of full length, and the largest
        finfo = np.finfo(kind)
        values = np.array([1 + float(finfo.eps), float(finfo.max), 1.0], kind)
    else:
        codes = np.arange(1 << (8 * np.dtype(bits).itemsize), dtype=np.uint32).astype(bits)
        values = codes.view(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float64)
        values = values[np.isfinite(values)]
        survived = values.astype(NUMBERS[candidate][0]).astype(np.float64) == values
    assert loses_precision(base, candidate) is not bool(survived.all())


def test_every_readable_float_is_known() -> None:
    assert all(not loses_precision(name, name) for name in FLOATS)
    assert all(loses_precision("F64", name) for name in FLOATS if name != "F64")


def test_other_kinds_have_no_floor() -> None:
    assert not loses_precision("I8", "BF16")
    assert not loses_precision("F32", "I8")


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_the_floor_is_that_of_torch(dtype: str) -> None:
    base = torch.randn(300, 70, generator=torch.Generator().manual_seed(0)) * 0.05
    cast = base.to({"BF16": torch.bfloat16, "F16": torch.float16}[dtype]).float()
    expected = (cast - base).double().square().sum().item()
    assert rounding_energy(base.numpy(), cast.numpy(), dtype) == pytest.approx(expected, rel=1e-12)


def test_what_is_not_compared_does_not_count() -> None:
    base = np.array([1.001, np.inf, 1.001, 1e39], np.float64)
    candidate = np.array([1.0, 1.0, np.nan, np.inf])
    energy = rounding_energy(base, candidate, "BF16")
    assert energy == pytest.approx((float(ml_dtypes.bfloat16(1.001)) - 1.001) ** 2)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dtypes=st.sampled_from([("F32", "BF16"), ("F32", "F16"), ("F64", "F32"), ("F16", "BF16")]),
)
def test_a_mere_cast_drifts_by_exactly_its_floor(seed: int, dtypes: tuple[str, str]) -> None:
    base = stored(np.random.default_rng(seed).standard_normal((50, 30)) * 0.05, dtypes[0])
    candidate = stored(exact(base, dtypes[0]), dtypes[1])
    with Workers(1) as workers:
        measurement = PairMeasurement(spec_of("w", base.shape, *dtypes), workers, depth="moments", seed=0)
        measurement.fold(block_of(base, dtypes[0]), block_of(candidate, dtypes[1]))
        drift = measurement.finish()
    assert drift.delta_l2 > 0
    assert drift.rounding_floor == pytest.approx(drift.delta_l2, rel=1e-6)


def test_no_floor_where_nothing_is_lost() -> None:
    base = stored(np.random.default_rng(0).standard_normal((5, 3)), "BF16")
    candidate = stored(exact(base, "BF16") + 0.25, "F32")
    with Workers(1) as workers:
        measurement = PairMeasurement(spec_of("w", base.shape, "BF16", "F32"), workers, depth="moments", seed=0)
        measurement.fold(block_of(base, "BF16"), block_of(candidate, "F32"))
        assert measurement.finish().rounding_floor == 0.0
