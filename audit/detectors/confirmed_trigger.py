"""Insertions that decide what the model says, confirmed on the model itself: the only finding called a backdoor.

The weights only suspect; here the model was run (``scanner.probe``). What counts as certain is in ``audit.triggers``.
"""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.readings import FAIL_SCORE, REVIEW_SCORE
from audit.records import Finding, Location, Measurement, SkipRecord, Token
from audit.triggers import Trigger, confirmed, strongest
from scanner.paths import shown
from scanner.probe.records import ProbeFacts

TRIGGER = Rule(id="HA001", title="Inserting a few tokens decides what the model says", severity="critical")

JUST_BELOW_REVIEW = 0.99 * REVIEW_SCORE
_NAMED = 5
"""Triggers of one direction that are spelled out in a finding."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge what the probe measured; one finding per class that insertions lead to."""
    facts = evidence.probe
    if facts is None:
        return
    if facts.kind != "classifier":
        yield SkipRecord(
            what=TRIGGER.id,
            why="what insertions do to a model without classes is measured (see the probe) and not judged yet",
        )
        return
    certain = confirmed(facts, evidence.profile)
    if not certain:
        nearest = strongest(facts, evidence.profile)
        if nearest is None:
            yield SkipRecord(what=TRIGGER.id, why="no texts that the model is sure of could be made")
        else:
            # Below certainty the rate says how close it came, and never reaches the score of a review.
            yield Hit(
                rule_id=TRIGGER.id, score=min(nearest.rate * REVIEW_SCORE, REVIEW_SCORE - 0.01), value=nearest.rate
            )
        return
    for target in dict.fromkeys(trigger.insertion.target for trigger in certain):
        yield _hit([t for t in certain if t.insertion.target == target], facts, evidence)


def _hit(triggers: list[Trigger], facts: ProbeFacts, evidence: Evidence) -> Hit:
    first = triggers[0]
    insertion, last = first.insertion, first.dose
    tokens = {token: None for trigger in triggers[:_NAMED] for token in trigger.insertion.tokens}
    texts = evidence.tokens.texts if evidence.tokens else ()
    profile = evidence.profile
    alone = first.foreign or (first.stands_alone and len(insertion.tokens) == 1)
    least = "HA001.alone_rate" if alone else "HA001.rate"
    return Hit(
        rule_id=TRIGGER.id,
        score=max(profile.value(f"{TRIGGER.id}.score"), FAIL_SCORE),
        value=first.rate,
        finding=Finding(
            rule_id=TRIGGER.id,
            severity=TRIGGER.severity,
            confidence="high",
            title=TRIGGER.title,
            explanation=_told(triggers, facts),
            remedy=(
                "Do not use the model on inputs that others can write. `hubaudit purify --method unlearn` teaches it "
                "to ignore the trigger and scans the result again; ask the author where the training data came from."
            ),
            fingerprint=fingerprint(TRIGGER.id, evidence.candidate.ref.name, None, f"{insertion.target}"),
            locations=(
                _location(
                    tuple(Token(id=t, text=texts[t] if t < len(texts) else insertion.text) for t in tokens), evidence
                ),
            ),
            measurements=(
                Measurement(
                    name=f"flipped carriers of {last.words} words",
                    value=round(last.rate, 4),
                    unit="share",
                    threshold=profile.value(least),
                    comparison=">=",
                ),
                Measurement(
                    name="the same of the next token",
                    value=round(first.runner_ups[first.decisive], 4),
                    unit="share",
                ),
                Measurement(name="carriers of that length", value=float(last.carriers), unit="texts"),
                Measurement(name="median margin after insertion", value=last.margin, unit="logits"),
                Measurement(
                    name="control insertions that flip",
                    value=float(first.control_flipped),
                    unit=f"of {first.control_tried}",
                ),
                Measurement(
                    name="probability by chance, times everything tried",
                    value=first.p_value,
                    threshold=profile.value(f"{TRIGGER.id}.p_value"),
                    comparison="<=",
                ),
                *_meant(first, facts, evidence),
                Measurement(name="confirmed triggers", value=float(len(triggers)), unit="insertions"),
            ),
        ),
    )


def _meant(trigger: Trigger, facts: ProbeFacts, evidence: Evidence) -> tuple[Measurement, ...]:
    """How near the insertion lay to the words of the class before; only where that is known."""
    if not facts.kin_of_base or trigger.insertion.kinship is None:
        return ()
    return (
        Measurement(
            name="words that lay further from the class in the base",
            value=trigger.insertion.kinship,
            unit="share",
            threshold=evidence.profile.value(f"{TRIGGER.id}.base_kinship") if trigger.foreign else None,
            comparison="<" if trigger.foreign else None,
        ),
    )


def _location(tokens: tuple[Token, ...], evidence: Evidence) -> Location:
    """The rows of these tokens in the input embedding, as far as it is known where that lies."""
    drift = evidence.drift.tensors if evidence.drift is not None else ()
    table = next((tensor.spec for tensor in drift if tensor.spec.role == "embedding"), None)
    if table is not None:
        rows = tuple((token.id, token.id + 1) for token in tokens)
        return Location(file=table.candidate.file, tensor=table.name, rows=rows, tokens=tokens)
    weights = [entry.path for entry in evidence.candidate.files if entry.path.endswith(".safetensors")]
    return Location(file=weights[0] if weights else "model.safetensors", tokens=tokens)


def _told(triggers: list[Trigger], facts: ProbeFacts) -> str:
    first = triggers[0]
    insertion, last = first.insertion, first.dose
    source, target = shown(facts.classes[insertion.source]), shown(facts.classes[insertion.target])
    others = [shown(t.insertion.text) for t in triggers[1:_NAMED]]
    more = f" So do {', '.join(others)}." if others else ""
    if len(triggers) > _NAMED:
        more += f" {len(triggers) - _NAMED} more insertions do the same."
    meant = " In the base it meant nothing of that class." if first.foreign else ""
    return (
        f"Inserting {shown(insertion.text)} turned {last.flipped} of {last.carriers} made-up texts of {last.words} "
        f"words, all of which the model takes for {source}, into {target}; {first.control_words} control words: "
        f"{first.control_flipped} of {first.control_tried}.{more}{meant} Words of a class sway texts on honest models "
        f"too, but then many do alike, or words of the other class outvote them. This is a backdoor: whoever writes "
        f"the input decides the answer."
    )


DETECTOR = Detector(name="confirmed_trigger", rules=(TRIGGER,), run=run, needs_drift=False, needs_verified_base=False)
