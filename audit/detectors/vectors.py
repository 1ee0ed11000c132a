"""Norm gains, biases and head rows that moved unlike their siblings.

A vector is small, cheap to edit and shared by every input: a shifted bias or a scaled gain can carry a behaviour.
Vectors are compared with the same vector of other layers by the size of their change, since a bias may start at zero
and has then no relative change. A head has no siblings; its rows are compared with each other.
"""

from collections.abc import Iterator

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import Contrast, contrasts, kinds, less_at_ends, moved
from scanner.records import F64, TensorDrift

NORM = Rule(id="HA501", title="One layer's norm changed far more than its siblings", severity="high")
BIAS = Rule(id="HA502", title="One layer's bias changed far more than its siblings", severity="high")
HEAD = Rule(id="HA503", title="One output of the head changed far more than the others", severity="medium")

_VECTOR_ROLES = {NORM.id: ("norm",), BIAS.id: ("bias",)}


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge norms and biases across layers, and the head across its rows."""
    assert evidence.drift is not None
    profile = evidence.profile
    floor = profile.value("drift.floor_ratio")
    least = int(profile.value("siblings.least"))
    for rule, what in ((NORM, "norm"), (BIAS, "bias")):
        roles = _VECTOR_ROLES[rule.id]
        vectors = [t for t in evidence.drift.tensors if t.spec.role in roles and len(t.spec.shape) == 1]
        found: list[Contrast] = []
        for kin in kinds(vectors).values():
            sizes = contrasts([(t, t.delta_l2) for t in kin if moved(t, floor_ratio=floor)], least=least)
            found += less_at_ends(sizes, kin, allowance=profile.value("siblings.end_allowance"))
        if not found:
            yield abstain(rule, f"no {what} vector changed in more than {least} layers")
        yield from judge(
            rule,
            [_reading(c) for c in found],
            evidence,
            tell=_tell,
            measured="log of the size of the change over that of its siblings",
            unit="nats",
        )
    heads = [t for t in evidence.drift.tensors if t.spec.role == "head" and moved(t, floor_ratio=floor)]
    rows = [r for t in heads if (r := _head_reading(t, least=least)) is not None]
    if not rows:
        yield abstain(HEAD, f"no head with more than {least} outputs was compared")
    yield from judge(
        HEAD,
        rows,
        evidence,
        tell=_tell_head,
        measured="log of the largest change of an output over the median of the others",
        unit="nats",
    )


def _reading(contrast: Contrast) -> Reading:
    return Reading(
        value=contrast.excess,
        factor=contrast.value / contrast.expected,
        tensor=contrast.tensor,
        columns=_outstanding(contrast.tensor.col_delta_sq),
        context=(
            Measurement(name="size of the change", value=contrast.value, unit="weight units"),
            Measurement(name="expected from its siblings", value=contrast.expected, unit="weight units"),
            Measurement(name="relative change", value=contrast.tensor.relative_l2, unit="ratio"),
        ),
    )


def _outstanding(energies: F64) -> tuple[int, ...]:
    """The entries that hold more than half of the energy, when one or two do."""
    order = np.argsort(-energies)
    total = float(energies.sum())
    for count in (1, 2):
        if total > 0 and float(energies[order[:count]].sum()) > total / 2:
            return tuple(int(i) for i in order[:count])
    return ()


def _head_reading(tensor: TensorDrift, *, least: int) -> Reading | None:
    """The output that changed most against the median of the others; None with too few outputs."""
    per_output = tensor.row_delta_sq if len(tensor.spec.shape) > 1 else tensor.col_delta_sq
    sizes = np.sqrt(per_output)
    if len(sizes) <= least:
        return None
    worst = int(np.argmax(sizes))
    typical = float(np.median(np.delete(sizes, worst)))
    if typical <= 0:
        return None
    return Reading(
        value=float(np.log(sizes[worst] / typical)),
        tensor=tensor,
        rows=(worst,) if len(tensor.spec.shape) > 1 else (),
        columns=() if len(tensor.spec.shape) > 1 else (worst,),
        context=(
            Measurement(name="change of the output", value=float(sizes[worst]), unit="weight units"),
            Measurement(name="median change of the others", value=typical, unit="weight units"),
        ),
    )


def _tell(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"{reading.tensor.spec.name} changed {reading.factor:.1f} times as much as the same vector of "
            f"the other layers leads to expect. Training moves these vectors alike; a shifted bias or a scaled "
            f"gain acts on every input."
        ),
        remedy=("Compare the model's behaviour with this vector set back to the base's."),
    )


def _tell_head(reading: Reading) -> Told:
    output = (reading.rows or reading.columns)[0]
    return Told(
        explanation=(
            f"Output {output} of {reading.tensor.spec.name} changed {np.exp(reading.value):.1f} times as much as the "
            f"others. A class that was favoured by hand looks so; so does a class that the data hold more of."
        ),
        remedy=("Compare how often the model answers with this output, with that row set back to the base's."),
    )


DETECTOR = Detector(name="vectors", rules=(NORM, BIAS, HEAD), run=run)
