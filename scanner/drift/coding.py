"""Hold a delta against the error that the candidate's quantiser makes by itself.

Where the quantiser looks at nothing but the weights, the base is passed through it once more and must come out bit
for bit. Everywhere else each element's error is measured in units of its reach, half the distance to the neighbouring
code: rounding to the nearest code leaves at most 1, and on average a mean square of 1/3.
"""

from typing import Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from scanner.records import F32, F64, CodingDrift, PairSpec
from scanner.weights.dtypes import decode
from scanner.weights.source import Block, Coding

MAX_PEAK: Final = 1e6
"""Largest error in units of reach that is told apart."""
MIN_GAIN_ROWS: Final = 16
"""Rows of the first block below which no column factors are fitted."""
_ROUNDS: Final = 3
_EVEN: Final = 1.0 / 3.0
"""Mean square of an error spread evenly within ±1."""
_THROUGH: Final[dict[str, npt.DTypeLike]] = {"": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""Dtypes through which converters pass the weights before they quantise them."""


class CodingMoments:
    """Row sums of the errors of one pair, and what the quantiser makes of the base."""

    def __init__(self, spec: PairSpec) -> None:
        """Prepare for a pair whose candidate is decoded from codes."""
        rows = spec.compared_rows
        self._spec = spec
        self._known = True
        self._expected: F64 = np.zeros(rows)
        self._error: F64 = np.zeros(rows)
        self._peak: F64 = np.zeros(rows)
        self._peak_column = np.zeros(rows, np.int64)
        self._again = True
        self._nearest = True
        self._strays: dict[str, F64] = {name: np.zeros(rows) for name in _THROUGH if name != spec.base.dtype}
        self._floor = 0.0
        self._column_gains: F32 | None = None

    def fold(self, base: Block, candidate: Block) -> None:
        """Add the same rows of both sides. Blocks whose rounding is not known make the whole tensor unknown."""
        coding = candidate.coding
        if coding is None or not self._known:
            self._known = False
            return
        start = self._spec.place_of(candidate.rows[0])
        rows = slice(start, start + candidate.values.shape[0])
        here = decode(candidate.values, candidate.dtype).astype(np.float32, copy=False)
        there = decode(base.values, base.dtype).astype(np.float32, copy=False)
        if not here.size:
            return
        with np.errstate(all="ignore"):
            self._fold_errors(rows, here, there, coding)
            if coding.again is not None:
                self._fold_again(rows, here, there, coding)
            else:
                self._again = False

    def finish(self) -> tuple[CodingDrift | None, float]:
        """What was found (None when the rounding is not known), and the ‖δ‖ that quantising alone would cause."""
        if not self._known:
            return None, 0.0
        through, strays = min(self._strays.items(), key=lambda item: float(item[1].sum()))
        count = len(self._error) * self._spec.candidate.rows_cols[1]
        gains = self._column_gains
        drift = CodingDrift(
            scheme=self._spec.candidate.scheme or "",
            row_expected_sq=self._expected,
            row_error_sq=self._error,
            row_peak=self._peak,
            row_peak_column=self._peak_column,
            reproduced=count - int(strays.sum()) if self._again else None,
            reproduced_through=through if self._again else "",
            row_strays=strays if self._again else None,
            column_gains=(float(gains.min()), float(gains.max())) if gains is not None else None,
            nearest=self._nearest,
        )
        return drift, float(np.sqrt(self._floor)) if self._again else drift.expected_l2

    def _fold_errors(self, rows: slice, here: F32, there: F32, coding: Coding) -> None:
        reach = coding.reach()
        self._nearest &= coding.nearest
        if coding.rescaled:
            there = self._rescaled(here, there)
        error = here - there
        kept = np.isfinite(error) & np.isfinite(reach)
        error = np.where(kept, error, 0)
        reach = np.where(kept, reach, 0)
        self._expected[rows] = np.square(reach, dtype=np.float64).sum(axis=1) * _EVEN
        self._error[rows] = np.square(error, dtype=np.float64).sum(axis=1)
        # Blocks of zeros have no reach of their own; the row's mean stands in.
        stand_in = reach.mean(axis=1, keepdims=True)
        units = np.abs(error) / np.where(reach > 0, reach, stand_in)
        units = np.where(error == 0, 0, np.minimum(np.nan_to_num(units, nan=MAX_PEAK), MAX_PEAK))
        column = units.argmax(axis=1)
        self._peak[rows] = np.take_along_axis(units, column[:, None], axis=1)[:, 0]
        self._peak_column[rows] = column

    def _fold_again(self, rows: slice, here: F32, there: F32, coding: Coding) -> None:
        """Count the elements that the quantiser would have made otherwise, for each way the base may have come."""
        assert coding.again is not None  # narrowing
        exact = []
        for number, name in enumerate(self._strays):
            passed = there.astype(_THROUGH[name]).astype(np.float32, copy=False)
            made = coding.again(passed)
            different = (made != here) & ~(np.isnan(made) & np.isnan(here))
            self._strays[name][rows] = different.sum(axis=1)
            if not different.any():
                exact.append(name)
            if number == 0:
                error = made - there
                self._floor += float(np.square(error[np.isfinite(error)], dtype=np.float64).sum())
        # Once one way explains everything so far, the others are not tried any further.
        if exact:
            names = [name for name in exact if not self._strays[name].any()]
            self._strays = {name: self._strays[name] for name in names or self._strays}

    def _rescaled(self, here: F32, there: F32) -> F32:
        """The base with the factors of rows and columns that bring it nearest to the candidate.

        Columns are fitted on the first block by alternating least squares, rows on their own block.
        """
        if self._column_gains is None and here.shape[0] >= MIN_GAIN_ROWS:
            gains = np.ones(here.shape[1], np.float32)
            row_gains = np.ones((here.shape[0], 1), np.float32)
            for _ in range(_ROUNDS):
                gains = _factor(here, there * row_gains, axis=0)
                row_gains = _factor(here, there * gains, axis=1)
            self._column_gains = gains[0]
        if self._column_gains is None:
            return there
        fitted = there * self._column_gains
        scaled: F32 = fitted * _factor(here, fitted, axis=1)
        return scaled


def _factor(here: F32, there: F32, *, axis: int) -> F32:
    """Least-squares factor from ``there`` to ``here`` along an axis; 1 where there is nothing to fit."""
    square = np.square(there, dtype=np.float64).sum(axis=axis, keepdims=True)
    dot = np.multiply(here, there, dtype=np.float64).sum(axis=axis, keepdims=True)
    factor = np.where(square > 0, dot / np.where(square > 0, square, 1), 1)
    found: F32 = np.where(np.isfinite(factor), factor, 1).astype(np.float32)
    return found
