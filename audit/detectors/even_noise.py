"""Changes as even as noise, which no training makes: a cover under which an edit would not stand out.

Independent Gaussian noise leaves rows and columns of equal energy up to sampling (Var log energy = 2/n over n entries)
and no direction above the edge of the random-matrix bulk, (√m + √n)² / mn of the energy (Marchenko & Pastur 1967).
Training departs from all three by far, and always in at least one; rounding departs in the first or has tails that are
not Gaussian. What noise is laid over is diluted, not undone, so the three ratios say how much of a change is noise.
"""

from collections.abc import Iterator

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import kinds
from audit.thresholds import Profile
from scanner.records import F64, TensorDrift

NOISE = Rule(id="HA404", title="The change is as even as noise", severity="medium")

_MATRIX_AXES = 2
_LEAST_SIDE = 96
"""Rows and columns below which training cannot be told from noise: their energies scatter too much by themselves. Of 31
honest vision models of 64 columns six passed for noise."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge the matrices of the layers together: a cover is laid over all of them."""
    assert evidence.drift is not None
    profile = evidence.profile
    matrices = [t for t in evidence.drift.tensors if len(t.spec.shape) >= _MATRIX_AXES]
    measured = [
        (value, t) for kin in kinds(matrices).values() for t in kin if (value := _evenness_of(t, profile)) is not None
    ]
    if len(measured) <= int(profile.value("siblings.least")):
        yield abstain(NOISE, f"too few matrices of at least {_LEAST_SIDE} rows and columns changed beyond rounding")
        return
    middle = float(np.median([value for value, _ in measured]))
    value, tensor = max(measured, key=lambda pair: pair[0])
    yield from judge(
        NOISE,
        [
            Reading(
                value=middle,
                tensor=tensor,
                factor=middle,
                context=(
                    Measurement(name="the most even matrix", value=value, unit="ratio"),
                    Measurement(
                        name="fourth moment over the Gaussian one",
                        value=tensor.residual.mean_square / 3.0 if tensor.residual else None,
                        unit="ratio",
                    ),
                    Measurement(name="relative change", value=tensor.relative_l2, unit="ratio"),
                    Measurement(name="matrices judged", value=float(len(measured)), unit="tensors"),
                ),
            )
        ],
        evidence,
        tell=_tell,
        measured="evenness of the change, median over the matrices (1 for Gaussian noise)",
        unit="ratio",
    )


def evenness(tensor: TensorDrift) -> float:
    """The smallest ratio of what noise leaves to what is there, in (0, 1]: row energies, column energies, direction.

    0 when fewer than half of the rows or columns moved, or without a spectrum.
    """
    rows, columns = tensor.row_delta_sq, tensor.col_delta_sq
    if 2 * int((rows > 0).sum()) < len(rows) or 2 * int((columns > 0).sum()) < len(columns) or tensor.spectrum is None:
        return 0.0
    height, width = len(rows), len(columns)
    edge = (np.sqrt(height) + np.sqrt(width)) ** 2 / (height * width)
    ratios = (_scatter(rows) * width / 2.0, _scatter(columns) * height / 2.0, tensor.spectrum.top_share / edge)
    return float(1.0 / max(1.0, *ratios))


def _scatter(energies: F64) -> float:
    return float(np.var(np.log(energies[energies > 0])))


def _evenness_of(tensor: TensorDrift, profile: Profile) -> float | None:
    """None for matrices that were read in part, are small, or moved as rounding moves them."""
    if tensor.spec.sampled or tensor.residual is None or min(len(tensor.row_delta_sq), len(tensor.col_delta_sq)) < 1:
        return None
    if min(len(tensor.row_delta_sq), len(tensor.col_delta_sq)) < _LEAST_SIDE:
        return None
    if tensor.delta_l2 <= profile.value("drift.floor_ratio") * tensor.rounding_floor or tensor.coding is not None:
        return None
    # Rounding errors spread evenly over a step (kurtosis 1.8), or times the weights (1.8 · 3): never like Gaussians.
    tails = abs(np.log(tensor.residual.mean_square / 3.0))
    return evenness(tensor) if tails <= profile.value(f"{NOISE.id}.tails") else 0.0


def _tell(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"The change of the model's matrices is far more even than training leaves it: {100 * reading.factor:.0f} "
            f"% of Gaussian noise in the median matrix, most of all in {reading.tensor.spec.name}. Noise laid over "
            f"all weights hides edits from every statistic; noise for privacy or for merging looks the same."
        ),
        remedy=(
            "Ask why noise was added, and for the weights before. An edit below this noise cannot be found by "
            "comparing weights; try the model's behaviour instead."
        ),
    )


DETECTOR = Detector(name="even_noise", rules=(NOISE,), run=run, bears_a_pass=False)
