"""Storage kinds of ggml, against encodings made by ggml's own C code."""

from pathlib import Path

import numpy as np
import pytest

from scanner.weights.ggml import REPRODUCIBLE, can_decode, coding_of, decode_rows, encode_rows

GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "ggml" / "reference.npz")
WEIGHTS = GOLDENS["weights"]
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
CODES = {"Q8_0": 256, "Q6_K": 64, "Q5_0": 32, "Q5_1": 32, "Q5_K": 32, "Q3_K": 8, "Q2_K": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_errors_have_the_size_that_reach_predicts(kind: str) -> None:
    raw = GOLDENS[kind]
    coding = coding_of(raw, kind, WEIGHTS.shape)
    assert coding is not None
    error = decode_rows(raw, kind) - WEIGHTS
    expected = np.square(coding.reach(), dtype=np.float64).sum() / 3
    assert 0.6 < np.square(error, dtype=np.float64).sum() / expected < 1.15


@pytest.mark.parametrize("kind", ["Q4_0_imatrix", "Q4_K_imatrix", "Q6_K_imatrix"])
def test_importance_matrices_keep_to_that_size(kind: str) -> None:
    name = kind.removesuffix("_imatrix")
    coding = coding_of(GOLDENS[kind], name, WEIGHTS.shape)
    assert coding is not None
    error = decode_rows(GOLDENS[kind], name) - WEIGHTS
    assert np.square(error).sum() / (np.square(coding.reach()).sum() / 3) < 1.3


@pytest.mark.parametrize("kind", sorted(REPRODUCIBLE))
def test_the_reference_is_reproduced_bit_for_bit(kind: str) -> None:
    assert (encode_rows(WEIGHTS, kind) == GOLDENS[kind]).all()
    coding = coding_of(GOLDENS[kind], kind, WEIGHTS.shape)
    assert coding is not None
    assert coding.again is not None
    assert (coding.again(WEIGHTS[1:3]) == decode_rows(GOLDENS[kind], kind)[1:3]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_reach_is_half_the_way_to_a_neighbour(kind: str) -> None:
    """Values of one block with the same scale are at least twice the smallest reach apart."""
    raw = GOLDENS[kind][:1]
    coding = coding_of(raw, kind, (1, 256))
    assert coding is not None
    values, reach = decode_rows(raw, kind)[0, :16], coding.reach()[0, :16]
    steps = np.unique(values)
    gaps = np.diff(steps)
    assert (reach > 0).all()
    if kind not in ("IQ4_NL", "IQ4_XS", "MXFP4"):
        assert np.ptp(reach) <= 1e-6 * reach.max()
        assert np.allclose(gaps / (2 * reach[0]), np.round(gaps / (2 * reach[0])), atol=2e-3)
    else:
        assert (gaps >= 2 * reach.min() * (1 - 1e-6) / 5).all()


def test_kinds_without_codes_of_single_elements_have_no_bound() -> None:
    assert can_decode("IQ3_S")
    assert coding_of(GOLDENS["IQ3_S"], "IQ3_S", WEIGHTS.shape) is None
    assert np.abs(decode_rows(GOLDENS["IQ3_S"], "IQ3_S") - WEIGHTS).max() < 0.2


def test_the_intermediate_kinds_are_not_decoded() -> None:
    assert not can_decode("Q8_K")
    assert not can_decode("F32")


def test_no_rows_are_no_values() -> None:
    assert decode_rows(GOLDENS["Q4_0"][:0], "Q4_0").shape == (0, 256)
