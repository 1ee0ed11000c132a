"""Matrices that stand out twice: further moved than both their siblings and their layer, and along one direction.

Honest training moves the first and the last layer apart from a trend over depth, but it moves the whole layer, or it
concentrates a change without enlarging it. So each matrix is held against its siblings in other layers *and* against
the other kinds of its own layer, by size and by concentration, and only the weakest of these contrasts counts. That
leaves so little in honest models that the ends, which single contrasts must pass over, can be judged as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import as_sampled, at_most_sampled, contrasts, enough_rows, kinds, low_rank, moved
from audit.thresholds import Profile
from scanner.records import TensorDrift

JOINT = Rule(
    id="HA305", title="One matrix changed more than its siblings and its layer, along few directions", severity="high"
)

_MATRIX_AXES = 2
_ONE_POSITION = ("query", "key", "attention_output")
"""Roles of the last layer that a classifier which reads one position trains through that position alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """One matrix: by how many nats its size and its concentration exceed what its siblings lead to expect."""

    tensor: TensorDrift
    kind: str
    size: float
    concentration: float
    factor: float
    """Size over the expected one."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge every matrix that has siblings in other layers and another kind in its own."""
    assert evidence.drift is not None
    matrices = [t for t in evidence.drift.tensors if len(t.spec.shape) >= _MATRIX_AXES]
    found = list(_excesses(matrices, evidence.profile))
    readings = list(_readings(found, evidence.profile))
    if not readings:
        yield abstain(JOINT, "no two kinds of matrices changed in the same layer and in enough others")
    yield from judge(
        JOINT,
        readings,
        evidence,
        tell=_tell,
        measured="log of size and of concentration over siblings and layer, the smaller one",
        unit="nats",
    )


def _excesses(matrices: Sequence[TensorDrift], profile: Profile) -> Iterator[Excess]:
    least = int(profile.value("siblings.least"))
    for kind, kin in kinds(matrices).items():
        members = [
            t
            for t in kin
            if moved(t, floor_ratio=profile.value("drift.floor_ratio")) and enough_rows(t.sample or t, profile)
        ]
        thin = low_rank(as_sampled(members), share=profile.value("siblings.low_rank_share"))
        statistic = participation if thin else inverse_remainder
        sizes = contrasts([(t, t.relative_l2) for t in members], least=least)
        shapes = {
            c.tensor.spec.name: c.excess
            for c in contrasts([(t, at_most_sampled(t, statistic)) for t in members], least=least)
        }
        for size in sizes:
            if size.tensor.spec.name in shapes:
                yield Excess(
                    tensor=size.tensor,
                    kind=kind,
                    size=size.excess,
                    concentration=shapes[size.tensor.spec.name],
                    factor=size.value / size.expected,
                )


def inverse_remainder(tensor: TensorDrift) -> float | None:
    """1 / (1 − share of the first direction), at most 10⁷, where float32 rounds; None without a spectrum."""
    if tensor.spectrum is None or min(tensor.spec.candidate.rows_cols) < _MATRIX_AXES:
        return None
    return 1.0 / max(1.0 - tensor.spectrum.top_share, 1e-7)


def participation(tensor: TensorDrift) -> float | None:
    """Σσ⁴ / (Σσ²)², the inverse of the number of directions that share the change; None without a spectrum.

    For changes of low rank, where next to nothing lies outside the leading directions of any of them.
    """
    if tensor.spectrum is None or not tensor.spectrum.values:
        return None
    energies = np.square(np.asarray(tensor.spectrum.values) / tensor.spectrum.values[0])
    return float(np.square(energies).sum() / energies.sum() ** 2)


def _readings(found: Sequence[Excess], profile: Profile) -> Iterator[Reading]:
    layers: dict[int | None, list[Excess]] = {}
    for excess in found:
        layers.setdefault(excess.tensor.spec.layer, []).append(excess)
    last = max((layer for layer in layers if layer is not None), default=None)
    for excess in found:
        others = [e for e in layers[excess.tensor.spec.layer] if e.kind != excess.kind]
        if not others:
            continue
        allowance = 0.0
        if excess.tensor.spec.layer == last and excess.tensor.spec.role in _ONE_POSITION:
            allowance = profile.value("siblings.end_allowance")
        size = excess.size - max(float(np.median([e.size for e in others])), 0.0) - allowance
        shape = excess.concentration - max(float(np.median([e.concentration for e in others])), 0.0)
        yield Reading(
            value=min(size, shape),
            factor=excess.factor,
            tensor=excess.tensor,
            context=tuple(_context(excess.tensor, {"size": size, "concentration": shape})),
        )


def _context(tensor: TensorDrift, contrast: Mapping[str, float]) -> Iterator[Measurement]:
    yield Measurement(name="relative change", value=tensor.relative_l2, unit="ratio")
    if tensor.spectrum is not None:
        yield Measurement(name="share of the first direction", value=tensor.spectrum.top_share, unit="ratio")
    for name, value in contrast.items():
        yield Measurement(name=f"log of {name} over siblings and layer", value=value, unit="nats")


def _tell(reading: Reading) -> Told:
    share = reading.tensor.spectrum.top_share if reading.tensor.spectrum else 0.0
    return Told(
        explanation=(
            f"{reading.tensor.spec.name} changed {reading.factor:.1f} times as much as the same matrix of the other "
            f"layers leads to expect, and {100 * share:.1f} % of its change lies along one direction; the other "
            f"matrices of its layer show neither. An edit of low rank laid over a fine-tune looks so, and training "
            f"hardly ever does both to one matrix."
        ),
        remedy=(
            "Compare the model's behaviour with the first singular component of this change taken away, or with "
            "the matrix set back to the base's."
        ),
    )


DETECTOR = Detector(name="joint_change", rules=(JOINT,), run=run)
