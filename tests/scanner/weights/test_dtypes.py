"""Every bit pattern means what torch says it means."""

import ml_dtypes
import numpy as np
import pytest
import torch

from scanner.weights.dtypes import ELEMENT_TYPES, decode, is_float, is_readable, item_bits, storage_dtype

EIGHT_BIT = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
SIXTEEN_BIT = {"F16": torch.float16, "BF16": torch.bfloat16}
QUIET_BIT = 1 << 22  # of a float32; converting a signalling NaN sets it


def assert_same_floats(expected: np.ndarray, found: np.ndarray) -> None:
    """Equal bit by bit, signed zeros included; NaN only has to stay NaN of the same sign and payload."""
    assert found.dtype == np.float32
    nan = np.isnan(expected)
    np.testing.assert_array_equal(nan, np.isnan(found))
    expected_bits, found_bits = expected.view(np.uint32), found.view(np.uint32)
    np.testing.assert_array_equal(expected_bits[~nan], found_bits[~nan])
    np.testing.assert_array_equal(expected_bits[nan] | QUIET_BIT, found_bits[nan] | QUIET_BIT)


@pytest.mark.parametrize("name", SIXTEEN_BIT)
def test_all_65536_patterns_of_the_16_bit_floats_decode_as_torch_does(name: str) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(patterns.view(np.int16)).view(SIXTEEN_BIT[name]).float().numpy()
    assert_same_floats(expected, decode(patterns, name))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_all_256_patterns_of_the_8_bit_floats_decode_as_torch_does(name: str) -> None:
    patterns = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(patterns).view(EIGHT_BIT[name]).float().numpy()
    found = decode(patterns, name)
    np.testing.assert_array_equal(np.isnan(expected), np.isnan(found))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(expected[numbers].view(np.uint32), found[numbers].view(np.uint32))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_a_decoded_table_cannot_be_overwritten_for_the_next_reader(name: str) -> None:
    codes = np.array([1], dtype=np.uint8)
    first = decode(codes, name)
    first[:] = 99
    assert decode(codes, name)[0] != 99


@pytest.mark.parametrize("name", ["F32", "F64"])
def test_wide_floats_come_back_as_they_are(name: str) -> None:
    values = np.array([0.0, -0.0, 1 / 3, np.inf, -np.inf, np.nan, 5e-324], dtype=storage_dtype(name))
    assert decode(values, name) is values


@pytest.mark.parametrize(
    ("name", "extremes", "dtype"),
    [
        ("I8", (-128, 127), np.float32),
        ("U8", (0, 255), np.float32),
        ("I16", (-32768, 32767), np.float32),
        ("U16", (0, 65535), np.float32),
        ("I32", (-(2**31), 2**31 - 1), np.float64),
        ("U32", (0, 2**32 - 1), np.float64),
    ],
)
def test_integers_decode_exactly(name: str, extremes: tuple[int, int], dtype: type) -> None:
    found = decode(np.array(extremes, dtype=storage_dtype(name)), name)
    assert found.dtype == dtype
    assert tuple(int(value) for value in found) == extremes


def test_any_byte_but_zero_is_true() -> None:
    assert decode(np.array([0, 1, 2, 255], dtype=np.uint8), "BOOL").tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["I64", "U64", "C64", "F4", "F6_E2M3", "no such type"])
def test_what_has_no_exact_float_is_refused(name: str) -> None:
    storage = storage_dtype(name) if is_readable(name) else np.uint8
    with pytest.raises(ValueError, match="compare its bytes"):
        decode(np.zeros(1, dtype=storage), name)


def test_shape_is_kept() -> None:
    values = np.zeros((3, 0, 2), dtype=np.uint16)
    assert decode(values, "BF16").shape == (3, 0, 2)


def test_only_real_floats_of_whole_bytes_compare_as_numbers() -> None:
    floats = {name for name in ELEMENT_TYPES if is_float(name)}
    assert floats == {"F64", "F32", *SIXTEEN_BIT, *EIGHT_BIT}
    assert not is_float("no such type")


def test_widths_are_those_of_the_libraries() -> None:
    for name, made in {**EIGHT_BIT, **SIXTEEN_BIT}.items():
        assert item_bits(name) == made.itemsize * 8
    for name in ELEMENT_TYPES:
        if is_readable(name):
            assert storage_dtype(name).itemsize * 8 == item_bits(name)
    packed = {"F4": ml_dtypes.float4_e2m1fn, "F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn}
    for name, made in packed.items():
        assert item_bits(name) == ml_dtypes.finfo(made).bits
        with pytest.raises(KeyError):
            storage_dtype(name)
