"""How a model was fine-tuned, in a few numbers that the diff gives anyway.

They say whether a model is like those of a clean bank. Every number is a median, a share or a robust slope over many
tensors, so that an edit of a few tensors or rows leaves them where the honest part of the training put them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import log

import numpy as np

from scanner.records import F64, DriftFacts, TensorDrift

TRAITS = (
    "drift", "drift_spread", "role_spread", "depth_slope", "embedding_ratio", "vector_ratio",
    "unchanged_matrices", "unchanged_vectors", "unchanged_rows", "unchanged_entries", "rounding",
    "top_share", "effective_rank", "beyond_rank", "entry_tail", "row_spread", "shrinkage",
)  # fmt: skip
"""Names of the traits, in the order of ``traits_of``; its docstring says what each is."""

LEAST_MATRICES = 6
"""Compared matrices of the blocks that a description needs: one block of a transformer has as many."""
_BODY = frozenset(
    {"query", "key", "value", "attention_output", "attention", "mlp_in", "mlp_gate", "mlp_out", "conv", "router"}
)
_VECTORS = frozenset({"norm", "bias"})
_STILL = log(1e-9)
"""Stands for the logarithm of a relative drift of nothing: below what float32 can hold of a change."""
_APART = 8.0
"""Most that a logarithmic ratio counts: beyond e⁸ = 3,000 times, one part is as good as frozen."""


def traits_of(drift: DriftFacts) -> F64 | None:
    """Describe a fine-tune, float64 ``[len(TRAITS)]``, all finite; None with fewer than ``LEAST_MATRICES`` matrices.

    With ρ = ‖δ‖/‖base‖, over the matrices of the blocks that moved, natural logarithms:

    - ``drift``: median ln ρ; ``role_spread``: standard deviation of its medians by role; ``depth_slope``: Theil's slope
      (1950) between layers of what ln ρ leaves above the role's median, over the whole depth; ``drift_spread``:
      interquartile range of what that leaves.
    - ``embedding_ratio``, ``vector_ratio``: median ln ρ of token rows that moved, and of norms and biases, above
      ``drift``.
    - ``unchanged_…``: shares of matrices, vectors and token rows without any change, and the median share of unchanged
      entries of a moved matrix. ``rounding``: median of the cast's own share of ‖δ‖, at most 1.
    - ``top_share``, ``effective_rank``, ``beyond_rank``: medians of s₁²/E, of the logarithm of E/s₁² (the stable rank),
      and of the share of E beyond the singular values that are kept; E = ‖δ‖².
    - ``entry_tail``: median ln of the residual's mean square (Gaussian: ln 3); ``row_spread``: median over matrices of
      the interquartile range of the rows' ln ‖δᵢ‖².
    - ``shrinkage``: median cosine between δ and the base (weight decay and merges with the base make it negative).
    """
    matrices = [t for t in drift.tensors if t.spec.role in _BODY and len(t.spec.shape) > 1 and t.base_l2 > 0]
    if len(matrices) < LEAST_MATRICES:
        return None
    moved = [t for t in matrices if _moves(t)]
    level, spread, roles, slope = _levels(moved)
    tables = [t for t in drift.tensors if t.spec.role in {"embedding", "unembedding"}]
    vectors = [t for t in drift.tensors if t.spec.role in _VECTORS]
    described = np.array(
        (
            level, spread, roles, slope, _above(level, _rows_moved(tables)),
            _above(level, [log(t.relative_l2) for t in vectors if _moves(t) and t.base_l2 > 0]),
            1.0 - len(moved) / len(matrices), _unmoved(vectors), _still_rows(tables),
            _median(1.0 - t.changed_fraction for t in moved), _median(_rounding(t) for t in moved),
            *_spectra(moved), _median(log(max(t.residual.mean_square, 1e-3)) for t in moved if t.residual is not None),
            _median(_row_spread(t) for t in moved), _median(t.dot / (t.base_l2 * t.delta_l2) for t in moved),
        ),
        dtype=np.float64,
    )  # fmt: skip
    return np.nan_to_num(described, nan=0.0, posinf=_APART, neginf=-_APART)


def _moves(tensor: TensorDrift) -> bool:
    return tensor.changed > 0 and tensor.delta_l2 > 0


def _levels(moved: Sequence[TensorDrift]) -> tuple[float, float, float, float]:
    """Level, spread, spread between roles and slope over depth of the logarithmic relative drift."""
    if not moved:
        return _STILL, 0.0, 0.0, 0.0
    logs = np.log([t.relative_l2 for t in moved])
    by_role: dict[str, list[float]] = defaultdict(list)
    for tensor, value in zip(moved, logs.tolist(), strict=True):
        by_role[tensor.spec.role].append(value)
    middles = {role: float(np.median(values)) for role, values in by_role.items()}
    rest = logs - np.array([middles[t.spec.role] for t in moved])
    layers = np.array([-1 if t.spec.layer is None else t.spec.layer for t in moved])
    slope = _slope({int(k): float(np.median(rest[layers == k])) for k in np.unique(layers[layers >= 0])})
    depth = np.maximum(layers, 0) / max(int(layers.max()), 1)
    return float(np.median(logs)), _quartiles(rest - slope * depth), float(np.std(list(middles.values()))), slope


def _slope(by_layer: Mapping[int, float]) -> float:
    """Theil's median slope between layers, over the whole depth; 0 with fewer than two layers."""
    if len(by_layer) < 2:
        return 0.0
    layers, values = np.array(list(by_layer)), np.array(list(by_layer.values()))
    left, right = np.triu_indices(len(layers), 1)
    return float(np.median((values[left] - values[right]) / (layers[left] - layers[right])) * layers.max())


