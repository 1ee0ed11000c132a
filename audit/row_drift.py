"""Row drift of a token table, adjusted for how often ordinary text would have trained each token.

A token's row moves as often as training meets it, so frequent tokens drift far and rare ones little. What is left of
log drift after a robust curve in the expected log frequency, in robust standard deviations, is the row's *z*: E-PUR's
idea (Zhang et al. 2022, arXiv 2210.09545, section 3.4) with the tokenizer's own order in place of corpus counts.

Rows that training never met must not be judged with the others. They are bit-identical; or shrunk by one common
factor, when weight decay reached them; or moved by rounding alone, when the weights went through a coarser format. The
last two form the *still mode*: a narrow peak at the low end of the drift, small, and in proportion to the row's norm or
equal for all rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanner.records import F64, TensorDrift, TokenTable

Mask = npt.NDArray[np.bool_]

_PURE = 1e-2
"""Share of a row's change off the row itself below which it only shrank: 1e-7 measured in float32, 1 when trained."""
_DECAY_AGREEMENT = 1e-2
"""Relative spread of the shrinking factors; rounding alone gives 1e-4 in float32."""
_ROUNDING = 1e-5
"""What rounding in float32 leaves of many steps of decay, relative to the row: 2e-6 measured after 150 steps."""
_DECAY_LEAST_ROWS = 20
_STILL_SHARE = 0.3
"""Rows that must lie in the still mode's window: 0.6-1.0 measured with rounding or decay, below 0.05 without."""
_STILL_BELOW, _STILL_ABOVE = 1.3, 1.5
"""The window around the 2 % quantile, as factors: rounding spreads rows of 384 dimensions by 5 %, 8-bit steps 10 %."""
_STILL_SPREADS = 3.0
"""The mode ends this many of its own lower half-widths above its median, and at least ``_STILL_ABOVE`` above it."""
_LOW_QUANTILE = 0.02
_STILL_RELATIVE = 0.02
"""Largest drift of the mode relative to the rows; steps of 8 bits give 0.008, training all rows alike may give more."""
_HUBER = 1.345
"""Huber's constant for 95 % efficiency at the Gaussian (Huber 1981)."""
_ROUNDS = 12
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDrift:
    """The judged rows of one token table.

    ``drift`` is ‖δᵢ‖ after taking out weight decay, float64 ``[rows]`` in weight units; ``touched`` marks rows that
    training moved. ``z`` is NaN for rows that are not judged (untouched, special) and for all when fewer than the
    asked number were touched. ``prominence`` is a row's drift over the median of the still mode (infinite when that
    is exactly still); it is meant for tables in which few rows are touched. ``spread`` is one robust standard deviation
    of log drift, in nats (0 when nothing is judged). ``decay`` is the common factor minus one
    (0 without decay, negative otherwise). ``adjusted`` is false when no frequencies were known, so that z compares raw
    log drift.
    """

    drift: F64
    touched: Mask
    z: F64
    prominence: F64
    decay: float
    adjusted: bool
    spread: float = 0.0

    @property
    def judged(self) -> int:
        """Number of rows with a z."""
        return int(np.isfinite(self.z).sum())


def adjusted_row_drift(tensor: TensorDrift, tokens: TokenTable | None, *, least: int) -> RowDrift:
    """Adjust the row drift of a token table for frequency.

    Args:
        tensor: an embedding or unembedding; row i of its sums is token ``spec.row_at(i)``.
        tokens: the vocabulary; it may be shorter or longer than the table.
        least: fewest touched rows to fit a curve to.
    """
    energy, factor, shrunk = _without_decay(tensor)
    drift = np.sqrt(np.where(shrunk, 0.0, energy))
    still, prominence = _still_mode(drift, np.sqrt(tensor.row_base_sq))
    touched = (drift > 0) & ~still
    special, frequency = _vocabulary(tensor, tokens)
    judged = touched & ~special
    z, spread = np.full(len(energy), np.nan), 0.0
    if int(judged.sum()) >= least:
        z[judged], spread = _robust_z(np.log(drift[judged]), None if frequency is None else frequency[judged])
    return RowDrift(
        drift=drift,
        touched=touched,
        z=z,
        prominence=prominence,
        decay=factor,
        adjusted=frequency is not None,
        spread=spread,
    )


