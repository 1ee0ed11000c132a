"""Tensors that changed where training did not: exact facts about which tensors moved at all.

Fine-tuning picks layers, or kinds of matrices, or both; whatever it picks, it moves together. Editing writes into
single tensors. So a few changed tensors in an otherwise untouched model stand out without any statistics, and so does
a matrix that changed in other layers than the rest of what was trained.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.quantising import only_quantised
from audit.readings import Reading, location_of
from audit.records import Finding, Measurement
from audit.siblings import kinds, moved
from scanner.records import TensorDrift

ALONE = Rule(id="HA303", title="A few tensors changed, all others stayed as they were", severity="high")
ELSEWHERE = Rule(id="HA304", title="A matrix changed in other layers than the rest of the training", severity="high")

_MATRIX_AXES = 2
_NAMED = 5
_LEAST_LAYERS = 3
"""With fewer layers, a matrix of each is no pattern that training would leave and an edit would not."""

Layers = frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """A kind of matrix whose changed layers differ from the trained ones; ``tensors`` are those out of place."""

    kind: str
    tensors: tuple[TensorDrift, ...]
    changed: Layers
    trained: Layers
    still: float
    """Largest relative change of what stayed: of the members, and of the other matrices of the layers out of place."""


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge which tensors moved."""
    assert evidence.drift is not None
    compared = evidence.drift.tensors
    floor = evidence.profile.value("drift.floor_ratio")
    changed = [t for t in compared if moved(t, floor_ratio=floor) and not only_quantised(t, evidence.profile)]
    names = {t.spec.name for t in changed}
    # Vectors may all have been trained, or have moved in a way that only matrices can tell from rounding.
    for sort in (compared, [t for t in compared if len(t.spec.shape) >= _MATRIX_AXES]):
        alone = _alone([t for t in sort if t.spec.name in names], sort, evidence)
        if alone:
            yield _alone_hit(alone, sort, evidence)
            return
    for oddity in _oddities(changed, compared, ratio=evidence.profile.value(f"{ELSEWHERE.id}.ratio")):
        yield _elsewhere_hit(oddity, evidence)


def _alone(
    changed: Sequence[TensorDrift], compared: Sequence[TensorDrift], evidence: Evidence
) -> tuple[TensorDrift, ...]:
    """The changed tensors, worst first, when they are few, all within layers, and their layers otherwise as before.

    Training a whole layer, a head or a pooler moves all the tensors of that part, and low-rank training of two kinds of
    matrices both of them in every layer, which in a shallow model are few; editing picks single ones.
    """
    profile = evidence.profile
    most = min(profile.value(f"{ALONE.id}.tensors"), profile.value(f"{ALONE.id}.share") * len(compared))
    if not 0 < len(changed) <= most or any(t.spec.layer is None for t in changed):
        return ()
    inside = Counter(t.spec.layer for t in compared)
    trained = Counter(t.spec.layer for t in changed)
    if any(2 * trained[layer] >= inside[layer] for layer in trained) or _in_every_layer(changed, compared):
        return ()
    return tuple(sorted(changed, key=lambda t: t.relative_l2, reverse=True))


def _in_every_layer(changed: Sequence[TensorDrift], compared: Sequence[TensorDrift]) -> bool:
    """True when whatever kind changed at all changed in every layer, of which there are enough to tell."""
    names = {t.spec.name for t in changed}
    touched = [members for members in kinds(compared).values() if any(t.spec.name in names for t in members)]
    return all(len(m) >= _LEAST_LAYERS and all(t.spec.name in names for t in m) for m in touched)


def _oddities(changed: Sequence[TensorDrift], compared: Sequence[TensorDrift], *, ratio: float) -> Iterator[Oddity]:
    """Kinds of matrices that changed elsewhere than in the layers that explain most of what changed.

    A member counts as out of place only when it moved ``ratio`` times as far as any member that stayed, and as any
    other matrix that stayed in its layer: evenly trained matrices at the edge of rounding pass for still ones. Where
    members are missing, training must have moved the rest of their layers as far, or the member must stand out from
    the rest of its own: a merge of one layer's training with a slight one of all layers does neither.
    """
    names = {t.spec.name for t in changed}
    groups = kinds(t for t in compared if len(t.spec.shape) >= _MATRIX_AXES)
    where = {kind: _layers(t for t in members if t.spec.name in names) for kind, members in groups.items()}
    trained = _trained(where)
    for kind, members in groups.items():
        expected = trained & _layers(members)
        if not where[kind] or where[kind] == expected:
            continue
        extra = where[kind] - expected
        odd = tuple(t for t in members if t.spec.name in names and (not extra or t.spec.layer in extra))
        others = [t for name, group in groups.items() if name != kind for t in group]
        beside = [t for t in others if t.spec.layer in extra]
        still = max((t.relative_l2 for t in (*members, *beside) if t.spec.name not in names), default=0.0)
        least = min(t.relative_l2 for t in odd)
        if least < ratio * still:
            continue
        moved_there = _sizes(others, names, expected - where[kind])
        moved_beside = _sizes(others, names, _layers(odd))
        if extra or min(moved_there) >= ratio * still or least >= ratio * max(moved_beside):
            yield Oddity(kind=kind, tensors=odd, changed=where[kind], trained=trained, still=still)


