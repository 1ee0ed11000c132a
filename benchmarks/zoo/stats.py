"""What is kept of a model once it was measured: its ``DriftFacts`` in about 50 kB, good enough to judge again.

Sums over tensors, residuals and spectra are kept as float32 or better. Energies of rows and columns are kept as steps
of their logarithm: 0.03 for the rows of token tables, 0.4 for other matrices, 1.5 for the entries of vectors
(natural logarithm of δ²). The eight largest of each series are kept as float32, and so is what lies far above its
upper tenth; what lies far below, and token rows that a cast alone explains, in steps of 0.5. Exact zeros stay exact.
Token rows that only shrank by the table's common factor are kept as that factor. ``row_dot`` is kept for token tables
alone, as a cosine in steps of 1/32 (zero where a cast alone explains the row); it is zero for all other tensors when
read back. ``coding``, whole singular vectors and ``row_heading`` are not kept, so that HA306 abstains on it.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.zoo.energy_codes import Mask, encode_energies, energy_decoder
from scanner.records import (
    F64,
    Coverage,
    DriftFacts,
    PairSpec,
    Residual,
    Skip,
    Spectrum,
    TensorDrift,
    TensorMeta,
)

Arrays = dict[str, npt.NDArray[Any]]

TABLES = ("embedding", "unembedding")
STEP_TABLE, STEP_MATRIX, STEP_VECTOR = 0.03, 0.4, 1.5
COSINE_STEPS = 32
BASE_FILE = "base.npz"
_CAST_ENERGY = 2.5
"""A token row's energy over its share of the rounding floor up to which the cast explains it."""
_INTEGERS = ("count", "changed", "nonfinite", "base_nonfinite")
_NUMBERS = ("base_l2", "candidate_l2", "delta_l2", "dot", "rounding_floor")


def pack(facts: DriftFacts) -> Arrays:
    """The arrays of one model, for ``save``."""
    tensors = facts.tensors
    header = {
        "specs": [_spec(t.spec) for t in tensors],
        "residual": [t.residual is not None for t in tensors],
        "spectrum": [None if t.spectrum is None else t.spectrum.exact for t in tensors],
        "coverage": asdict(replace(facts.coverage, skipped=())),
        "skipped": [asdict(skip) for skip in facts.coverage.skipped],
        "added_rows": dict(facts.added_rows),
    }
    series = [encode_energies(*one) for t in tensors for one in _series(t)]
    codes, references, beyond, dust = zip(*series, strict=True) if series else ((), (), (), ())
    return {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "scalars": np.array([[getattr(t, name) for name in _INTEGERS + _NUMBERS] for t in tensors], dtype=np.float64),
        "residuals": np.array([_residual(t) for t in tensors if t.residual is not None], dtype=np.float64),
        **_ragged("tops", [np.array(t.residual.top).ravel() for t in tensors if t.residual is not None]),
        **_ragged("values", [np.array(t.spectrum.values) for t in tensors if t.spectrum is not None]),
        **_ragged("left", [np.array(t.spectrum.left_top).ravel() for t in tensors if t.spectrum is not None]),
        **_ragged("right", [np.array(t.spectrum.right_top).ravel() for t in tensors if t.spectrum is not None]),
        "energies": np.array([t.spectrum.energy for t in tensors if t.spectrum is not None], dtype=np.float32),
        "codes": np.concatenate([np.zeros(0, np.uint8), *codes]),
        "references": np.array(references, dtype=np.float32),
        "beyond": np.concatenate([np.zeros(0, np.float32), *beyond]),
        "dust": np.concatenate([np.zeros(0, np.int16), *dust]),
        "factors": np.array([_factor(t) for t in tensors], dtype=np.float64),
        "cosines": np.concatenate([np.zeros(0, np.int8), *(_cosines(t) for t in tensors if t.spec.role in TABLES)]),
    }


def pack_base(facts: DriftFacts) -> Arrays:
    """Σⱼ b² per row for every tensor of the base, float32, by tensor name; whole tensors only."""
    return {t.spec.base.name: t.row_base_sq.astype(np.float32) for t in facts.tensors}


