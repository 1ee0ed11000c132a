"""Puts the hidden units of feed-forward blocks of the base into the candidate's order, so that they can be compared.

Units are matched by a random projection of their rows, which keeps angles: the cosine of rows of n columns is seen in
``PROJECTED`` numbers with a standard error of 1/√PROJECTED, so that a layer costs units² · PROJECTED operations in
place of units² · n. An order counts only when it is one: every unit found, each at a place of its own. Attention heads
are the business of ``scanner.lineage.heads``; orders of the whole model's dimensions are not followed.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanner.lineage.sampling import read_values
from scanner.records import F32, Alignment, PairSpec, Rows, TensorMeta
from scanner.weights.derived import MAX_WHOLE_BYTES, DerivedSource, Made
from scanner.weights.dtypes import item_bits
from scanner.weights.rearranged import picked
from scanner.weights.source import Block, BlockRequest, WeightSource

PROJECTED = 128
FOUND_COSINE = 0.6
"""Least projected cosine of a matched unit: half of a row's energy is shared (0.71), less a standard error."""
MAX_UNITS = 1 << 16
_BLOCK_ROWS = 1024
_ROWS_ROLES = ("mlp_in", "mlp_gate")

Order = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Straightened:
    """The base with its units in the candidate's order, and the pairs that cannot be compared with it.

    ``layers`` counts the blocks whose order was followed; blocks that stand in place are neither of them nor ``left``.
    """

    base: WeightSource
    left: tuple[PairSpec, ...]
    layers: int


def straighten(alignment: Alignment, base: WeightSource, candidate: WeightSource, *, seed: int) -> Straightened:
    """Find the order of the units of every feed-forward block; the matrices with units as rows are read once.

    Args:
        alignment: pairs by name, feed-forward tensors among them.
        base: the base's weights.
        candidate: the candidate's.
        seed: of the projection.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    blocks: dict[str, list[PairSpec]] = defaultdict(list)
    for pair in alignment.pairs:
        if pair.role in {*_ROWS_ROLES, "mlp_out", "bias"} and pair.layer is not None and pair.shape == pair.base.shape:
            blocks[module_of(pair)].append(pair)
    recipes: Recipes = []
    left: list[PairSpec] = []
    layers = 0
    for pairs in blocks.values():
        made = order_units(pairs, base, candidate, seed)
        layers += bool(made)
        recipes += made or ()
        left += pairs if made is None else ()
    return Straightened(base=reordered(base, recipes), left=tuple(left), layers=layers)


def reordered(base: WeightSource, recipes: "Recipes") -> WeightSource:
    """The base with these tensors in another order, under their own names; the base itself when there are none."""
    if not recipes:
        return base
    names = {recipe.meta.name for recipe in recipes}
    return DerivedSource(base, recipes=recipes, kept=[name for name in base.table if name not in names])


def module_of(pair: PairSpec) -> str:
    """The layer, and the expert or module within it, whose matrices share their units.

    Encoders of BERT's kind keep the two halves in modules of their own, so that the layer alone must do there.
    """
    parts = pair.name.split(".")
    at = next((i for i, part in enumerate(parts) if part == "experts"), None)
    return pair.name.partition(f".{pair.layer}.")[0] + f".{pair.layer}" if at is None else ".".join(parts[: at + 2])


def order_units(pairs: Sequence[PairSpec], base: WeightSource, candidate: WeightSource, seed: int) -> "Recipes | None":
    """How each tensor of one block is made straight: not at all when it stands in place, None without an order."""
    matrices = [pair for pair in pairs if pair.role in _ROWS_ROLES and len(pair.shape) == 2]
    outs = [pair for pair in pairs if pair.role == "mlp_out" and len(pair.shape) == 2]
    sizes = {pair.shape[0] for pair in matrices} | {pair.shape[1] for pair in outs}
    if not matrices or len(outs) != 1 or len(sizes) != 1:
        return None
    orders = [row_order(pair, base, candidate, seed) for pair in matrices]
    first = orders[0]
    if first is None or any(order is None or not np.array_equal(order, first) for order in orders[1:]):
        return None
    if is_in_place(first):
        return []
    stems = {pair.name.removesuffix("weight") for pair in matrices}
    biases = [
        p for p in pairs if p.role == "bias" and p.name.removesuffix("bias") in stems and p.shape == (len(first),)
    ]
    made: Recipes = [PickedRows(pair, first) for pair in matrices]
    return made + [PickedColumns(pair, first) for pair in (*outs, *biases)]


def row_order(pair: PairSpec, base: WeightSource, candidate: WeightSource, seed: int) -> Order | None:
    """The base row of every candidate row; None when they are not matched one to one, or too large to be held.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    if pair.shape[0] > MAX_UNITS or pair.base.count * item_bits(pair.base.dtype) // 8 > MAX_WHOLE_BYTES:
        return None
    ours = _projected(candidate, pair.candidate, seed)
    theirs = _projected(base, pair.base, seed)
    found = np.empty(len(ours), dtype=np.intp)
    for start in range(0, len(ours), _BLOCK_ROWS):
        cosines = ours[start : start + _BLOCK_ROWS] @ theirs.T
        best = cosines.argmax(axis=1)
        if cosines.max(axis=1).min() < FOUND_COSINE:
            return None
        found[start : start + len(best)] = best
    return found if len(np.unique(found)) == len(found) else None


def is_in_place(order: Order) -> bool:
    """Whether every row stands where it stood."""
    return bool(np.array_equal(order, np.arange(len(order))))


def _projected(source: WeightSource, meta: TensorMeta, seed: int) -> F32:
    """Rows in ``PROJECTED`` random directions, at length one; read in blocks, so that memory stays flat."""
    rows, columns = meta.rows_cols
    directions = np.random.default_rng(seed).standard_normal((columns, PROJECTED)).astype(np.float32)
    made = np.empty((rows, PROJECTED), dtype=np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        run = (start, min(start + _BLOCK_ROWS, rows))
        (values,) = read_values(source, [BlockRequest(name=meta.name, rows=run)])
        made[run[0] : run[1]] = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0) @ directions
    norms = np.linalg.norm(made, axis=1, keepdims=True)
    unit: F32 = (made / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)
    return unit


class PickedRows:
    """A matrix whose rows stand in another order (``order[i]`` is the stored place of row i); held as a whole."""

    def __init__(self, pair: PairSpec, order: Order) -> None:
        self.pair = pair
        self.meta = pair.base
        self._order = order
        self.whole: tuple[BlockRequest, ...] = (BlockRequest(name=pair.base.name, rows=(0, pair.base.shape[0])),)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """Nothing but the whole."""
        del rows
        return ()

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Pick the rows."""
        del parts
        return picked(whole[0], lambda values: values[self._order[rows[0] : rows[1]]])


class PickedColumns:
    """A matrix whose columns, or a vector whose entries, stand in another order."""

    whole: tuple[BlockRequest, ...] = ()

    def __init__(self, pair: PairSpec, order: Order) -> None:
        self.pair = pair
        self.meta = pair.base
        self._order = order

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The same rows."""
        return (BlockRequest(name=self.meta.name, rows=rows),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """Pick the columns."""
        del whole, rows
        order = self._order
        return picked(parts[0], lambda values: values[:, order])


Recipes = list[PickedRows | PickedColumns]
