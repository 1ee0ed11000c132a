"""The edits of ``restore``: the base's values for some places of a tensor, or its own less a low-rank component.

Panels of rows of either side are all that is ever held, besides the thin factors of a component.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.purify.checkpoint import torch_dtypes
from pipelines.purify.components import Components
from pipelines.purify.restore_plan import Repair
from scanner.records import PairSpec, Rows, TensorMeta
from scanner.weights.dtypes import decode
from scanner.weights.source import BlockRequest, WeightSource

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Restoration:
    """The edits: repairs by stored tensor, and where the base's values come from."""

    table: Mapping[str, TensorMeta]
    pairs: Mapping[str, PairSpec]
    base: WeightSource
    repairs: Mapping[str, Repair]
    components: Mapping[str, tuple[Components, int]]

    @property
    def names(self) -> frozenset[str]:
        """The tensors with a repair."""
        return frozenset(self.repairs)

    def panel(self, name: str, rows: Rows, stored: "Tensor") -> "Tensor":
        """Return the rows with the repair made; added rows, which the base lacks, stay."""
        low, high = max(rows[0], self.pairs[name].rows[0]), min(rows[1], self.pairs[name].rows[1])
        if low >= high:
            return stored
        whole = low == rows[0] and high == rows[1]
        flat = stored.reshape(rows[1] - rows[0], -1)
        own = flat if whole else flat[low - rows[0] : high - rows[0]]
        repair = self.repairs[name]
        if repair.form == "component":
            new = _less(own, *self.components[name], low, high)
        else:
            new = _with_parts(own, self.base_rows(name, (low, high)), repair, low)
        if not whole:
            joined = flat.clone()
            joined[low - rows[0] : high - rows[0]] = new
            new = joined
        return new.reshape(stored.shape)

    def base_rows(self, name: str, rows: Rows) -> "Tensor":
        """The base's values of some rows, ``[rows, cols]``, rounded to the dtype in which the candidate stores them."""
        import torch

        spec, dtype = self.pairs[name], torch_dtypes()[self.table[name].dtype]
        (block,) = self.base.stream([BlockRequest(name=spec.base.name, rows=rows)])
        if block.dtype == self.table[name].dtype:
            raw = torch.from_numpy(block.values.copy()).reshape(-1).view(torch.uint8)
            return raw.view(dtype).reshape(block.values.shape)
        return torch.from_numpy(decode(block.values, block.dtype).copy()).to(dtype)


def _less(own: "Tensor", found: Components, count: int, low: int, high: int) -> "Tensor":
    """The rows less the leading components, computed in float64 and rounded to the stored dtype."""
    import torch

    edit = torch.from_numpy(found.product(low, high, count))
    return (own.to(torch.float64) - edit).to(own.dtype)


def _with_parts(own: "Tensor", theirs: "Tensor", repair: Repair, low: int) -> "Tensor":
    """The rows with the base's values where the repair says; rows count from ``low``."""
    if repair.form == "whole":
        return theirs
    new = own.clone()
    high = low + len(own)
    for start, stop in repair.rows:
        first, last = max(start, low) - low, min(stop, high) - low
        if first < last:
            new[first:last] = theirs[first:last]
    for start, stop in repair.columns:
        new[:, start:stop] = theirs[:, start:stop]
    for row, column in repair.dimensions:
        if low <= row < high:
            new[row - low, column] = theirs[row - low, column]
    if repair.nonfinite:
        broken = ~own.float().isfinite()
        new[broken] = theirs[broken]
    return new


def bits_of(tensor: "Tensor") -> "Tensor":
    """The elements as integers of their width, so that equal means bit-identical."""
    import torch

    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(widths[tensor.element_size()])
