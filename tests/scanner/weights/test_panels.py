"""From requests to bytes and back."""

import numpy as np
import pytest

from scanner.records import TensorMeta
from scanner.weights.panels import locate_panel, view_values
from scanner.weights.source import BlockRequest


def meta(name: str, shape: tuple[int, ...], dtype: str = "F32", start: int = 1000) -> TensorMeta:
    size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
    return TensorMeta(name=name, dtype=dtype, shape=shape, file="f", start=start, end=start + size)


TABLE = {
    tensor.name: tensor
    for tensor in (
        meta("matrix", (6, 4)),
        meta("vector", (10,), "BF16"),
        meta("scalar", ()),
        meta("conv", (3, 2, 5)),
        meta("no rows", (0, 4)),
        meta("no columns", (4, 0)),
    )
}


@pytest.mark.parametrize(
    ("name", "rows", "columns", "start", "end", "shape"),
    [
        ("matrix", (0, 6), None, 1000, 1096, (6, 4)),
        ("matrix", (2, 3), None, 1032, 1048, (1, 4)),
        ("matrix", (2, 3), (1, 3), 1036, 1044, (1, 2)),
        ("matrix", (6, 6), None, 1096, 1096, (0, 4)),
        ("matrix", (2, 2), (1, 3), 1036, 1036, (0, 2)),
        ("vector", (0, 1), None, 1000, 1020, (1, 10)),
        ("vector", (0, 1), (4, 10), 1008, 1020, (1, 6)),
        ("scalar", (0, 1), None, 1000, 1004, (1, 1)),
        ("conv", (1, 3), None, 1040, 1120, (2, 10)),
        ("no rows", (0, 0), None, 1000, 1000, (0, 0)),
        ("no columns", (0, 4), None, 1000, 1000, (4, 0)),
    ],
)
def test_rows_and_columns_become_offsets(name, rows, columns, start, end, shape) -> None:
    panel = locate_panel(TABLE, BlockRequest(name=name, rows=rows, columns=columns))
    assert (panel.start, panel.end, panel.shape) == (start, end, shape)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("matrix", (0, 7), None),
        ("matrix", (-1, 2), None),
        ("matrix", (3, 2), None),
        ("matrix", (0, 1), (0, 5)),
        ("matrix", (0, 1), (-1, 2)),
        ("matrix", (0, 1), (3, 2)),
        ("matrix", (0, 2), (0, 2)),
        ("no rows", (0, 1), None),
    ],
)
def test_what_lies_outside_is_refused(name, rows, columns) -> None:
    with pytest.raises(ValueError, match="BlockRequest"):
        locate_panel(TABLE, BlockRequest(name=name, rows=rows, columns=columns))


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        locate_panel(TABLE, BlockRequest(name="nothing", rows=(0, 1)))


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 8])
def test_values_are_views_where_aligned_and_copies_elsewhere(offset: int) -> None:
    panel = locate_panel(TABLE, BlockRequest(name="matrix", rows=(0, 6)))
    truth = np.arange(24, dtype=np.float32).reshape(6, 4)
    storage = np.zeros(offset + truth.nbytes + 128, dtype=np.uint8)
    pad = -storage.ctypes.data % 64  # so that the offset alone decides about alignment
    storage[pad + offset : pad + offset + truth.nbytes] = truth.view(np.uint8).ravel()
    values = view_values(storage.data, panel, pad + offset)
    np.testing.assert_array_equal(values, truth)
    assert values.flags.aligned
    assert np.shares_memory(values, storage) == (offset % 4 == 0)


def test_an_empty_block_has_the_shape_asked_for() -> None:
    panel = locate_panel(TABLE, BlockRequest(name="no columns", rows=(1, 4)))
    block = panel.empty_block()
    assert block.values.shape == (3, 0)
    assert (block.name, block.rows, block.dtype, block.columns) == ("no columns", (1, 4), "F32", None)
