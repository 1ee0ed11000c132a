"""Rows that moved further than the curvature of the given data leads to expect, tensor by tensor.

What is asked of each row is how far it stands out from the tail that the other rows of its tensor form
(``audit.tail``), never how improbable it would be under the χ² law itself: on honest models that law is exceeded in its
tail, tenfold and more. Rows that the data do not reach have no ratio and are not judged: of rows of tokens, some were
trained and others never, and which is told better without data (rule HA201). The rows of matrices that write into the
residual stream are its channels, and a few channels of honest models stand out in many layers; there a row counts only
by what it exceeds the same channel of every other such matrix.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
import numpy.typing as npt

from audit.discoveries import LEAST_P, benjamini_hochberg, e_benjamini_hochberg, e_value
from audit.tail import MOST, TAIL_LEAST, tail_evidence, tail_line
from scanner.curvature.records import TensorCurvature
from scanner.records import F64, TokenTable

WRITERS = frozenset({"attention_output", "mlp_out"})
"""Roles whose rows are channels of the residual stream."""
UNJUDGED = frozenset({"position", "pooler", "head"})
"""Of tables of positions the first rows alone are trained; poolers and heads have no siblings, and on honest models
some of their rows move far from all others."""
LEAST_ROWS = 3 * TAIL_LEAST
"""Reached rows below which their tail is not known."""
ROWS_KEPT = 20

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvedRow:
    """One row: ``ratio`` is the mean of r/k over its dimensions, 1 where the law holds; ``p_value`` is the tail's."""

    row: int
    ratio: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTest:
    """The rows of one tensor. ``p_value`` in (0, 1] is that of the most telling count of outliers among them.

    ``rows`` are those furthest out, at most ``ROWS_KEPT``, most telling first.
    """

    tensor: TensorCurvature
    p_value: float
    rows: tuple[CurvedRow, ...]

    @property
    def e_value(self) -> float:
        """The e-value that the p-value is worth."""
        return e_value(self.p_value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discoveries:
    """The tests of all tensors, most telling first, and which of them are discoveries at a false-discovery rate.

    ``by_bh`` and ``by_e_bh`` have an entry for each test; e-BH holds whatever the dependence between tensors.
    """

    tests: tuple[RowTest, ...]
    by_bh: tuple[bool, ...]
    by_e_bh: tuple[bool, ...]


def discoveries(tensors: Iterable[TensorCurvature], tokens: TokenTable | None, *, rate: float) -> Discoveries:
    """Test every tensor with enough rows, but those of ``UNJUDGED`` roles."""
    judged = [tensor for tensor in tensors if tensor.spec.role not in UNJUDGED]
    usual = _usual(judged)
    tests = [test for tensor in judged if (test := row_test(tensor, tokens, usual.get(tensor.spec.name)))]
    tests.sort(key=lambda test: test.p_value)
    return Discoveries(
        tests=tuple(tests),
        by_bh=benjamini_hochberg([test.p_value for test in tests], rate) if tests else (),
        by_e_bh=e_benjamini_hochberg([test.e_value for test in tests], rate) if tests else (),
    )


def telling_rows(found: Discoveries, number: int, *, rate: float) -> tuple[CurvedRow, ...]:
    """The rows of a discovered tensor that are discoveries within it, at rate · discovered/tested; one at least.

    The smaller rate keeps the rows honest after the tensors were selected (Benjamini and Bogomolov 2014).
    """
    test = found.tests[number]
    within = rate * max(1, sum(found.by_e_bh)) / len(found.tests)
    count = len(test.tensor.row_ratio)
    believed = benjamini_hochberg([*(row.p_value for row in test.rows), *[1.0] * (count - len(test.rows))], within)
    return tuple(row for row, is_found in zip(test.rows, believed, strict=False) if is_found) or test.rows[:1]


def row_test(tensor: TensorCurvature, tokens: TokenTable | None, usual: F64 | None = None) -> RowTest | None:
    """Test one tensor; None where too few of its rows are reached.

    ``usual`` is what the log ratio of each row reaches elsewhere, float64 ``[rows]``, at least 0; it is taken off.
    """
    places = np.flatnonzero(_ordinary(tensor, tokens) & np.isfinite(tensor.row_ratio) & (tensor.row_ratio > 0))
    if len(places) < LEAST_ROWS:
        return None
    logs = np.log(tensor.row_ratio[places]) - (0.0 if usual is None else usual[places])
    p_value = MOST * 10.0 ** -tail_evidence(logs).evidence  # the most telling of MOST counts was taken
    return RowTest(tensor=tensor, p_value=min(1.0, max(p_value, LEAST_P)), rows=_outermost(tensor, places, logs))


def _ordinary(tensor: TensorCurvature, tokens: TokenTable | None) -> npt.NDArray[np.bool_]:
    """All rows, but those of control tokens, which every text trains."""
    rows = tensor.spec.row_indices()
    ordinary = np.ones(len(rows), dtype=bool)
    if tokens is not None and tensor.spec.role in {"embedding", "unembedding"}:
        known = rows < len(tokens.special)
        ordinary[known] = ~np.asarray(tokens.special, dtype=bool)[rows[known]]
    return ordinary


def _outermost(tensor: TensorCurvature, places: Places, logs: F64) -> tuple[CurvedRow, ...]:
    """The rows furthest out, with the share of that many rows which the tail expects beyond each."""
    start, slope, beyond = tail_line(logs)
    found = []
    for place in np.argsort(-logs, kind="stable")[:ROWS_KEPT].tolist():
        value, row = float(logs[place]), int(places[place])
        expected = beyond * exp(-(value - start) / slope) if slope > 0 and value > start else beyond
        found.append(
            CurvedRow(
                row=tensor.spec.row_at(row),
                ratio=float(tensor.row_ratio[row]),
                p_value=min(1.0, max(expected / len(logs), LEAST_P)),
            )
        )
    return tuple(found)


def _usual(tensors: Sequence[TensorCurvature]) -> dict[str, F64]:
    """For each matrix that writes into the residual stream, the largest log ratio of each channel in the others."""
    writers = [tensor for tensor in tensors if tensor.spec.role in WRITERS and np.isfinite(tensor.row_ratio).any()]
    found = {}
    for tensor in writers:
        others = [t for t in writers if t is not tensor and len(t.row_ratio) == len(tensor.row_ratio)]
        logs = [np.log(np.fmax(t.row_ratio, 1.0)) for t in others]
        if logs:
            found[tensor.spec.name] = np.max(logs, axis=0)
    return found
