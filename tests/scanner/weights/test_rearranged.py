"""Parts of stored tensors against plain indexing of the same numbers."""

from pathlib import Path

import numpy as np
import pytest
from paired import write_model

from scanner.weights.derived import DerivedSource
from scanner.weights.opening import open_source
from scanner.weights.rearranged import Part, Place
from scanner.weights.source import BlockRequest

MATRIX = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
STACK = np.arange(3 * 4 * 6, dtype=np.float32).reshape(3, 4, 6)

CASES = {
    "one piece": ("w", Place(rows=6, offset=7), MATRIX[7:13]),
    "turns of ten": ("w", Place(rows=20, offset=2, width=10, period=12), MATRIX[[*range(2, 12), *range(14, 24)]]),
    "every third": ("w", Place(rows=8, offset=1, width=1, period=3), MATRIX[1::3]),
    "turned": ("w", Place(rows=2, offset=3, turned=True), MATRIX.T[3:5]),
    "an expert's rows": ("s", Place(rows=2, offset=1, expert=2), STACK[2, 1:3]),
    "an expert turned": ("s", Place(rows=4, offset=2, turned=True, expert=1), STACK[1].T[2:]),
}


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("case", CASES)
def test_every_run_of_rows_is_what_indexing_gives(tmp_path: Path, case: str, dtype: str) -> None:
    name, place, expected = CASES[case]
    facts = write_model(tmp_path / "m", {"w": (MATRIX, dtype), "s": (STACK, dtype)})
    with open_source(facts, None) as stored:
        part = Part(stored.table[name], "part", expected.shape, place)
        source = DerivedSource(stored, recipes=[part], kept=["w"])
        rows = len(expected)
        runs = [(first, last) for first in range(rows + 1) for last in range(first, rows + 1)]
        plain = DerivedSource(stored, recipes=[Part(stored.table[name], "all", expected.shape, place)], kept=[])
        (whole,) = plain.stream([BlockRequest(name="all", rows=(0, rows))])
        known = whole.values.copy()
        if dtype == "F32":
            assert (known == expected).all()
        for run, block in zip(runs, source.stream(BlockRequest(name="part", rows=run) for run in runs), strict=True):
            assert (block.values == known[run[0] : run[1]]).all()


def test_entries_of_a_vector(tmp_path: Path) -> None:
    facts = write_model(tmp_path / "m", {"b": (np.arange(12, dtype=np.float32), "F32")})
    with open_source(facts, None) as stored:
        part = Part(stored.table["b"], "part", (4,), Place(rows=4, offset=2, width=2, period=6))
        (block,) = DerivedSource(stored, recipes=[part], kept=[]).stream([BlockRequest(name="part", rows=(0, 1))])
        assert block.values.tolist() == [[2, 3, 8, 9]]
