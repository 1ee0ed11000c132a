"""Whether a model was fine-tuned like those of a clean bank: a conformal test on the distance to its nearest ones.

An error rate measured on a bank holds for models that could have been in it. One that could not, because nobody of the
bank was trained that way, gets no rate: whatever was measured of it is then compared with carried-over thresholds.
"""

from dataclasses import dataclass

import numpy as np

from audit.traits import TRAITS
from scanner.records import F64

NEIGHBOURS = 3
"""A model with fewer like it in the bank is one of a kind: distances are means over the nearest ones."""
_LEAST_SCALE = 0.02
"""In the traits' own units: so that rounding in a trait that hardly varies makes no distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How a model compares with a bank of ``of`` clean ones.

    ``p_value`` is the share of them, counting the model itself, that lie at least as far from the rest:
    (1 + #{distances ≥ its own}) / (n + 1), in (0, 1], uniform for models that could have been in the bank (Laxhammar &
    Falkman 2015). ``distance`` is in standard deviations of the bank. ``traits`` names those that set it furthest apart
    from its neighbours, the furthest first.
    """

    distance: float
    p_value: float
    of: int
    traits: tuple[str, ...]


def likeness(traits: F64, bank: F64) -> Likeness | None:
    """Compare a model with a bank.

    Args:
        traits: float64 ``[len(TRAITS)]``, from ``traits_of``.
        bank: float64 ``[models, len(TRAITS)]``, of clean models.

    Returns:
        None when the bank holds no more than ``NEIGHBOURS`` models.
    """
    if len(bank) <= NEIGHBOURS:
        return None
    # The model is measured as one of the bag, as all others are: that alone makes its rank uniform.
    bag = np.vstack([bank, traits])
    bag /= np.maximum(bag.std(axis=0), _LEAST_SCALE)
    distances = _distances(bag)
    nearest = np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    at_least = int((nearest >= nearest[-1]).sum())
    near = bag[np.argsort(distances[-1], kind="stable")[:NEIGHBOURS]]
    apart = np.abs(bag[-1] - near).mean(axis=0)
    named = tuple(TRAITS[i] for i in np.argsort(-apart, kind="stable")[:3])
    return Likeness(distance=float(nearest[-1]), p_value=at_least / len(bag), of=len(bank), traits=named)


def _distances(points: F64) -> F64:
    """Euclidean distances between all rows, infinite from a row to itself; float64 ``[n, n]``."""
    squares = (points**2).sum(axis=1)
    distances: F64 = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * points @ points.T, 0.0))
    np.fill_diagonal(distances, np.inf)
    return distances
