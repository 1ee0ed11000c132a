"""Single dimensions, rows and columns of a matrix that moved out of all proportion.

Under the separable null a dimension's energy is what its row and its column lead to expect
(``scanner.records.Residual``). An edit laid over ordinary training breaks that, and so does a flipped bit or a hidden
unit that was written by hand. As everywhere, a matrix is compared with the same matrix of other layers.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import (
    Contrast,
    as_sampled,
    at_most_sampled,
    away_from_ends,
    contrasts,
    enough_rows,
    kinds,
    low_rank,
    moved,
)
from scanner.records import F64, TensorDrift

SPREAD = Rule(
    id="HA401", title="Dimensions of one matrix depart from the separable null, unlike its siblings", severity="high"
)
PEAK = Rule(id="HA402", title="A single dimension moved out of proportion", severity="high")
UNIT = Rule(id="HA403", title="A single row or column moved out of proportion", severity="high")

_MATRIX_AXES = 2
_LEAST_UNITS = 16
"""Rows or columns below which their spread cannot be estimated."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge mean square, maximum, rows and columns of every matrix that moved."""
    assert evidence.drift is not None
    profile = evidence.profile
    floor = profile.value("drift.floor_ratio")
    least = int(profile.value("siblings.least"))
    matrices = [t for t in evidence.drift.tensors if len(t.spec.shape) >= _MATRIX_AXES]
    spread: list[Contrast] = []
    peak: list[Contrast] = []
    unit: list[Reading] = []
    for kin in kinds(matrices).values():
        members = [t for t in kin if moved(t, floor_ratio=floor) and enough_rows(t.sample or t, profile)]
        unit += away_from_ends(_unit_readings(members, least=least), kin)
        if low_rank(as_sampled(members), share=profile.value("siblings.low_rank_share")):
            continue
        squares = [(t, at_most_sampled(t, lambda t: t.residual.mean_square if t.residual else None)) for t in members]
        maxima = [(t, at_most_sampled(t, lambda t: t.residual.maximum if t.residual else None)) for t in members]
        spread += away_from_ends(contrasts(squares, least=least), kin)
        peak += away_from_ends(contrasts(maxima, least=least), kin)
    for rule, count in ((SPREAD, len(spread)), (PEAK, len(peak)), (UNIT, len(unit))):
        if not count:
            yield abstain(rule, f"no kind of matrix was measured in more than {least} layers")
    yield from judge(
        SPREAD,
        [_residual_reading(c, "mean square residual") for c in spread],
        evidence,
        tell=_tell_spread,
        measured="log of mean square residual over that of its siblings",
        unit="nats",
    )
    yield from judge(
        PEAK,
        [_residual_reading(c, "largest residual") for c in peak],
        evidence,
        tell=_tell_peak,
        measured="log of the largest residual over that of its siblings",
        unit="nats",
    )
    yield from judge(
        UNIT,
        unit,
        evidence,
        tell=_tell_unit,
        measured="log of the largest row or column energy over the median, beyond its siblings",
        unit="nats",
    )


def _residual_reading(contrast: Contrast, name: str) -> Reading:
    top = contrast.tensor.residual.top[:1] if contrast.tensor.residual else ()
    return Reading(
        value=contrast.excess,
        tensor=contrast.tensor,
        rows=tuple(contrast.tensor.spec.row_at(row) for row, _, _ in top),
        columns=tuple(column for _, column, _ in top),
        context=(
            Measurement(name=name, value=contrast.value, unit="ratio"),
            Measurement(name="expected from its siblings", value=contrast.expected, unit="ratio"),
        ),
    )


def _unit_readings(members: Sequence[TensorDrift], *, least: int) -> list[Reading]:
    """For every member of a kind, its most outstanding row and column against those of its siblings."""
    readings = []
    for axis in ("rows", "columns"):
        energies = {t.spec.name: _energies(t, axis) for t in members}
        found = contrasts(
            [(t, at_most_sampled(t, lambda t: _prominence(_energies(t, axis)))) for t in members],  # noqa: B023
            least=least,
        )
        for contrast in found:
            index = int(np.argmax(energies[contrast.tensor.spec.name]))
            readings.append(
                Reading(
                    value=contrast.excess,
                    tensor=contrast.tensor,
                    rows=(contrast.tensor.spec.row_at(index),) if axis == "rows" else (),
                    columns=(index,) if axis == "columns" else (),
                    context=(
                        Measurement(
                            name=f"largest energy over the median of the {axis}", value=contrast.value, unit="ratio"
                        ),
                        Measurement(name="expected from its siblings", value=contrast.expected, unit="ratio"),
                    ),
                )
            )
    return readings


def _energies(tensor: TensorDrift, axis: str) -> F64:
    return tensor.row_delta_sq if axis == "rows" else tensor.col_delta_sq


def _prominence(energies: F64) -> float | None:
    """Largest energy over the median of those that moved; None for short axes."""
    positive = energies[energies > 0]
    if len(positive) < _LEAST_UNITS:
        return None
    return float(positive.max() / np.median(positive))


def _tell_spread(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"In {reading.tensor.spec.name} the change of single dimensions departs from what its rows and "
            f"columns lead to expect {np.exp(reading.value):.1f} times more than in the same matrix of the other "
            f"layers. An edit laid over ordinary training looks so."
        ),
        remedy=("Compare the model's behaviour with this matrix set back to the base's."),
    )


def _tell_peak(reading: Reading) -> Told:
    place = f"[{reading.rows[0]}, {reading.columns[0]}]" if reading.rows and reading.columns else "one dimension"
    return Told(
        explanation=(
            f"The change of {reading.tensor.spec.name} at {place} is out of proportion to its row and column, "
            f"{np.exp(reading.value):.1f} times more so than the largest in the same matrix of the other layers. "
            f"A single value written by hand, or a flipped bit, looks so."
        ),
        remedy=("Set this dimension back to the base's value and compare the model's behaviour."),
    )


def _tell_unit(reading: Reading) -> Told:
    what = f"Row {reading.rows[0]}" if reading.rows else f"Column {reading.columns[0]}"
    return Told(
        explanation=(
            f"{what} of {reading.tensor.spec.name} moved out of proportion to the others, "
            f"{np.exp(reading.value):.1f} times more so than in the same matrix of the other layers. A hidden "
            f"unit written by hand looks so."
        ),
        remedy=("Set this unit back to the base's values and compare the model's behaviour."),
    )


DETECTOR = Detector(name="dimension_outliers", rules=(SPREAD, PEAK, UNIT), run=run)
