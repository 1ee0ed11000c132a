"""Weight matrices that changed far more than their siblings, or along a single direction.

Model editing writes one low-rank update into one or a few matrices (ROME, Meng et al. 2022, arXiv 2202.05262; MEMIT,
2023), while fine-tuning moves every layer's matrix of a kind by similar amounts. All comparisons are with the same
tensor of other layers: poolers and last layers of honest models are near rank one themselves.
"""

from collections.abc import Iterator, Sequence

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
    less_at_ends,
    low_rank,
    moved,
)
from scanner.records import TensorDrift

DEPTH = Rule(id="HA301", title="One layer's matrix changed far more than its siblings", severity="high")
SPECTRUM = Rule(
    id="HA302", title="One layer's matrix changed along a single direction, unlike its siblings", severity="high"
)


_MATRIX_AXES = 2


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge the matrices of every kind against each other."""
    assert evidence.drift is not None
    profile = evidence.profile
    floor = profile.value("drift.floor_ratio")
    least = int(profile.value("siblings.least"))
    depth: list[Contrast] = []
    spectrum: list[Contrast] = []
    matrices = [t for t in evidence.drift.tensors if len(t.spec.shape) >= _MATRIX_AXES]
    for kin in kinds(matrices).values():
        members = [t for t in kin if moved(t, floor_ratio=floor)]
        sizes = contrasts([(t, t.relative_l2) for t in members], least=least)
        depth += less_at_ends(sizes, kin, allowance=profile.value("siblings.end_allowance"))
        members = [t for t in members if enough_rows(t.sample or t, profile)]
        if not low_rank(as_sampled(members), share=profile.value("siblings.low_rank_share")):
            concentrated = [(t, at_most_sampled(t, _inverse_remainder)) for t in members]
            spectrum += away_from_ends(contrasts(concentrated, least=least), kin)
    if not depth:
        yield abstain(DEPTH, f"no kind of matrix changed in more than {least} layers")
    if not spectrum:
        yield abstain(SPECTRUM, f"no kind of matrix has a full-rank change in more than {least} layers")
    yield from judge(
        DEPTH,
        [_depth_reading(c) for c in depth],
        evidence,
        tell=_tell_depth,
        measured="log of relative change over that of its siblings",
        unit="nats",
    )
    yield from judge(
        SPECTRUM,
        [_spectrum_reading(c) for c in spectrum],
        evidence,
        tell=_tell_spectrum,
        measured="log of energy outside the first direction, siblings over this tensor",
        unit="nats",
    )


def _inverse_remainder(tensor: TensorDrift) -> float | None:
    """1 / (1 − share of the first direction): 2 when half of the energy lies in it, 1000 for an edit."""
    if tensor.spectrum is None or min(tensor.spec.candidate.rows_cols) < _MATRIX_AXES:
        return None
    # Rounding to float32 leaves about 1e-7 of the energy outside even an exact rank-one update.
    return 1.0 / max(1.0 - tensor.spectrum.top_share, 1e-7)


def _depth_reading(contrast: Contrast) -> Reading:
    tensor = contrast.tensor
    return Reading(
        value=contrast.excess,
        factor=contrast.value / contrast.expected,
        tensor=tensor,
        rows=tuple(tensor.spec.row_at(i) for i in _top(tensor.spectrum.left_top if tensor.spectrum else ())),
        context=(
            Measurement(name="relative change", value=contrast.value, unit="ratio"),
            Measurement(name="expected from its siblings", value=contrast.expected, unit="ratio"),
            *_share(tensor),
        ),
    )


def _spectrum_reading(contrast: Contrast) -> Reading:
    return Reading(
        value=contrast.excess,
        tensor=contrast.tensor,
        context=(
            *_share(contrast.tensor),
            Measurement(
                name="share expected from its siblings", value=1.0 - 1.0 / max(contrast.expected, 1.0), unit="ratio"
            ),
        ),
    )


def _share(tensor: TensorDrift) -> tuple[Measurement, ...]:
    if tensor.spectrum is None:
        return ()
    return (Measurement(name="share of the first direction", value=tensor.spectrum.top_share, unit="ratio"),)


def _top(entries: Sequence[tuple[int, float]]) -> tuple[int, ...]:
    """Indices that hold at least half of the largest entry, when they are few enough to be named."""
    if not entries:
        return ()
    largest = abs(entries[0][1])
    chosen = tuple(i for i, value in entries if abs(value) >= largest / 2)
    return chosen if len(chosen) < len(entries) else ()


def _tell_depth(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"{reading.tensor.spec.name} changed {reading.factor:.1f} times as much, relative to its size, "
            f"as the same matrix of the other layers leads to expect. Fine-tuning moves the layers of a model by "
            f"similar amounts; editing one fact or behaviour into a model rewrites one matrix."
        ),
        remedy=(
            "Ask whether this layer was trained on its own (layer-wise rates, partial freezing); otherwise "
            "compare the model's behaviour with this matrix set back to the base's."
        ),
    )


def _tell_spectrum(reading: Reading) -> Told:
    share = reading.tensor.spectrum.top_share if reading.tensor.spectrum else 0.0
    return Told(
        explanation=(
            f"{100 * share:.1f} % of the change of {reading.tensor.spec.name} lies along one direction, far more "
            f"than for the same matrix of the other layers. A rank-one edit looks so."
        ),
        remedy=("Compare the model's behaviour with the first singular component of this change taken away."),
    )


DETECTOR = Detector(name="isolated_change", rules=(DEPTH, SPECTRUM), run=run)
