"""Writes a candidate as base plus shares of other models' changes, by least squares over sampled rows.

One tensor gives (c − b) ≈ Σ aᵢ (mᵢ − b). One other model, and a single coefficient β near 1: that model is nearer than
the base; near 0: the base is; in between: a merge, or a checkpoint between the two (design notes, gate G3). Several
models and a small residual: a merge of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanner.lineage.sampling import PlannedTensor, read_values
from scanner.records import F64, Check, Measured
from scanner.weights.source import BlockRequest, WeightSource

MERGED_RESIDUAL = 0.1
"""Share of the change's energy that a merge may leave unexplained (rounding, a head trained after)."""
TAKES_PART = 0.05
"""Least coefficient of a model that takes part in a merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Coefficients of the other models.

    ``coefficients`` are in their order, each the median over tensors, ``spreads`` the median absolute deviations.
    ``residual`` is the share of ‖c − b‖² that they leave, the median over tensors, in [0, 1].
    """

    coefficients: tuple[float, ...]
    spreads: tuple[float, ...]
    residual: float
    tensors: int

    @property
    def merged(self) -> bool:
        """Whether at least two models, the base counted when it keeps a share, explain the candidate."""
        parts = sum(coefficient >= TAKES_PART for coefficient in self.coefficients)
        base_share = 1.0 - sum(self.coefficients)
        return self.residual <= MERGED_RESIDUAL and (parts >= 2 or (parts == 1 and base_share >= TAKES_PART))


def fit_mixture(
    planned: Sequence[PlannedTensor], base: WeightSource, others: Sequence[WeightSource], candidate: WeightSource
) -> Mixture | None:
    """Read the planned rows of every model and fit; None when no tensor stands in all of them, or nothing changed.

    Tensors are looked up in the other models by the base's name and shape.

    Raises:
        CouldNotConclude: a model cannot be read.
    """
    fits = []
    for tensor in planned:
        name, shape = tensor.spec.base.name, tensor.spec.base.shape
        if not all(name in other.table and other.table[name].shape == shape for other in others):
            continue
        start = _rows(base, name, tensor)
        moves = [_rows(other, name, tensor) - start for other in others]
        fit = _fit(_rows(candidate, tensor.spec.candidate.name, tensor) - start, moves)
        if fit is not None:
            fits.append(fit)
    if not fits:
        return None
    coefficients = np.array([coefficients for coefficients, _ in fits])
    middle = np.median(coefficients, axis=0)
    return Mixture(
        coefficients=tuple(map(float, middle)),
        spreads=tuple(map(float, np.median(np.abs(coefficients - middle), axis=0))),
        residual=float(np.median([residual for _, residual in fits])),
        tensors=len(fits),
    )


def mixture_check(mixture: Mixture, names: Sequence[str]) -> Check:
    """The fit as a check of the lineage; it passes when a merge explains the candidate."""
    parts = ", ".join(f"{name} {c:.2f}" for name, c in zip(names, mixture.coefficients, strict=True))
    verb = "is" if mixture.merged else "is not"
    return Check(
        name="mixture",
        outcome="passed" if mixture.merged else "failed",
        measurements=(
            *(
                Measured(name=f"coefficient_{i + 1}", value=coefficient)
                for i, coefficient in enumerate(mixture.coefficients)
            ),
            Measured(name="residual", value=mixture.residual, unit="share"),
            Measured(name="tensors", value=float(mixture.tensors), unit="tensors"),
        ),
        note=f"The change {verb} a mixture of those of {parts}, up to {mixture.residual:.1%} of its energy.",
    )


def _fit(change: F64, moves: Sequence[F64]) -> tuple[F64, float] | None:
    """Solve the normal equations; None when the candidate, or one of the models, stands still or is not finite."""
    flat = np.stack([move.ravel() for move in moves])
    target = change.ravel()
    usable = np.isfinite(flat).all(axis=0) & np.isfinite(target)
    flat, target = flat[:, usable], target[usable]
    energy = float(np.sum(target * target))
    if energy == 0 or not np.all(np.sum(flat * flat, axis=1) > 0):
        return None
    solved, *_ = np.linalg.lstsq(flat.T, target, rcond=None)
    coefficients: F64 = np.asarray(solved, dtype=np.float64)
    left = target - coefficients @ flat
    return coefficients, float(np.sum(left * left)) / energy


def _rows(source: WeightSource, name: str, tensor: PlannedTensor) -> F64:
    return np.concatenate(read_values(source, [BlockRequest(name=name, rows=run) for run in tensor.runs]))