def _sizes(tensors: Iterable[TensorDrift], names: set[str], layers: Layers) -> list[float]:
    """The relative changes of those of these tensors that changed and lie in these layers."""
    return [t.relative_l2 for t in tensors if t.spec.name in names and t.spec.layer in layers]


def _trained(where: Mapping[str, Layers]) -> Layers:
    """The set of layers that explains most changed tensors; the larger one of two that explain as many."""
    explained = Counter(layers for layers in where.values() if layers)
    return max(explained, key=lambda layers: (explained[layers] * len(layers), len(layers)), default=frozenset())


def _layers(tensors: Iterator[TensorDrift] | Sequence[TensorDrift]) -> Layers:
    return frozenset(t.spec.layer for t in tensors if t.spec.layer is not None)


def _alone_hit(alone: tuple[TensorDrift, ...], compared: Sequence[TensorDrift], evidence: Evidence) -> Hit:
    profile = evidence.profile
    kind = "tensors" if any(len(t.spec.shape) < _MATRIX_AXES for t in compared) else "matrices"
    elsewhere = sum(t.changed for t in compared) - sum(t.changed for t in alone)
    rest = "as before but for rounding or weight decay" if elsewhere else "bit-identical"
    return _hit(
        ALONE,
        alone,
        evidence,
        explanation=(
            f"Of {len(compared)} {kind} compared, {len(alone)} differ from the base ({_names(alone)}); the rest is "
            f"{rest}{_as_read(compared)}, even in the same layers. {_shape_of(alone[0])}Fine-tuning moves many tensors "
            f"at once; editing writes into a few."
        ),
        measurements=(
            Measurement(
                name="tensors that differ",
                value=float(len(alone)),
                unit="tensors",
                threshold=profile.value(f"{ALONE.id}.tensors"),
                comparison="<=",
            ),
            Measurement(name=f"{kind} compared", value=float(len(compared)), unit=kind),
            Measurement(name="dimensions that differ", value=float(sum(t.changed for t in alone)), unit="dimensions"),
        ),
    )


def _elsewhere_hit(oddity: Oddity, evidence: Evidence) -> Hit:
    return _hit(
        ELSEWHERE,
        oddity.tensors,
        evidence,
        explanation=(
            f"What was trained in this model changed in layers {_list(oddity.trained)}, but {oddity.kind} changed in "
            f"layers {_list(oddity.changed)} alone ({_names(oddity.tensors)}). {_shape_of(oddity.tensors[0])}Training "
            f"moves the same matrices in every layer it reaches; an edit laid over it need not."
        ),
        measurements=(
            Measurement(
                name="smallest relative change of these",
                value=min(t.relative_l2 for t in oddity.tensors),
                unit="ratio",
                threshold=evidence.profile.value(f"{ELSEWHERE.id}.ratio") * oddity.still,
                comparison=">=",
            ),
            Measurement(name="layers changed", value=float(len(oddity.changed)), unit="layers"),
            Measurement(name="layers trained", value=float(len(oddity.trained)), unit="layers"),
        ),
    )


def _hit(
    rule: Rule,
    tensors: tuple[TensorDrift, ...],
    evidence: Evidence,
    *,
    explanation: str,
    measurements: tuple[Measurement, ...],
) -> Hit:
    listed = tensors[: int(evidence.profile.value("findings.most"))]
    return Hit(
        rule_id=rule.id,
        score=evidence.profile.value(f"{rule.id}.score"),
        finding=Finding(
            rule_id=rule.id,
            severity=rule.severity,
            confidence="exact",
            title=rule.title,
            explanation=explanation,
            remedy="Ask what was written into these tensors; setting them back to the base's undoes it.",
            fingerprint=fingerprint(
                rule.id, evidence.candidate.ref.name, None, "\x1f".join(sorted(t.spec.name for t in tensors))
            ),
            locations=tuple(location_of(Reading(value=0.0, tensor=t)) for t in listed),
            measurements=(*measurements, *_share(tensors[0])),
        ),
    )


def _names(tensors: Sequence[TensorDrift]) -> str:
    more = f" and {len(tensors) - _NAMED} more" if len(tensors) > _NAMED else ""
    return ", ".join(t.spec.name for t in tensors[:_NAMED]) + more


def _list(layers: Layers) -> str:
    """Layers as runs: ``0-3, 7``."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _as_read(compared: Sequence[TensorDrift]) -> str:
    """The restriction that a budgeted scan puts on every statement about what stayed as it was."""
    return " in the rows that were read" if any(t.spec.sampled for t in compared) else ""


def _share(tensor: TensorDrift) -> tuple[Measurement, ...]:
    if tensor.spectrum is None:
        return ()
    return (Measurement(name="share of the first direction", value=tensor.spectrum.top_share, unit="ratio"),)


def _shape_of(tensor: TensorDrift) -> str:
    if tensor.spectrum is None:
        return ""
    return f"{100 * tensor.spectrum.top_share:.1f} % of the change of {tensor.spec.name} lies along one direction. "


DETECTOR = Detector(name="partial_change", rules=(ALONE, ELSEWHERE), run=run)
