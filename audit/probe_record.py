"""Copies what a probe measured into the record of a report: of each pair of classes what came nearest to a trigger."""

from audit.evidence import Evidence
from audit.records import ProbedDirection, ProbedInsertion, ProbeRecord, Token
from scanner.probe.records import Direction, Insertion, ProbeFacts

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
        tried=sum(direction.tried for direction in facts.directions),
        texts=facts.sequences,
        seconds=facts.seconds,
        directions=tuple(_direction(direction, facts, texts) for direction in facts.directions),
        left_out=tuple(_name(facts, number) for number in facts.left_out),
    )


def _direction(direction: Direction, facts: ProbeFacts, texts: tuple[str, ...]) -> ProbedDirection:
    doses = [control.doses[-1] for control in direction.controls]
    return ProbedDirection(
        source=_name(facts, direction.source),
        target=_name(facts, direction.target),
        insertions=tuple(_insertion(one, texts) for one in direction.insertions[:MOST_INSERTIONS]),
        control_words=len(direction.controls),
        control_flipped=sum(dose.flipped for dose in doses),
        control_tried=sum(dose.carriers for dose in doses),
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
