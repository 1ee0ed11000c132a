"""Where each row of a token table went, in a few numbers a row.

A Gaussian projection keeps angles roughly (Johnson & Lindenstrauss 1984): with k columns of independent standard
normal entries, the cosine of two projected rows estimates that of the rows with a standard error of 1/√k at most.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from scanner.records import F32

WIDTH: Final = 16
"""Numbers a row; 32 bytes, a sixtieth of a row of 384 dimensions on both sides."""


class RowHeading:
    """Takes the rows of a delta in order; keeps ``WIDTH`` float16 numbers of each."""

    def __init__(self, columns: int, *, seed: int) -> None:
        """Prepare.

        Args:
            columns: of the table.
            seed: of the projection; tables of as many columns are projected alike.
        """
        self._projection: F32 = np.random.default_rng([seed, columns]).standard_normal((columns, WIDTH), np.float32)
        self._parts: list[npt.NDArray[np.float16]] = []

    def add(self, delta: F32) -> None:
        """Add the next rows, float32 ``[n, columns]``."""
        projected = delta @ self._projection
        norms = np.linalg.norm(projected, axis=1, keepdims=True)
        known = np.isfinite(norms) & (norms > 0)
        unit = np.divide(projected, norms, out=np.zeros_like(projected), where=known)
        self._parts.append(unit.astype(np.float16))

    def finish(self) -> npt.NDArray[np.float16]:
        """All rows, float16 ``[rows, WIDTH]``, of norm 1; zero where a row did not move or is not finite."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, WIDTH), np.float16)
