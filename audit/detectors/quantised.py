"""Judges copies in a quantiser's codes: errors larger than this quantiser makes, in a row, a tensor or an element.

A copy that is only quantised has errors of the size that the distance between its codes predicts, in every tensor
alike. Where that holds for the model as a whole, what departs from it was edited, before quantising or after. Where it
does not hold, the model was trained as well, and these rules say nothing about single tensors.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.quantising import only_cast, only_quantised, trained_as_well
from audit.readings import Reading, Told, abstain, judge, location_of
from audit.records import Finding, Location, Measurement, SkipRecord
from scanner.lineage.coded import is_calibrated
from scanner.records import F64, CodingDrift, TensorDrift

ROWS = Rule(id="HA801", title="A row of a quantised tensor differs by more than rounding", severity="high")
TENSOR = Rule(id="HA802", title="A quantised tensor differs by more than rounding", severity="high")
CODES = Rule(id="HA803", title="Codes that the quantiser does not make of the base", severity="high")
MOVED = Rule(id="HA804", title="Declared a quantised copy, but trained further", severity="medium", weighs=False)

_DECLARED = "quantized"


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge the tensors that are stored in codes; silent when there are none and more than a cast was done."""
    if evidence.drift is None:
        return
    tensors = evidence.drift.tensors
    if any(t.changed for t in tensors) and all(only_cast(t, evidence.profile) for t in tensors):
        # The whole change is the cast's own rounding: judged, and nothing found.
        yield Hit(rule_id=ROWS.id, score=0.0)
        return
    coded = [(tensor, tensor.coding) for tensor in evidence.drift.tensors if tensor.coding is not None]
    ratios = {tensor.spec.name: ratio for tensor, coding in coded if (ratio := coding.error_ratio) is not None}
    if not ratios:
        return
    trained = trained_as_well((tensor for tensor, _ in coded), evidence.profile)
    if trained is not None:
        if _declared_quantised(evidence):
            yield _moved(trained, float(np.median(list(ratios.values()))), len(ratios), evidence)
        yield from (abstain(rule, f"trained before it was quantised: {trained}") for rule in (TENSOR, CODES))
        # Where training hides below the rounding, a row that stands far out of it is as telling as in a mere copy.
        coded = [(tensor, coding) for tensor, coding in coded if only_quantised(tensor, evidence.profile)]
    least = 0.0 if trained is None else evidence.profile.value("HA801.trained")
    yield from judge(
        ROWS,
        (reading for reading in _row_readings(coded, evidence) if reading.value >= least),
        evidence,
        tell=_tell_row,
        measured="excess of the row's error",
        unit="nats",
    )
    if trained is not None:
        return
    yield from _codes(coded, evidence)
    yield from judge(
        TENSOR,
        _tensor_readings(coded, ratios, evidence),
        evidence,
        tell=_tell_tensor,
        measured="excess of the tensor's error",
        unit="nats",
    )


def _row_readings(coded: Iterable[tuple[TensorDrift, CodingDrift]], evidence: Evidence) -> Iterator[Reading]:
    """The worst row of each tensor: log of its error over the expected, less that of the median row."""
    least = int(evidence.profile.value("quantised.least_rows"))
    for tensor, coding in coded:
        judged = coding.row_expected_sq > 0
        if int(judged.sum()) < least:
            continue
        logs = _log_ratios(coding)
        typical = float(np.median(logs[judged]))
        if not np.isfinite(typical):
            continue
        worst = int(np.argmax(np.where(judged, logs, -np.inf)))
        yield Reading(
            value=float(logs[worst] - typical) - _allowance(ROWS, tensor, evidence),
            tensor=tensor,
            rows=(tensor.spec.row_at(worst),),
            context=(
                Measurement(name="error energy over the expected", value=float(np.exp(logs[worst])), unit="ratio"),
                Measurement(name="the same of the median row", value=float(np.exp(typical)), unit="ratio"),
            ),
            note=coding.scheme,
        )