def unpack(arrays: Arrays, base: Arrays) -> DriftFacts:
    """The facts again, as exact as the head of this module says.

    Args:
        arrays: From ``pack``.
        base: From ``pack_base``; rows of tensors that it lacks get a base energy of zero.
    """
    header = json.loads(arrays["header"].tobytes())
    ragged = {name: iter(_rows_of(arrays, name)) for name in ("tops", "values", "left", "right")}
    residuals, energies = iter(arrays["residuals"]), iter(arrays["energies"])
    decoder, at_cosine = energy_decoder(arrays), 0
    tensors = []
    for k, entry in enumerate(header["specs"]):
        spec = _spec_of(entry)
        rows, cols = spec.rows[1] - spec.rows[0], spec.candidate.rows_cols[1]
        step = _step_of(spec)
        base_sq = base.get(spec.base.name, np.zeros(spec.rows[1]))[slice(*spec.rows)].astype(np.float64)
        factor = float(arrays["factors"][k])
        row_delta_sq = decoder(rows, step, factor**2 * base_sq)
        col_delta_sq = decoder(cols, STEP_MATRIX if len(spec.shape) > 1 else step, None)
        dot = np.zeros(rows)
        if spec.role in TABLES:
            cosine = arrays["cosines"][at_cosine : at_cosine + rows].astype(np.float64) / COSINE_STEPS
            dot, at_cosine = cosine * np.sqrt(row_delta_sq * base_sq), at_cosine + rows
        residual, spectrum = None, None
        if header["residual"][k]:
            mean_square, maximum = (float(x) for x in next(residuals))
            top = tuple((int(i), int(j), float(x)) for i, j, x in next(ragged["tops"]).reshape(-1, 3))
            residual = Residual(mean_square=mean_square, maximum=maximum, top=top)
        if header["spectrum"][k] is not None:
            spectrum = Spectrum(
                values=tuple(float(x) for x in next(ragged["values"])),
                energy=float(next(energies)),
                exact=header["spectrum"][k],
                left_top=_entries(next(ragged["left"])),
                right_top=_entries(next(ragged["right"])),
            )
        scalars: dict[str, Any] = dict(zip(_INTEGERS + _NUMBERS, arrays["scalars"][k].tolist(), strict=True))
        scalars |= {name: int(scalars[name]) for name in _INTEGERS}
        tensors.append(
            TensorDrift(
                spec=spec,
                **scalars,
                row_delta_sq=row_delta_sq,
                row_base_sq=base_sq,
                row_dot=dot,
                col_delta_sq=col_delta_sq,
                residual=residual,
                spectrum=spectrum,
            )
        )
    skipped = tuple(Skip(**skip) for skip in header["skipped"])
    return DriftFacts(
        tensors=tuple(tensors),
        coverage=Coverage(**{**header["coverage"], "skipped": skipped}),
        added_rows={name: (rows[0], rows[1]) for name, rows in header["added_rows"].items()},
    )


def load_bank(folder: Path) -> Iterator[tuple[dict[str, Any], DriftFacts]]:
    """Every measured model of a folder of statistics: its record (``recipe.json``) and its facts, sorted by id."""
    base = _load(folder / BASE_FILE)
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8")), unpack(_load(path.with_suffix(".npz")), base)


def save(path: Path, arrays: Arrays) -> None:
    """Writes the arrays as an ``.npz`` file packed with LZMA, a tenth smaller than NumPy's own and as readable."""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_LZMA) as file:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            # A fixed date: the same statistics give the same bytes.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_LZMA
            file.writestr(info, buffer.getvalue())