def _above(level: float, others: Sequence[float]) -> float:
    """How far the middle one of other parts moved beyond the blocks' level, at most ``_APART`` either way."""
    return float(np.clip((float(np.median(others)) if others else _STILL) - level, -_APART, _APART))


def _rows_moved(tables: Sequence[TensorDrift]) -> list[float]:
    """Of each table the middle row's logarithmic relative drift: one row that went far must not speak for the rest."""
    moved = [(t.row_delta_sq > 0) & (t.row_base_sq > 0) for t in tables]
    return [
        0.5 * float(np.median(np.log(t.row_delta_sq[rows] / t.row_base_sq[rows])))
        for t, rows in zip(tables, moved, strict=True)
        if rows.any()
    ]


def _unmoved(tensors: Sequence[TensorDrift]) -> float:
    return sum(1 for t in tensors if not _moves(t)) / len(tensors) if tensors else 0.0


def _still_rows(tables: Sequence[TensorDrift]) -> float:
    return _median(float(np.mean(t.row_delta_sq == 0)) for t in tables if t.row_delta_sq.size)


def _rounding(tensor: TensorDrift) -> float:
    return min(tensor.rounding_floor / tensor.delta_l2, 1.0)


def _spectra(moved: Sequence[TensorDrift]) -> tuple[float, float, float]:
    known = [t.spectrum for t in moved if t.spectrum is not None and t.spectrum.values and t.spectrum.energy > 0]
    shares = [min(s.top_share, 1.0) for s in known if s.top_share > 0]
    kept = [min(sum(v * v for v in s.values) / s.energy, 1.0) for s in known]
    return _median(shares), _median(-log(share) for share in shares), _median(1.0 - share for share in kept)


def _row_spread(tensor: TensorDrift) -> float:
    energies = tensor.row_delta_sq[tensor.row_delta_sq > 0]
    return _quartiles(np.log(energies)) if energies.size > 1 else 0.0


def _quartiles(values: F64) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low)


def _median(values: Iterable[float]) -> float:
    """The median, 0 of nothing."""
    held = list(values)
    return float(np.median(held)) if held else 0.0
