"""Energies of rows and columns in one byte each: steps of the logarithm, and exact values where they matter."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.records import F64

Mask = npt.NDArray[np.bool_]

STEP_DUST = 0.5
EXACT_LARGEST = 8
_ZERO, _MIDDLE, _DUST, _SHRUNK, _BEYOND = 0, 210, 253, 254, 255


def encode_energies(
    energy: F64, step: float, shrunk: Mask, dusty: Mask
) -> tuple[npt.NDArray[np.uint8], np.float32, npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Codes of one series, its log reference, the values kept as they are and the levels of the dust."""
    some = energy > 0
    logs = np.log(energy, out=np.zeros(len(energy)), where=some)
    kept = some & ~shrunk
    coded = kept & ~dusty
    # Much of a table may be dust: the upper end is where precision is wanted.
    reference = np.float32(np.quantile(logs[coded], 0.9)) if coded.any() else np.float32(0)
    level = np.rint((logs - float(reference)) / step) + _MIDDLE
    exact = coded & (level >= _DUST)
    exact[np.argsort(-energy)[:EXACT_LARGEST]] = True
    exact &= kept
    dust = kept & ~exact & (dusty | (level <= _ZERO))
    code = np.select([exact, dust, kept, some], [_BEYOND, _DUST, level, _SHRUNK], _ZERO).astype(np.uint8)
    return code, reference, energy[exact].astype(np.float32), np.rint(logs[dust] / STEP_DUST).astype(np.int16)


def energy_decoder(arrays: Mapping[str, npt.NDArray[Any]]) -> Callable[[int, float, F64 | None], F64]:
    """A function (length, step, energies of shrunk rows) → the next series of energies, float64."""
    places = {"codes": 0, "references": 0, "beyond": 0, "dust": 0}

    def take(name: str, count: int) -> npt.NDArray[Any]:
        start = places[name]
        places[name] += count
        return arrays[name][start : start + count]

    def decode(length: int, step: float, shrunk: F64 | None) -> F64:
        code = take("codes", length)
        out = np.exp(float(take("references", 1)[0]) + (code.astype(np.float64) - _MIDDLE) * step)
        out[code == _ZERO] = 0.0
        if shrunk is not None:
            out[code == _SHRUNK] = shrunk[code == _SHRUNK]
        out[code == _BEYOND] = take("beyond", int((code == _BEYOND).sum()))
        out[code == _DUST] = np.exp(STEP_DUST * take("dust", int((code == _DUST).sum())).astype(np.float64))
        return out

    return decode
