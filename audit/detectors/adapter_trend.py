"""Adapters held against their own trend over depth: a layer into which more was put than into the others.

The factors of a low-rank adapter say everything that it does, so its modules are judged by the singular values of their
products ``B A`` alone, by their sum (the nuclear norm): what is put on top of a training adds directions of its own and
raises the sum more than the norm, while a training that enlarges a product concentrates it. Backdoored adapters were
told from clean ones by such values (the first one, norm, share of the first direction, entropy, kurtosis: arXiv
2602.15195) with a bank of clean adapters of the same base and recipe. What travels between bases, ranks and recipes is
the contrast within one adapter: all kinds of modules of a layer together against the same kinds in the other layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audit.detectors.joint_change import participation
from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import contrasts, kinds
from audit.thresholds import Profile
from scanner.records import TensorDrift

LAYER = Rule(id="HA307", title="One layer of the adapter holds more than its trend over depth", severity="high")

_MATRIX_AXES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """What one layer of an adapter holds beyond the others, in nats, averaged over its kinds of modules.

    ``size`` is the excess of log Σσ, ``concentration`` that of log Σσ⁴ / (Σσ²)² (the inverse of the number of
    directions that share the change). ``tensor`` is the module that exceeds most, by ``factor``; ``modules`` counts
    those of the layer.
    """

    layer: int
    size: float
    concentration: float
    tensor: TensorDrift
    factor: float
    modules: int


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge the layers of a separate adapter."""
    assert evidence.drift is not None
    if evidence.candidate.adapter_config is None:
        yield abstain(LAYER, "the model is no separate adapter")
        return
    found = lifts(evidence.drift.tensors, evidence.profile)
    if not found:
        least = int(evidence.profile.value("siblings.least"))
        yield abstain(LAYER, f"no kind of module is adapted in more than {least} layers")
    yield from judge(
        LAYER,
        [_reading(lift) for lift in found],
        evidence,
        tell=_tell,
        measured="log of the nuclear norms of a layer's products over those of other layers, mean over its modules",
        unit="nats",
    )


def lifts(tensors: Sequence[TensorDrift], profile: Profile) -> list[Lift]:
    """The layers of an adapter, from the exact spectra of its products; empty when too few layers can be compared."""
    products = [t for t in tensors if len(t.spec.shape) >= _MATRIX_AXES and t.spectrum is not None and t.spectrum.exact]
    least = int(profile.value("siblings.least"))
    by_layer: dict[int, list[tuple[TensorDrift, float, float]]] = {}
    for kin in kinds(products).values():
        sizes = contrasts([(t, nuclear_norm(t)) for t in kin], least=least)
        shapes = {c.tensor.spec.name: c.excess for c in contrasts([(t, participation(t)) for t in kin], least=least)}
        for c in sizes:
            shape = shapes.get(c.tensor.spec.name)
            if c.tensor.spec.layer is not None and shape is not None:
                by_layer.setdefault(c.tensor.spec.layer, []).append((c.tensor, c.excess, shape))
    return [_lift(layer, members) for layer, members in sorted(by_layer.items())]


def nuclear_norm(tensor: TensorDrift) -> float | None:
    """Σσ of B A in weight units; None without a spectrum."""
    return None if tensor.spectrum is None else float(sum(tensor.spectrum.values))


def _lift(layer: int, members: Sequence[tuple[TensorDrift, float, float]]) -> Lift:
    tensor, size, _ = max(members, key=lambda member: member[1])
    return Lift(
        layer=layer,
        size=float(np.mean([size for _, size, _ in members])),
        concentration=float(np.mean([shape for _, _, shape in members])),
        tensor=tensor,
        factor=float(np.exp(size)),
        modules=len(members),
    )


def _reading(lift: Lift) -> Reading:
    return Reading(
        value=lift.size,
        factor=float(np.exp(lift.size)),
        tensor=lift.tensor,
        context=(
            Measurement(name="layer", value=float(lift.layer)),
            Measurement(name="modules of the layer", value=float(lift.modules), unit="tensors"),
            Measurement(name="log of the concentration over the other layers", value=lift.concentration, unit="nats"),
            Measurement(name="factor of the module that exceeds most", value=lift.factor, unit="ratio"),
            Measurement(name="relative change", value=lift.tensor.relative_l2, unit="ratio"),
        ),
    )


def _tell(reading: Reading) -> Told:
    layer = reading.tensor.spec.layer
    return Told(
        explanation=(
            f"What the adapter adds in layer {layer} is {reading.factor:.1f} times as large as its other layers lead "
            f"to expect, most of all in {reading.tensor.spec.name}. Training spreads an adapter along a trend over "
            f"depth; what was put into one layer afterwards stands above it."
        ),
        remedy=(
            f"Ask whether this layer was trained on its own; otherwise compare the model's behaviour with the "
            f"adapter's factors of layer {layer} set to zero."
        ),
    )


DETECTOR = Detector(name="adapter_trend", rules=(LAYER,), run=run)