def _still_mode(drift: F64, base: F64) -> tuple[Mask, F64]:
    """Return the rows of the still mode and every row's drift over its median.

    The mode is looked for in the drift itself and in the drift relative to the row; the narrower one counts.
    """
    moved = drift > 0
    still, prominence = ~moved, np.where(moved, np.inf, 0.0)
    if 2 * int(moved.sum()) < len(drift):
        return still, prominence
    relative = np.divide(drift, base, out=np.zeros_like(drift), where=base > 0)
    best = _STILL_SHARE
    for size in (drift, relative):
        some = size > 0
        if not some.any():
            continue
        low = float(np.quantile(size[some], _LOW_QUANTILE))
        inside = some & (size >= low / _STILL_BELOW) & (size <= low * _STILL_ABOVE)
        share = float(inside.sum()) / int(some.sum())
        if share < best:
            continue
        if float(np.median(relative[inside])) > _STILL_RELATIVE:
            continue
        best = share
        middle = float(np.median(size[inside]))
        end = middle * max(_STILL_ABOVE, (middle / low) ** _STILL_SPREADS)
        still, prominence = size <= end, size / middle
    return still, prominence


def _without_decay(tensor: TensorDrift) -> tuple[F64, float, Mask]:
    """Return Σⱼ(δᵢⱼ − c bᵢⱼ)², the factor c and the rows that only shrank by it."""
    energy, base, dot = tensor.row_delta_sq, tensor.row_base_sq, tensor.row_dot
    some = (energy > 0) & (base > 0)
    ratio = np.divide(dot, base, out=np.zeros_like(dot), where=some)
    off_row = energy - ratio * dot
    pure = some & (off_row <= np.maximum(_PURE * energy, _ROUNDING**2 * base))
    none = np.zeros(len(energy), dtype=bool)
    if int(pure.sum()) < _DECAY_LEAST_ROWS:
        return energy, 0.0, none
    factor = float(np.median(ratio[pure]))
    shrunk = pure & (np.abs(ratio - factor) <= max(_DECAY_AGREEMENT * abs(factor), _ROUNDING))
    if factor >= 0 or int(shrunk.sum()) < _DECAY_LEAST_ROWS:
        return energy, 0.0, none
    left = energy - 2.0 * factor * dot + factor**2 * base
    return np.where(some, np.maximum(left, 0.0), energy), factor, shrunk


def _vocabulary(tensor: TensorDrift, tokens: TokenTable | None) -> tuple[Mask, F64 | None]:
    """Special marks and expected log frequency of the compared rows; rows beyond the vocabulary count as rarest."""
    ids = tensor.spec.row_indices()
    special = np.zeros(len(ids), dtype=bool)
    if tokens is None:
        return special, None
    known = ids < len(tokens.special)
    special[known] = np.asarray(tokens.special, dtype=bool)[ids[known]]
    if tokens.expected_log_frequency is None:
        return special, None
    expected = np.asarray(tokens.expected_log_frequency, dtype=np.float64)
    known = ids < len(expected)
    frequency = np.full(len(ids), np.nan)
    frequency[known] = expected[ids[known]]
    finite = np.isfinite(frequency)
    if not finite.any():
        return special, None
    return special, np.where(finite, frequency, float(frequency[finite].min()))


def _robust_z(logs: F64, frequency: F64 | None) -> tuple[F64, float]:
    """Residuals of a Huber-weighted quadratic in the log frequency, over 1.4826 × their median absolute deviation.

    That divisor is the second result, in nats.
    """
    if frequency is None or float(np.ptp(frequency)) <= 0:
        design = np.ones((len(logs), 1))
    else:
        x = (frequency - frequency.mean()) / frequency.std()
        design = np.stack([np.ones_like(x), x, x * x], axis=1)
    weights = np.ones(len(logs))
    residual, spread = logs, 0.0
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)[:, None]
        curve = np.linalg.lstsq(design * root, logs * root[:, 0], rcond=None)[0]
        residual = logs - design @ curve
        residual = residual - np.median(residual)
        spread = _MAD_TO_SD * float(np.median(np.abs(residual)))
        if spread <= 0:
            return np.zeros(len(logs)), 0.0
        weights = 1.0 / np.maximum(1.0, np.abs(residual) / (_HUBER * spread))
    return np.asarray(residual / spread, dtype=np.float64), spread
