"""Edits planted in the pair of ``triage_pair``, and weight sources that serve the pair with an edit laid over it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from triage_pair import EMBEDDING, LAYERS, VOCABULARY, shapes

from scanner.weights.source import Block, BlockRequest, WeightSource

Change = Callable[[tuple[int, int], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Takes the rows (half-open) and the values of a block, gives the values with the edit."""
KINDS = ("poisoned row", "rank-one edit", "one layer", "full fine-tune backdoor")
STRENGTH = 6.0
"""Size of the edits of matrices, in multiples of the honest change (``triage.power_change``)."""
TRIGGER = 20.0
"""How many times farther the trigger's token row moved than the others, in the full fine-tune backdoor."""
_PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What was planted where: the changes by tensor, the rows of the embedding concerned, the model they lie on."""

    kind: str
    changes: Mapping[str, Change]
    row: int | None
    model: str


def draw(kind: str, rng: np.random.Generator, sizes: Mapping[str, float]) -> Edit:
    """Draw a place for an edit; ``sizes`` are the root mean squares of the honest change by tensor."""
    if kind in {"poisoned row", "full fine-tune backdoor"}:
        row = int(rng.integers(VOCABULARY))
        seed = int(rng.integers(1 << 31))
        far = 0.02 if kind == "poisoned row" else TRIGGER * sizes[EMBEDDING]
        change = _row_change(row, far, seed, replaces=kind == "poisoned row")
        model = "honest" if kind == "poisoned row" else "backdoored"
        return Edit(kind=kind, changes={EMBEDDING: change}, row=row, model=model)
    layer = int(rng.integers(LAYERS))
    parts = _PARTS if kind == "one layer" else [_PARTS[int(rng.integers(len(_PARTS)))]]
    names = [f"model.layers.{layer}.{part}.weight" for part in parts]
    changes = {name: _rank_one(name, STRENGTH * sizes[name], int(rng.integers(1 << 31))) for name in names}
    return Edit(kind=kind, changes=changes, row=None, model="honest")


def _row_change(row: int, size: float, seed: int, *, replaces: bool) -> Change:
    def change(rows: tuple[int, int], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not rows[0] <= row < rows[1]:
            return values
        direction = np.random.default_rng(seed).standard_normal(values.shape[1]).astype(np.float32)
        changed = values.copy()
        changed[row - rows[0]] = direction * np.float32(size) + (0 if replaces else values[row - rows[0]])
        return changed

    return change


def _rank_one(name: str, size: float, seed: int) -> Change:
    rng = np.random.default_rng(seed)
    rows_all, columns = shapes()[name]
    left = rng.standard_normal(rows_all).astype(np.float32)
    right = (size * rng.standard_normal(columns)).astype(np.float32)

    def change(rows: tuple[int, int], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return values + left[rows[0] : rows[1], None] * right[None, :]

    return change


class Edited:
    """A ``WeightSource`` that serves another one with an edit laid over it, rounded to the stored dtype."""

    def __init__(self, inner: WeightSource, edit: Edit) -> None:
        self._inner = inner
        self._edit = edit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        """Yield the blocks of the inner source with the edit."""
        for block in self._inner.stream(wanted):
            change = self._edit.changes.get(block.name)
            if change is None:
                yield block
                continue
            values = block.values.view(ml_dtypes.bfloat16).astype(np.float32)
            yield replace(block, values=change(block.rows, values).astype(ml_dtypes.bfloat16).view(np.uint16))
