"""The drift of two checkpoints computed the plain way, in float64 and whole tensors: facts for tests of opinions.

Slow and simple on purpose: it shares no arithmetic with the streaming measurement, so the two can check each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from scanner.records import (
    Coverage,
    DriftFacts,
    PairSpec,
    Residual,
    Role,
    Skip,
    Spectrum,
    TensorDrift,
    TensorMeta,
)
from scanner.roles import layer_of, role_of

Arrays = Mapping[str, npt.NDArray[np.floating]]
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16"}
SPECTRUM_RANK = 8
TOP = 8
TABLES = ("embedding", "unembedding")


def from_folders(base: Path, candidate: Path, *, prefix: str = "bert.") -> DriftFacts:
    """Compare two folders; names pair directly, or after taking ``prefix`` from the candidate's."""
    left, right = (load_file(folder / "model.safetensors") for folder in (base, candidate))
    renamed = {
        name: (name if name in left or not name.startswith(prefix) else name.removeprefix(prefix)) for name in right
    }
    return from_arrays(
        {name: left[other] for name, other in renamed.items() if other in left},
        right,
    )


def from_arrays(base: Arrays, candidate: Arrays, *, spectra: bool = True) -> DriftFacts:
    """Compare arrays of the same name and trailing shape; rows beyond the shorter one are left out."""
    tensors, skips, compared, total = [], [], 0, 0
    for name, after in candidate.items():
        if after.dtype.name not in DTYPES:
            continue
        total += after.size
        before = base.get(name)
        if before is None or before.shape[1:] != after.shape[1:]:
            skips.append(Skip(what=name, why="the base has no such tensor"))
            continue
        tensors.append(tensor_drift(name, before, after, spectra=spectra))
        compared += tensors[-1].count
    return DriftFacts(
        tensors=tuple(tensors),
        coverage=Coverage(
            parameters_compared=compared,
            parameters_total=total,
            bytes_read=8 * compared,
            bytes_total=8 * total,
            skipped=tuple(skips),
        ),
    )


def tensor_drift(
    name: str,
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    *,
    role: Role | None = None,
    spectra: bool = True,
) -> TensorDrift:
    """Measure one pair of arrays."""
    metas = [
        TensorMeta(
            name=name, dtype=DTYPES[a.dtype.name], shape=a.shape, file="model.safetensors", start=0, end=a.nbytes
        )
        for a in (before, after)
    ]
    rows = min(m.rows_cols[0] for m in metas)
    cols = metas[1].rows_cols[1]
    shape = (rows, cols)
    b, c = (
        np.asarray(a, dtype=np.float64).reshape(meta.rows_cols)[:rows]
        for a, meta in zip((before, after), metas, strict=True)
    )
    bad = ~(np.isfinite(b) & np.isfinite(c))
    nonfinite, base_nonfinite = (int((~np.isfinite(a)).sum()) for a in (c, b))
    b, c = (np.where(bad, 0.0, a) for a in (b, c))
    delta = c - b
    floor = 0.0
    if metas[1].dtype == "F16" and metas[0].dtype != "F16":
        floor = float(np.linalg.norm(b.astype(np.float16).astype(np.float64) - b))
    measurable = min(shape) > 1 and bool(delta.any()) and bool(np.isfinite((delta**2).sum()))
    return TensorDrift(
        spec=PairSpec(
            name=name,
            base=metas[0],
            candidate=metas[1],
            role=role or role_of(name, after.shape),
            layer=layer_of(name),
            rows=(0, rows),
        ),
        count=rows * cols,
        changed=int((delta != 0).sum()),
        nonfinite=nonfinite,
        base_nonfinite=base_nonfinite,
        base_l2=float(np.linalg.norm(b)),
        candidate_l2=float(np.linalg.norm(c)),
        delta_l2=float(np.linalg.norm(delta)),
        dot=float((b * delta).sum()),
        rounding_floor=floor,
        row_delta_sq=(delta**2).sum(1),
        row_base_sq=(b**2).sum(1),
        row_dot=(b * delta).sum(1),
        col_delta_sq=(delta**2).sum(0),
        residual=residual(delta) if measurable else None,
        spectrum=spectrum(delta) if spectra and measurable else None,
        row_heading=heading(delta)
        if spectra and measurable and (role or role_of(name, after.shape)) in TABLES
        else None,
    )


def heading(delta: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """A projection of each row onto 16 random directions, scaled to norm 1."""
    projected = delta @ np.random.default_rng(0).standard_normal((delta.shape[1], 16))
    norms = np.linalg.norm(projected, axis=1, keepdims=True)
    return (projected / np.where(norms > 0, norms, 1.0)).astype(np.float16)


def residual(delta: npt.NDArray[np.float64]) -> Residual:
    """The departure from the separable null, as ``scanner.records.Residual`` defines it."""
    squares = delta**2
    expected = np.outer(squares.sum(1), squares.sum(0)) / squares.sum()
    ratio = np.divide(squares, expected, out=np.zeros_like(squares), where=expected > 0)
    order = np.argsort(-ratio, axis=None)[:TOP]
    places = np.unravel_index(order, ratio.shape)
    return Residual(
        mean_square=float((ratio[expected > 0] ** 2).mean()),
        maximum=float(ratio.max()),
        top=tuple((int(i), int(j), float(ratio[i, j])) for i, j in zip(*places, strict=True)),
    )


def spectrum(delta: npt.NDArray[np.float64]) -> Spectrum:
    """The leading singular values, from the Gram matrix of the shorter side."""
    tall = delta.shape[0] >= delta.shape[1]
    matrix = delta if tall else delta.T
    energies, vectors = np.linalg.eigh(matrix.T @ matrix)
    values = np.sqrt(np.maximum(energies[::-1], 0.0))[:SPECTRUM_RANK]
    right = vectors[:, -1]
    left = matrix @ right
    left = left / max(float(np.linalg.norm(left)), 1e-300)
    long, short = _top(left), _top(right)
    return Spectrum(
        values=tuple(float(v) for v in values),
        energy=float((delta**2).sum()),
        exact=True,
        left_top=long if tall else short,
        right_top=short if tall else long,
        left=np.asarray(left if tall else right, dtype=np.float32),
        right=np.asarray(right if tall else left, dtype=np.float32),
    )


def _top(vector: Sequence[float] | npt.NDArray[np.float64]) -> tuple[tuple[int, float], ...]:
    array = np.asarray(vector)
    return tuple((int(i), float(array[i])) for i in np.argsort(-np.abs(array))[:TOP])
