"""Writes a candidate as base plus shares of other models' changes, by least squares over sampled rows.

One tensor gives (c − b) ≈ Σ aᵢ (mᵢ − b). One other model, and a single coefficient β near 1: that model is nearer than
the base; near 0: the base is; in between: a merge, or a checkpoint between the two (design notes, gate G3). Several
models and a small residual: a merge of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.lineage.sampling import PlannedTensor, read_values
from scanner.records import F64, Check, Measured, PairSpec
from scanner.weights.source import BlockRequest, WeightSource

MERGED_RESIDUAL = 0.1
"""Share of the change's energy that a merge may leave unexplained (rounding, a head trained after)."""
COMPLETE_WITHIN = 0.15
"""Distance of β from 1 at which a way counts as gone in full; siblings miss it in whole or in bulk
(benchmarks/lineage.py: descendants stay within 0.02)."""
BULK_PART = 4
"""The strongest quarter of the directions is left out of the bulk."""
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


def fit_mixture(base: Sequence[F64], others: Sequence[Sequence[F64]], candidate: Sequence[F64]) -> Mixture | None:
    """Fit the rows of every model (``read_planned``), tensor by tensor; None when nothing changed.

    Args:
        base: rows of each tensor, ``[rows, cols]``.
        others: the same of every other model.
        candidate: the same of the candidate.
    """
    fits = []
    for place, start in enumerate(base):
        fit = _fit(candidate[place] - start, [other[place] - start for other in others])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How far the candidate went the way from one model to another, β = ⟨c − x, y − x⟩ / ‖y − x‖².

    ``whole`` over all directions of y − x; ``bulk`` without its strongest ones, which training shares between siblings
    (both unlearn the same things first). What descends from y through x → y carries *all* of y − x: both are near 1.
    Medians over tensors.
    """

    whole: float
    bulk: float

    @property
    def complete(self) -> bool:
        """Whether the candidate carries the whole way to the other model."""
        return abs(self.whole - 1.0) <= COMPLETE_WITHIN and abs(self.bulk - 1.0) <= COMPLETE_WITHIN


def share_of_way(start: Sequence[F64], end: Sequence[F64], candidate: Sequence[F64]) -> Share | None:
    """Compare the rows of three models, tensor by tensor; None when start and end do not differ."""
    whole: list[float] = []
    bulk: list[float] = []
    for x, y, c in zip(start, end, candidate, strict=True):
        way, went = y - x, c - x
        if not (np.isfinite(way).all() and np.isfinite(went).all()) or not way.any():
            continue
        _, directions = np.linalg.eigh(way @ way.T)
        rest = directions[:, : max(1, len(way) - len(way) // BULK_PART)].T
        whole += _part(way, went)
        bulk += _part(rest @ way, rest @ went)
    return Share(whole=float(np.median(whole)), bulk=float(np.median(bulk))) if whole and bulk else None


def _part(way: F64, went: F64) -> list[float]:
    """⟨went, way⟩ / ‖way‖², nothing when the way is none."""
    size = float(np.sum(way * way))
    return [float(np.sum(way * went)) / size] if size > 0 else []


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


def read_planned(
    planned: Sequence[PlannedTensor], source: WeightSource, *, pairs: Mapping[str, PairSpec] | None = None
) -> list[F64]:
    """Read the planned rows of one model.

    Args:
        planned: tensors and rows.
        source: the model.
        pairs: its own pairs by the names of the candidate's tensors; None when it is the candidate.

    Raises:
        CouldNotConclude: it cannot be read.
    """
    ours = [tensor.spec.candidate.name for tensor in planned]
    names = ours if pairs is None else [pairs[name].base.name for name in ours]
    return [_rows(source, name, tensor) for name, tensor in zip(names, planned, strict=True)]


def _rows(source: WeightSource, name: str, tensor: PlannedTensor) -> F64:
    return np.concatenate(read_values(source, [BlockRequest(name=name, rows=run) for run in tensor.runs]))
