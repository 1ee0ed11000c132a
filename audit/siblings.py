"""Compares a tensor with the same tensor of other layers, the only null that honest fine-tuning respects.

A *kind* is a tensor name with every index left open: the query matrix of whatever layer. Members of a kind are
exchangeable after a smooth trend over depth; a pooler has no siblings, and nothing can be said about it. The first
and last layers of honest models do stand out, and a part of the layers may have been frozen, so that the expectation
of a member is the larger of two guesses: the upper quartile of the others, and their trend over depth.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from audit.thresholds import Profile
from scanner.records import F64, TensorDrift

_INDEX = re.compile(r"(^|\.)\d+(?=\.|$)")

_STILL_REACH = float(np.log(2.0))
"""A rounded tensor's largest row over its median, in nats: 0.2-0.4 measured."""
_STILL_RELATIVE = 0.02
"""Largest relative change of a row that rounding may explain: steps of 8 bits give 0.008."""
_MAD_TO_SD = 1.4826

_TREND_LIMIT = 160
"""Members beyond which one slope serves all: a single member no longer bends the trend, and slopes grow as n²."""
_UPPER = 0.75
"""Quantile of the others to be exceeded: with the median, half of the layers frozen would accuse the other half."""

_STILL_COLUMNS = 128
"""Columns below which rounding spreads row energies as widely as training does."""
_KURTOSIS = 5.4
"""E[e⁴]/E[e²]² of relative rounding errors: 1.8 (uniform) times 3 (Gaussian weights)."""
_STILL_MARGIN = 1.6
"""Measured spread of rounded tensors over the prediction: 0.8-1.0; trained tensors start at 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One member against its siblings.

    ``excess`` is log(value) minus the log that the siblings lead to expect, in natural-log units: 0 is ordinary,
    log 2 twice as large. ``expected`` is that expectation, in the unit of the value. ``siblings`` counts the others.
    """

    tensor: TensorDrift
    value: float
    expected: float
    excess: float
    siblings: int


def kind_of(name: str) -> str:
    """The name with its indices left open: ``h.3.mlp.weight`` → ``h.{}.mlp.weight``."""
    return _INDEX.sub(r"\1{}", name)


def moved(tensor: TensorDrift, *, floor_ratio: float) -> bool:
    """True when the tensor changed by more than rounding or weight decay alone would explain.

    Rounding through a coarser format is known when the candidate is stored in it; when it is not, it shows in the row
    energies: relative to the rows they hardly differ, log ‖δᵢ‖/‖bᵢ‖ having standard deviation ½√((κ − 1)/columns), κ
    the kurtosis of the rounding error. Weight decay alone makes them equal. Noise looks so too, however large; beyond
    what steps of 8 bits explain it counts as a change.
    """
    if tensor.changed == 0 or tensor.delta_l2 <= floor_ratio * tensor.rounding_floor:
        return False
    rows = (tensor.row_delta_sq > 0) & (tensor.row_base_sq > 0)
    columns = len(tensor.col_delta_sq)
    if columns < _STILL_COLUMNS or 2 * int(rows.sum()) < len(rows) or int(rows.sum()) < _STILL_COLUMNS:
        return True
    logs = 0.5 * np.log(tensor.row_delta_sq[rows] / tensor.row_base_sq[rows])
    spread = _MAD_TO_SD * float(np.median(np.abs(logs - np.median(logs))))
    small = float(np.median(logs)) <= float(np.log(_STILL_RELATIVE))
    even = small and spread <= _STILL_MARGIN * 0.5 * float(np.sqrt((_KURTOSIS - 1.0) / columns))
    # A few rows written into a rounded matrix leave the bulk as even as before.
    return not (even and float(logs.max() - np.median(logs)) < _STILL_REACH)


def less_at_ends(found: Iterable[Contrast], kin: Iterable[TensorDrift], *, allowance: float) -> list[Contrast]:
    """The contrasts, with ``allowance`` nats taken off the excess of the first and the last layer.

    Honest training moves both ends by more than a trend over depth explains, plain SGD up to three times.
    """
    ends = _ends(kin)
    return [replace(c, excess=c.excess - allowance) if c.tensor.spec.layer in ends else c for c in found]


class OfTensor(Protocol):
    """Anything measured on one tensor."""

    @property
    def tensor(self) -> TensorDrift:
        """The tensor."""


Found = TypeVar("Found", bound=OfTensor)


def away_from_ends(found: Iterable[Found], kin: Iterable[TensorDrift]) -> list[Found]:
    """What was found in members that are neither in the first nor in the last layer of their kind.

    The shape of honest changes is peculiar at both ends: a classifier that reads one position trains the last query
    matrix through that position alone, which leaves a change of rank one.
    """
    ends = _ends(kin)
    return [c for c in found if c.tensor.spec.layer not in ends]


