"""Rows that moved further than clean examples, given by the user, lead to expect.

The statistic of a tensor is −log10 of the probability that the tail of its other rows leaves so many so far out
(``audit.curved_rows``), after multiplying by the number of tensors tested.
"""

from collections.abc import Iterator
from math import log10

from audit.curvature_record import RATE, is_token_table
from audit.curved_rows import Discoveries, discoveries, telling_rows
from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge, tokens_at
from audit.records import Measurement, SkipRecord

ROWS = Rule(
    id="HA405",
    title="Rows of a matrix moved further than the given data explain",
    severity="medium",
    weighs=False,
)


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge what was measured with the given data; nothing where none were given."""
    facts = evidence.curvature
    if facts is None:
        return
    rate = evidence.profile.value(RATE)
    found = discoveries(facts.tensors, evidence.tokens, rate=rate)
    if not found.tests:
        yield abstain(ROWS, "no matrix has enough rows that moved and that the given data reach")
        return
    readings = [
        reading
        for number in range(len(found.tests))
        if (reading := _reading(found, number, evidence, rate)) is not None
    ]
    yield from judge(
        ROWS,
        readings,
        evidence,
        tell=_tell,
        measured="evidence that rows stand out, −log10 of a probability",
        unit="",
    )


def _reading(found: Discoveries, number: int, evidence: Evidence, rate: float) -> Reading | None:
    """One tensor's reading; None where the drift does not know the tensor."""
    test = found.tests[number]
    assert evidence.drift is not None
    tensor = next((t for t in evidence.drift.tensors if t.spec.name == test.tensor.spec.name), None)
    if tensor is None:
        return None
    rows = telling_rows(found, number, rate=rate)
    numbers = tuple(row.row for row in rows)
    texts = evidence.tokens.texts if evidence.tokens is not None else ()
    exponent = test.tensor.exponent
    return Reading(
        value=max(0.0, -log10(test.p_value) - log10(len(found.tests))),
        tensor=tensor,
        rows=numbers,
        tokens=tokens_at(texts, numbers) if is_token_table(test.tensor) and texts else (),
        context=(
            Measurement(name="squared change of the foremost row over the expected", value=rows[0].ratio, unit="ratio"),
            Measurement(name="exponent of the curvature", value=exponent),
            Measurement(name="e-value", value=test.e_value),
            Measurement(name="tensors tested", value=float(len(found.tests)), unit="tensors"),
        ),
        factor=rows[0].ratio,
    )


def _tell(reading: Reading) -> Told:
    rows = len(reading.rows)
    what = f"Row {reading.rows[0]}" if rows == 1 else f"{rows} rows, first of all row {reading.rows[0]},"
    return Told(
        explanation=(
            f"{what} of {reading.tensor.spec.name} stand{'s' if rows == 1 else ''} out from all others: the squared "
            f"change is {reading.factor:.3g} times what its curvature on the given data leads to expect. Clean "
            f"examples of the task leave no reason for that; training on other examples does, and so does an edit."
        ),
        remedy=(
            "Look at the rows and tokens that are named; scan again with more examples, or with examples of everything "
            "the model was trained for, before drawing a conclusion."
        ),
    )


DETECTOR = Detector(name="given_data", rules=(ROWS,), run=run, bears_a_pass=False)
