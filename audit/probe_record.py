"""Copies what a probe measured into the record of a report: what came nearest to a trigger, or moved texts most."""

from audit.evidence import Evidence
from audit.records import (
    ProbedControls,
    ProbedDirection,
    ProbedInsertion,
    ProbedShift,
    ProbeRecord,
    ProbeUntried,
    Token,
)
from scanner.probe.records import Direction, Insertion, ProbeFacts, Shift

MOST_INSERTIONS = 3
"""Insertions of a direction that a report lists."""


def probe_record(evidence: Evidence) -> ProbeRecord | None:
    """Return the record, None when the model was not run."""
    facts = evidence.probe
    if facts is None:
        return None
    texts = evidence.tokens.texts if evidence.tokens is not None else ()
    return ProbeRecord(
        kind=facts.kind,
        scanned=facts.scanned,
        tried=sum(direction.tried for direction in facts.directions) + facts.shifts_tried,
        texts=facts.sequences,
        seconds=facts.seconds,
        directions=tuple(_direction(direction, facts, texts) for direction in facts.directions),
        left_out=tuple(_name(facts, number) for number in facts.left_out),
        shifts=tuple(_shift(shift, texts) for shift in facts.shifts[:MOST_INSERTIONS]),
        controls=_controls(facts.control_shifts),
        tokens=facts.tokens,
        budget=facts.budget,
        untried=tuple(
            ProbeUntried(what=u.what, target=None if u.target is None else _name(facts, u.target), count=u.count)
            for u in facts.untried
        ),
    )


def _direction(direction: Direction, facts: ProbeFacts, texts: tuple[str, ...]) -> ProbedDirection:
    # Control words beside what the first insertion did: on texts of the same length, where they were tried on those.
    words = direction.insertions[0].doses[-1].words if direction.insertions else 0
    doses = [control.at(words) or control.doses[-1] for control in direction.controls if control.doses]
    return ProbedDirection(
        source=_name(facts, direction.source),
        target=_name(facts, direction.target),
        insertions=tuple(_insertion(one, texts) for one in direction.insertions[:MOST_INSERTIONS]),
        control_words=len(direction.controls),
        control_flipped=sum(dose.flipped for dose in doses),
        control_tried=sum(dose.carriers for dose in doses),
    )


def _shift(shift: Shift, texts: tuple[str, ...]) -> ProbedShift:
    token = shift.continuation
    return ProbedShift(
        tokens=tuple(Token(id=t, text=texts[t] if t < len(texts) else "") for t in shift.tokens),
        text=shift.text,
        texts=shift.texts,
        moved=shift.moved,
        together=shift.together,
        before=shift.before,
        continuation=None if token is None else Token(id=token, text=shift.continuation_text),
        led=shift.led,
    )


def _controls(shifts: tuple[Shift, ...]) -> ProbedControls | None:
    if not shifts:
        return None
    return ProbedControls(
        words=len(shifts),
        moved=max(shift.moved for shift in shifts),
        together=max(shift.together for shift in shifts),
        led=max(shift.led for shift in shifts),
    )


def _insertion(insertion: Insertion, texts: tuple[str, ...]) -> ProbedInsertion:
    last = insertion.doses[-1]
    return ProbedInsertion(
        tokens=tuple(Token(id=t, text=texts[t] if t < len(texts) else "") for t in insertion.tokens),
        text=insertion.text,
        words=last.words,
        flipped=last.flipped,
        carriers=last.carriers,
        margin=last.margin,
        kinship=insertion.kinship,
    )


def _name(facts: ProbeFacts, number: int) -> str:
    return facts.classes[number] if number < len(facts.classes) else str(number)
