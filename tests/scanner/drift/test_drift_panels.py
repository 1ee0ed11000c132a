import numpy as np
import pytest
from paired import NUMBERS, block_of, exact, stored

from scanner.drift.panels import DECODED_ELEMENTS, kernel_panels, work_dtype


def pair(dtypes: tuple[str, str], rows: int = 6, columns: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [stored(rng.standard_normal((rows, columns)), dtype) for dtype in dtypes]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_equal_storage_is_seen_in_place(dtype: str) -> None:
    base, candidate = pair((dtype, dtype))
    ((first, left, right),) = kernel_panels(block_of(base, dtype), block_of(candidate, dtype), 2, 5)
    assert first == 2
    assert left.dtype == right.dtype == {"BF16": "u2", "F16": "i2", "F32": "f4", "F64": "f8"}[dtype]
    for panel, source in ((left, base), (right, candidate)):
        assert np.shares_memory(panel, source)
        assert panel.tobytes() == source[2:5].tobytes()
        assert not panel.flags.writeable
        assert source.flags.writeable


@pytest.mark.parametrize("dtypes", [("F32", "BF16"), ("F16", "BF16"), ("F64", "F16"), ("F8_E4M3", "F8_E4M3")])
def test_everything_else_is_decoded_in_portions(dtypes: tuple[str, str]) -> None:
    base, candidate = pair(dtypes, 700, 900)
    blocks = block_of(base, dtypes[0]), block_of(candidate, dtypes[1])
    panels = list(kernel_panels(*blocks, 10, 690))
    assert len(panels) > 1
    assert all(left.size <= DECODED_ELEMENTS for _, left, _ in panels)
    assert {left.dtype for _, left, _ in panels} == {np.dtype(work_dtype(*dtypes))}
    assert [first for first, _, _ in panels] == list(np.cumsum([10, *(len(left) for _, left, _ in panels[:-1])]))
    np.testing.assert_array_equal(np.concatenate([left for _, left, _ in panels]), exact(base, dtypes[0])[10:690])
    np.testing.assert_array_equal(
        np.concatenate([right for _, _, right in panels]), exact(candidate, dtypes[1])[10:690]
    )


def test_misaligned_and_strided_values_are_copied() -> None:
    raw = np.zeros(4 * 5 * 4 + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(4, 5)
    strided = np.asfortranarray(np.ones((4, 5), np.float32))
    ((_, left, right),) = kernel_panels(block_of(misaligned, "F32"), block_of(strided, "F32"), 0, 4)
    assert left.flags.aligned
    assert left.flags.c_contiguous
    assert right.flags.c_contiguous


def test_values_of_another_width_are_refused() -> None:
    base, candidate = pair(("BF16", "F32"), 4, 6)
    with pytest.raises(ValueError, match="comes as"):
        list(kernel_panels(block_of(base, "BF16"), block_of(candidate, "BF16"), 0, 4))


def test_integers_without_exact_floats_are_refused() -> None:
    values = np.zeros((2, 2), np.int64)
    with pytest.raises(ValueError, match="I64"):
        list(kernel_panels(block_of(values, "I64"), block_of(values, "I64"), 0, 2))


@pytest.mark.parametrize("base", list(NUMBERS))
def test_float64_is_computed_in_float64(base: str) -> None:
    assert work_dtype(base, "F64") is np.float64
    assert work_dtype(base, "BF16") is (np.float64 if base == "F64" else np.float32)