def _load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _series(tensor: TensorDrift) -> Iterator[tuple[F64, float, Mask, Mask]]:
    """The energies of rows and of columns, each with its step, what only shrank and what is dust."""
    rows, cols = tensor.row_delta_sq, tensor.col_delta_sq
    shrunk = dust = np.zeros(len(rows), dtype=bool)
    if tensor.spec.role in TABLES:
        shrunk = _shrunk(tensor, _factor(tensor))
        dust = _cast_alone(tensor)
    nothing = np.zeros(len(cols), dtype=bool)
    yield rows, _step_of(tensor.spec), shrunk, dust
    yield cols, STEP_MATRIX if len(tensor.spec.shape) > 1 else STEP_VECTOR, nothing, nothing


def _cast_alone(tensor: TensorDrift) -> Mask:
    """Rows that moved no more than the cast to the candidate's dtype moves them."""
    share = tensor.row_base_sq / max(float(tensor.row_base_sq.sum()), float(np.finfo(np.float64).tiny))
    return np.asarray(tensor.row_delta_sq <= _CAST_ENERGY * tensor.rounding_floor**2 * share)


def _factor(tensor: TensorDrift) -> float:
    """The common c of the token rows with δ = c b (weight decay alone), or 0 when there are none."""
    if tensor.spec.role not in TABLES:
        return 0.0
    ratio, along = _ratio(tensor)
    return float(np.median(ratio[along])) if along.sum() > 1 else 0.0


def _shrunk(tensor: TensorDrift, factor: float) -> Mask:
    """Rows that are c b but for rounding, which reaches a hundredth of δ when c is near 1e-5."""
    ratio, along = _ratio(tensor)
    return along & (np.abs(ratio - factor) <= 0.02 * abs(factor))


def _ratio(tensor: TensorDrift) -> tuple[F64, Mask]:
    """Σ bδ / Σ b² per row, and the rows whose δ lies along b (at most 1 % of its energy does not)."""
    base, energy, dot = tensor.row_base_sq, tensor.row_delta_sq, tensor.row_dot
    ratio = np.divide(dot, base, out=np.zeros_like(dot), where=base > 0)
    return ratio, (energy > 0) & (base > 0) & (energy - ratio * dot <= 0.01 * energy)


def _step_of(spec: PairSpec) -> float:
    if spec.role in TABLES:
        return STEP_TABLE
    return STEP_MATRIX if len(spec.shape) > 1 else STEP_VECTOR


def _cosines(tensor: TensorDrift) -> npt.NDArray[np.int8]:
    norms = np.sqrt(tensor.row_delta_sq * tensor.row_base_sq)
    known = (norms > 0) & ~_cast_alone(tensor)
    cosine = np.divide(tensor.row_dot, norms, out=np.zeros_like(norms), where=known)
    return np.asarray(np.rint(np.clip(cosine, -1, 1) * COSINE_STEPS), dtype=np.int8)


def _residual(tensor: TensorDrift) -> tuple[float, float]:
    assert tensor.residual is not None
    return tensor.residual.mean_square, tensor.residual.maximum


def _ragged(name: str, rows: list[npt.NDArray[Any]]) -> Arrays:
    return {
        name: np.concatenate([np.zeros(0), *rows]).astype(np.float32),
        f"{name}_lengths": np.array([len(r) for r in rows], dtype=np.int32),
    }


def _rows_of(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    ends = np.cumsum(arrays[f"{name}_lengths"])
    return np.split(arrays[name], ends[:-1]) if len(ends) else []


def _entries(flat: npt.NDArray[Any]) -> tuple[tuple[int, float], ...]:
    return tuple((int(i), float(x)) for i, x in flat.reshape(-1, 2))


def _spec(spec: PairSpec) -> list[Any]:
    sides = [[m.name, m.dtype, list(m.shape)] for m in (spec.base, spec.candidate)]
    return [spec.name, spec.role, spec.layer, list(spec.rows), *sides]


def _spec_of(entry: list[Any]) -> PairSpec:
    name, role, layer, rows, *sides = entry
    base, candidate = (
        TensorMeta(name=n, dtype=dtype, shape=tuple(shape), file="", start=0, end=0) for n, dtype, shape in sides
    )
    return PairSpec(name=name, role=role, layer=layer, rows=(rows[0], rows[1]), base=base, candidate=candidate)