def _ends(kin: Iterable[TensorDrift]) -> set[int]:
    layers = [t.spec.layer for t in kin if t.spec.layer is not None]
    return {min(layers), max(layers)} if layers else set()


def as_sampled(tensors: Iterable[TensorDrift]) -> list[TensorDrift]:
    """Each tensor as it was first sampled, where a budgeted scan read more of it afterwards.

    How concentrated a change is, and how far its largest part stands out, depends on how many rows are looked at; among
    siblings these statistics mean something only over equally many.
    """
    return [tensor.sample or tensor for tensor in tensors]


def at_most_sampled(tensor: TensorDrift, statistic: Callable[[TensorDrift], float | None]) -> float | None:
    """The statistic of a tensor; the smaller one where a budgeted scan took it of a sample and of more of the tensor.

    A few rows may stand out by chance; an edit still does when more of them are read.
    """
    values = [statistic(t) for t in (tensor, tensor.sample) if t is not None]
    return min((value for value in values if value is not None), default=None)


def enough_rows(tensor: TensorDrift, profile: Profile) -> bool:
    """False for a matrix of which a budgeted scan read too few rows to tell how its change is spread."""
    return not tensor.spec.sampled or tensor.spec.compared_rows >= profile.value("triage.least_rows")


def low_rank(members: Iterable[TensorDrift], *, share: float) -> bool:
    """True when the change of most members lies in their leading singular values, as that of merged adapters does.

    ``share`` is the energy that the values of the spectrum must hold, in [0, 1].
    """
    shares = [
        sum(v * v for v in t.spectrum.values) / t.spectrum.energy
        for t in members
        if t.spectrum is not None and t.spectrum.energy > 0
    ]
    return bool(shares) and float(np.median(shares)) >= share


def kinds(tensors: Iterable[TensorDrift]) -> Mapping[str, tuple[TensorDrift, ...]]:
    """Group the tensors that belong to a layer by kind, in their order of appearance."""
    groups: dict[str, list[TensorDrift]] = {}
    for tensor in tensors:
        if tensor.spec.layer is not None:
            groups.setdefault(kind_of(tensor.spec.name), []).append(tensor)
    return {kind: tuple(members) for kind, members in groups.items()}


def contrasts(members: Iterable[tuple[TensorDrift, float | None]], *, least: int) -> tuple[Contrast, ...]:
    """Compare every member of one kind with the others.

    Args:
        members: tensors of one kind, each with a positive value; members with None or 0 take no part.
        least: fewest siblings (others) needed; with fewer the result is empty.
    """
    usable = [(t, v) for t, v in members if v is not None and np.isfinite(v) and v > 0]
    if len(usable) <= least:
        return ()
    positions = np.array([float(t.spec.layer or 0) for t, _ in usable])
    logs = np.log(np.array([v for _, v in usable]))
    expected = _expectations(positions, logs)
    return tuple(
        Contrast(
            tensor=tensor,
            value=value,
            expected=float(np.exp(guess)),
            excess=float(log - guess),
            siblings=len(usable) - 1,
        )
        for (tensor, value), log, guess in zip(usable, logs, expected, strict=True)
    )


def _expectations(positions: F64, logs: F64) -> F64:
    """For each member, the larger of the others' upper quartile and their straight line (Theil 1950, Sen 1968)."""
    count = len(logs)
    if count > _TREND_LIMIT:
        return np.maximum(np.quantile(logs, _UPPER), _line(positions, logs, positions))
    guesses = np.empty(count)
    for i in range(count):
        others = np.arange(count) != i
        line = _line(positions[others], logs[others], positions[i : i + 1])[0]
        guesses[i] = max(float(np.quantile(logs[others], _UPPER)), float(line))
    return guesses


def _line(positions: F64, logs: F64, at: F64) -> F64:
    """The median-of-slopes line through the points, evaluated at ``at``; flat when all positions coincide."""
    if len(positions) > _TREND_LIMIT:
        chosen = np.linspace(0, len(positions) - 1, _TREND_LIMIT).astype(int)
        positions, logs = positions[chosen], logs[chosen]
    i, j = np.triu_indices(len(positions), 1)
    apart = positions[i] != positions[j]
    if not apart.any():
        return np.full(len(at), float(np.median(logs)))
    slopes = (logs[j] - logs[i])[apart] / (positions[j] - positions[i])[apart]
    slope = float(np.median(slopes))
    return np.asarray(np.median(logs - slope * positions) + slope * at, dtype=np.float64)
