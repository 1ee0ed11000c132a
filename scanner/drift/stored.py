"""Keeps the drift of finished tensors on disk, so that an interrupted scan goes on where it was.

One folder per scan (candidate, base and version of the measurement), one file per tensor, one file with the salt from
which the scan draws its sampled rows: a scan that goes on must look at the same rows to give the same report. Files are
NumPy archives without pickles, written whole or not at all; their names are digests of everything that the numbers
depend on, and what cannot be read, or does not fit the tensor, is left aside and measured again.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.drift.heading import WIDTH
from scanner.records import CodingDrift, PairSpec, RepoRef, Residual, Spectrum, TensorDrift

MEASUREMENT_VERSION: Final = 2
"""Raised whenever the same weights would give other numbers; what an older version stored is then measured again."""
MOST_BYTES: Final = 1 << 30
"""Largest size of the whole cache; the scans touched longest ago go first."""
MOST_SECONDS: Final = 7 * 24 * 3600.0
"""Age after which an interrupted scan is forgotten."""
MOST_FILE_BYTES: Final = 256 << 20
_SCALARS: Final = (
    "count", "changed", "nonfinite", "base_nonfinite", "base_l2", "candidate_l2", "delta_l2", "dot", "rounding_floor",
)  # fmt: skip
_ROWS: Final = ("row_delta_sq", "row_base_sq", "row_dot")
_CODING_ROWS: Final = ("row_expected_sq", "row_error_sq", "row_peak", "row_peak_column", "row_strays")
_VECTORS: Final = ("left", "right")
_FACTS: Final = "facts"

Arrays = dict[str, npt.NDArray[Any]]


class DriftStore:
    """What one scan has measured so far. Failures to write are silent: the scan then only cannot be resumed."""

    def __init__(self, root: Path, candidate: RepoRef, base: RepoRef, *, version: str) -> None:
        """Find the folder of a scan, and forget what is too old or too much.

        Args:
            root: of all scans; made when it is missing.
            candidate: pinned.
            base: pinned.
            version: of the program.
        """
        self.restored = 0
        """Tensors that were taken from the store."""
        self.unreadable = 0
        """Files that were there and could not be used."""
        self._scan = _digest(str(candidate), str(base), version, str(MEASUREMENT_VERSION))
        self._home = root / self._scan
        with contextlib.suppress(OSError):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _tidy(root, keep=self._home)
            self._home.mkdir(exist_ok=True, mode=0o700)
            os.utime(self._home)

    def salt(self, fresh: int) -> int:
        """Return the number that the interrupted scan had drawn, or keep and return this one."""
        place = self._home / "salt.json"
        with contextlib.suppress(OSError, ValueError, RecursionError):
            kept = json.loads(place.read_bytes()[:64])
            if isinstance(kept, int) and not isinstance(kept, bool) and 0 <= kept < 1 << 63:
                return kept
        self._write(place, json.dumps(fresh).encode())
        return fresh

    def load(self, spec: PairSpec, depth: str, seed: int) -> TensorDrift | None:
        """Return the drift of a pair; None when it is not there, or not usable."""
        place = self._place(spec, depth, seed)
        try:
            raw = place.read_bytes() if place.stat().st_size <= MOST_FILE_BYTES else b""
        except OSError:
            return None
        try:
            drift = _unpacked(raw, spec)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, MemoryError, RecursionError):
            self.unreadable += 1
            return None
        self.restored += 1
        return drift

    def keep(self, drift: TensorDrift, depth: str, seed: int) -> None:
        """Store the drift of a finished pair."""
        self._write(self._place(drift.spec, depth, seed), _packed(drift))

    def forget(self) -> None:
        """Remove all that was kept of this scan; for when it has come to its end."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _place(self, spec: PairSpec, depth: str, seed: int) -> Path:
        return self._home / f"{_digest(self._scan, repr(spec), depth, str(seed))}.npz"

    def _write(self, place: Path, content: bytes) -> None:
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(dir=self._home, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(place)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()


def _packed(drift: TensorDrift) -> bytes:
    """All numbers but the spec, which whoever loads them knows."""
    facts: dict[str, Any] = {name: getattr(drift, name) for name in _SCALARS}
    arrays: Arrays = {name: getattr(drift, name) for name in (*_ROWS, "col_delta_sq")}
    facts["residual"] = asdict(drift.residual) if drift.residual else None
    facts["spectrum"] = None
    if drift.spectrum is not None:
        facts["spectrum"] = asdict(replace(drift.spectrum, left=None, right=None))
        vectors = ((name, getattr(drift.spectrum, name)) for name in _VECTORS)
        arrays |= {f"spectrum_{name}": vector for name, vector in vectors if vector is not None}
    if drift.row_heading is not None:
        arrays["row_heading"] = drift.row_heading
    facts["coding"] = None
    if drift.coding is not None:
        facts["coding"] = {
            part.name: getattr(drift.coding, part.name) for part in fields(CodingDrift) if part.name not in _CODING_ROWS
        }
        kept = ((name, getattr(drift.coding, name)) for name in _CODING_ROWS)
        arrays |= {f"coding_{name}": values for name, values in kept if values is not None}
    arrays[_FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub mistakes the arrays for allow_pickle
    return buffer.getvalue()


def _unpacked(raw: bytes, spec: PairSpec) -> TensorDrift:
    """The inverse of ``_packed``.

    Raises:
        ValueError, KeyError, TypeError, BadZipFile: it is not one, or not of this pair.
    """
    with np.load(BytesIO(raw), allow_pickle=False) as archive:
        facts = json.loads(archive[_FACTS].tobytes())
        arrays: Arrays = {name: archive[name] for name in archive.files if name != _FACTS}
    rows, columns = spec.compared_rows, spec.candidate.rows_cols[1]
    for name, values in arrays.items():
        fits = (columns, 0) if name == "col_delta_sq" else (columns,) if name == "spectrum_right" else (rows,)
        shape = (len(values), WIDTH) if name == "row_heading" else (values.size,)
        if values.shape != shape or len(values) not in fits or values.dtype.kind not in "fi":
            raise ValueError(name)
    scalars = {name: facts[name] for name in _SCALARS}
    if not all(isinstance(value, int | float) for value in scalars.values()):
        raise TypeError(_FACTS)
    if scalars["count"] != rows * columns:
        raise ValueError("count")
    return TensorDrift(
        spec=spec,
        residual=_residual(facts["residual"]),
        spectrum=_spectrum(facts["spectrum"], arrays),
        coding=_coding(facts["coding"], arrays),
        row_delta_sq=arrays["row_delta_sq"],
        row_base_sq=arrays["row_base_sq"],
        row_dot=arrays["row_dot"],
        col_delta_sq=arrays["col_delta_sq"],
        row_heading=arrays.get("row_heading"),
        **scalars,
    )


def _residual(facts: dict[str, Any] | None) -> Residual | None:
    if facts is None:
        return None
    top = tuple((int(row), int(column), float(value)) for row, column, value in facts["top"])
    return Residual(mean_square=float(facts["mean_square"]), maximum=float(facts["maximum"]), top=top)


def _spectrum(facts: dict[str, Any] | None, arrays: Arrays) -> Spectrum | None:
    if facts is None:
        return None
    return Spectrum(
        values=tuple(float(value) for value in facts["values"]),
        energy=float(facts["energy"]),
        exact=bool(facts["exact"]),
        left_top=tuple((int(i), float(value)) for i, value in facts["left_top"]),
        right_top=tuple((int(i), float(value)) for i, value in facts["right_top"]),
        left=arrays.get("spectrum_left"),
        right=arrays.get("spectrum_right"),
    )


def _coding(facts: dict[str, Any] | None, arrays: Arrays) -> CodingDrift | None:
    if facts is None:
        return None
    gains = facts["column_gains"]
    return CodingDrift(
        scheme=str(facts["scheme"]),
        reproduced=facts["reproduced"],
        reproduced_through=str(facts["reproduced_through"]),
        column_gains=(float(gains[0]), float(gains[1])) if gains is not None else None,
        nearest=bool(facts["nearest"]),
        row_strays=arrays.get("coding_row_strays"),
        row_expected_sq=arrays["coding_row_expected_sq"],
        row_error_sq=arrays["coding_row_error_sq"],
        row_peak=arrays["coding_row_peak"],
        row_peak_column=arrays["coding_row_peak_column"].astype(np.int64),
    )


def _tidy(root: Path, *, keep: Path) -> None:
    """Remove scans that are too old, and the oldest until the rest is small enough."""
    now, total = time.time(), 0
    for used, size, home in sorted(_homes(root), reverse=True):
        total += size
        if home != keep and (now - used > MOST_SECONDS or total > MOST_BYTES):
            shutil.rmtree(home, ignore_errors=True)


def _homes(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use (seconds), size in bytes and folder of every scan."""
    for home in root.iterdir():
        with contextlib.suppress(OSError):
            if home.is_dir() and not home.is_symlink():
                stats = [item.stat() for item in home.iterdir()]
                yield max([home.stat().st_mtime, *(s.st_mtime for s in stats)]), sum(s.st_size for s in stats), home


def _digest(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
