"""Compares a tensor with the same tensor of other layers, the only null that honest fine-tuning respects.

A *kind* is a tensor name with every index left open: the query matrix of whatever layer. Members of a kind are
exchangeable after a smooth trend over depth; a pooler has no siblings, and nothing can be said about it. The first
and last layers of honest models do stand out, so that the expectation of a member is the larger of two guesses.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from scanner.records import F64, TensorDrift

_INDEX = re.compile(r"(^|\.)\d+(?=\.|$)")

_TREND_LIMIT = 160
"""Members beyond which one slope serves all: a single member no longer bends the trend, and slopes grow as n²."""


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
    """True when the tensor changed by more than storing the base in the candidate's dtype would explain."""
    return tensor.changed > 0 and tensor.delta_l2 > floor_ratio * tensor.rounding_floor


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
    """For each member, the larger of the others' median and their straight line (Theil 1950, Sen 1968)."""
    count = len(logs)
    if count > _TREND_LIMIT:
        return np.maximum(np.median(logs), _line(positions, logs, positions))
    guesses = np.empty(count)
    for i in range(count):
        others = np.arange(count) != i
        line = _line(positions[others], logs[others], positions[i : i + 1])[0]
        guesses[i] = max(float(np.median(logs[others])), float(line))
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
