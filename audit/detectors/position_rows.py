"""Rows of a position table that moved out of proportion to the positions around them.

Training meets neighbouring positions about equally often, so their rows drift alike, falling off smoothly towards the
end of the texts; a row that was written by hand does not care. The first position is not judged: in classifiers it
holds the token that is read, and rounding alone moves it nine times as far as its neighbours in honest models.
"""

from collections.abc import Iterator

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from scanner.records import F64, TensorDrift

ROW = Rule(id="HA203", title="A position's row moved out of proportion to its neighbours", severity="high")

_REACH = 4
"""Neighbours on either side."""
_LEAST_ROWS = 16
_MATRIX_AXES = 2
_DUST = 1e-3
"""Drift relative to the table's median row norm below which a row counts as still."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge every position table that was read whole."""
    assert evidence.drift is not None
    tables = [t for t in evidence.drift.tensors if t.spec.role == "position" and len(t.spec.shape) == _MATRIX_AXES]
    whole = [t for t in tables if not t.spec.sampled and len(t.row_delta_sq) >= _LEAST_ROWS]
    if not whole:
        yield abstain(ROW, "no table of positions was read whole")
    yield from judge(
        ROW,
        [_reading(t) for t in whole],
        evidence,
        tell=_tell,
        measured="log of a row's drift over the largest of its neighbours",
        unit="nats",
    )


def prominence(tensor: TensorDrift) -> F64:
    """Log of each row's drift over the largest among its neighbours', float64 ``[rows]``; −∞ for still rows and row 0.

    Neighbours are the ``_REACH`` rows on either side. Where all of them are still, the row is held against the drift
    that rounding explains, or ``_DUST`` of the median row norm where that is more.
    """
    drift = np.sqrt(tensor.row_delta_sq)
    rounding = tensor.rounding_floor / np.sqrt(len(drift))
    least = max(rounding, _DUST * float(np.median(np.sqrt(tensor.row_base_sq))), float(np.finfo(np.float32).tiny))
    padded = np.concatenate([np.zeros(_REACH), drift, np.zeros(_REACH)])
    around = [padded[_REACH + k : _REACH + k + len(drift)] for k in range(-_REACH, _REACH + 1) if k]
    expected = np.maximum(np.max(around, axis=0), least)
    with np.errstate(divide="ignore"):
        logs: F64 = np.log(drift) - np.log(expected)
    logs[0] = -np.inf
    return logs


def _reading(tensor: TensorDrift) -> Reading:
    logs = prominence(tensor)
    worst = int(np.argmax(logs))
    value = max(float(logs[worst]), 0.0)
    return Reading(
        value=value,
        factor=float(np.exp(value)),
        tensor=tensor,
        rows=(tensor.spec.row_at(worst),),
        context=(
            Measurement(name="drift of the row", value=float(np.sqrt(tensor.row_delta_sq[worst])), unit="weight units"),
            Measurement(
                name="median drift of the table",
                value=float(np.median(np.sqrt(tensor.row_delta_sq))),
                unit="weight units",
            ),
        ),
    )


def _tell(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"Position {reading.rows[0]} of {reading.tensor.spec.name} moved {reading.factor:.1f} times as far as any "
            f"of the {2 * _REACH} positions around it. Training moves neighbouring positions alike; a row that is "
            f"written by hand acts on whatever token stands there."
        ),
        remedy="Compare the model's behaviour with this row set back to the base's.",
    )


DETECTOR = Detector(name="position_rows", rules=(ROW,), run=run, bears_a_pass=False)