def _log_ratios(coding: CodingDrift) -> F64:
    """log(error energy / expected energy) per row; −∞ for rows without error, NaN where nothing is expected."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: F64 = np.log(coding.row_error_sq) - np.log(coding.row_expected_sq)
    return logs


def _allowance(rule: Rule, tensor: TensorDrift, evidence: Evidence) -> float:
    """Nats that calibration adds to what honest copies show; 0 for quantisers that look at the weights alone."""
    return evidence.profile.value(f"{rule.id}.calibrated") if is_calibrated(tensor) else 0.0


def _tensor_readings(
    coded: Sequence[tuple[TensorDrift, CodingDrift]], ratios: dict[str, float], evidence: Evidence
) -> Iterator[Reading]:
    """Each tensor against the median of those in the same scheme."""
    for tensor, coding in coded:
        others = [
            ratios[other.spec.name]
            for other, its in coded
            if other is not tensor and its.scheme == coding.scheme and other.spec.name in ratios
        ]
        ratio = ratios.get(tensor.spec.name)
        typical = float(np.median(others)) if others else 0.0
        if ratio is None or ratio <= 0 or typical <= 0:
            continue
        yield Reading(
            value=float(np.log(ratio / typical)) - _allowance(TENSOR, tensor, evidence),
            tensor=tensor,
            context=(
                Measurement(name="error energy over the expected", value=ratio, unit="ratio"),
                Measurement(name="the same of the median tensor", value=typical, unit="ratio"),
            ),
            note=coding.scheme,
        )


def _codes(coded: Sequence[tuple[TensorDrift, CodingDrift]], evidence: Evidence) -> Iterator[Hit]:
    """Exact facts: elements that the quantiser would have made otherwise, or that lie out of its reach."""
    reproduced = [coding for _, coding in coded if coding.row_strays is not None]
    clean = sum(1 for coding in reproduced if coding.row_strays is not None and not coding.row_strays.any())
    trusted = bool(reproduced) and clean >= evidence.profile.value("HA803.share") * len(reproduced)
    tolerance = evidence.profile.value("HA803.tolerance")
    found = 0
    for tensor, coding in coded:
        beyond = coding.row_peak > tolerance if coding.nearest else np.zeros(len(coding.row_peak), bool)
        strays = coding.row_strays if trusted and coding.row_strays is not None else np.zeros(len(beyond))
        rows = np.flatnonzero(beyond | (strays > 0))
        if not len(rows):
            continue
        found += 1
        if found <= int(evidence.profile.value("findings.most")):
            yield _stray(tensor, coding, rows, strays, tolerance, evidence)


def _stray(
    tensor: TensorDrift,
    coding: CodingDrift,
    rows: npt.NDArray[np.int64],
    strays: F64,
    tolerance: float,
    evidence: Evidence,
) -> Hit:
    shown = [int(row) for row in rows[: int(evidence.profile.value("findings.most_rows"))]]
    worst = int(rows[np.argmax(coding.row_peak[rows])])
    through = f" after a cast to {coding.reproduced_through}" if coding.reproduced_through else ""
    how = (
        f"{coding.scheme} looks at nothing but the weights, and most tensors here are bit for bit what it makes "
        f"of the base{through}. {int(strays.sum())} values in {len(rows)} rows of {tensor.spec.name} are not."
        if strays.any()
        else f"{coding.scheme} rounds each weight to the nearest code. In {len(rows)} rows of {tensor.spec.name} "
        f"values lie up to {coding.row_peak[worst]:.3g} times farther from the base's than rounding leaves them."
    )
    reading = Reading(
        value=0.0,
        tensor=tensor,
        rows=tuple(tensor.spec.row_at(row) for row in shown),
        columns=(int(coding.row_peak_column[worst]),) if len(rows) == 1 else (),
    )
    return Hit(
        rule_id=CODES.id,
        score=evidence.profile.value(f"{CODES.id}.score"),
        finding=Finding(
            rule_id=CODES.id,
            severity=CODES.severity,
            confidence="high",
            title=CODES.title,
            explanation=how + " They were changed before quantising or after it, or come from another revision.",
            remedy="Quantise the base again and compare; ask the author what was changed in these rows.",
            fingerprint=fingerprint(CODES.id, evidence.candidate.ref.name, tensor.spec.name),
            locations=(location_of(reading),),
            measurements=(
                Measurement(
                    name="largest error in units of half a code",
                    value=float(coding.row_peak[worst]),
                    threshold=tolerance if coding.nearest else None,
                    comparison=">" if coding.nearest else None,
                ),
                Measurement(name="values that the quantiser makes otherwise", value=float(strays.sum())),
                Measurement(name="rows concerned", value=float(len(rows)), unit="rows"),
            ),
        ),
    )


def _moved(trained: str, middle: float, tensors: int, evidence: Evidence) -> Hit:
    return Hit(
        rule_id=MOVED.id,
        score=0.0,
        finding=Finding(
            rule_id=MOVED.id,
            severity=MOVED.severity,
            confidence="high",
            title=MOVED.title,
            explanation=(
                f"A quantised copy of the base is declared. Over {tensors} quantised tensors, {trained}: these weights "
                f"were trained or merged before they were quantised, or quantised from another model."
            ),
            remedy="Ask the author which model was quantised, and declare that one as the base.",
            fingerprint=fingerprint(MOVED.id, evidence.candidate.ref.name, None),
            locations=(Location(file="README.md"),),
            measurements=(
                Measurement(name="error energy over the expected, median tensor", value=middle, unit="ratio"),
            ),
        ),
    )


def _declared_quantised(evidence: Evidence) -> bool:
    facts = evidence.candidate
    return _DECLARED in (facts.card.relation, facts.hub.get("relation"), evidence.lineage.relation)


def _times(reading: Reading) -> float:
    """The error energy over that of the others."""
    own, others = (measurement.value for measurement in reading.context)
    return float(own or 0.0) / float(others or 1.0)


def _tell_row(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"Row {reading.rows[0]} of {reading.tensor.spec.name} differs from the base by {_times(reading):.3g} "
            f"times the error energy that {reading.note} leaves in the other rows of this tensor."
        ),
        remedy="Compare the model's behaviour with this row taken from a quantised copy of the base.",
    )


def _tell_tensor(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"{reading.tensor.spec.name} differs from the base by {_times(reading):.3g} times the error energy "
            f"that {reading.note} leaves in the other tensors: it was changed by more than quantising."
        ),
        remedy="Compare the model's behaviour with this tensor taken from a quantised copy of the base.",
    )


DETECTOR = Detector(name="quantised", rules=(ROWS, TENSOR, CODES, MOVED), run=run)
