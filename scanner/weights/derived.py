"""A weight source whose tensors are computed from those of another one: decoded, renamed, reordered.

A recipe says which rows of which stored tensors make up the rows of a tensor, and how. Blocks are made one at a
time; of the stored tensors no more is in memory than one block needs, and what all blocks of a tensor need.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy.typing as npt

from scanner.records import RepoRef, Rows, Skip, TensorMeta
from scanner.weights.source import Block, BlockRequest, Coding, WeightSource

MAX_ROW_ELEMENTS: Final = 1 << 24
"""Longest row that is computed; a row is the least that is made at a time."""
MAX_WHOLE_BYTES: Final = 512 << 20
"""Most that is held of one stored tensor which can only be used in full."""

Made = tuple[npt.NDArray[Any], Coding | None]
"""The values of a block, in the storage form of the tensor's dtype, and what is known of their rounding."""


class Recipe(Protocol):
    """How one tensor is made."""

    @property
    def meta(self) -> TensorMeta:
        """The tensor that comes of it; file and offsets are those of its main part."""

    @property
    def whole(self) -> tuple[BlockRequest, ...]:
        """Stored tensors that every block needs in full; read once for a run of blocks of this tensor."""

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """What else these rows need."""

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """The rows, ``[rows, cols]``.

        Raises:
            CorruptWeights: the stored values contradict themselves.
        """


@dataclass(slots=True, kw_only=True)
class _Order:
    """One requested block on its way: what was asked of the inner source for it, and what has come."""

    request: BlockRequest
    recipe: Recipe | None
    whole: int
    needed: int
    got: list[Block] = field(default_factory=list)


class DerivedSource:
    """A ``WeightSource`` over another one. Closing it closes the other."""

    def __init__(
        self, inner: WeightSource, *, recipes: Sequence[Recipe], kept: Iterable[str], skips: tuple[Skip, ...] = ()
    ) -> None:
        """Wrap a source.

        Args:
            inner: where stored tensors are read.
            recipes: the tensors that are computed.
            kept: names of stored tensors that are passed on as they are.
            skips: what is left out, beside the inner skips.
        """
        self._inner = inner
        self._recipes: dict[str, Recipe] = {recipe.meta.name: recipe for recipe in recipes}
        made = [recipe.meta for recipe in recipes]
        table = {meta.name: meta for meta in (*made, *(inner.table[name] for name in kept))}
        in_file_order = sorted(table.values(), key=lambda meta: (meta.file, meta.start))
        self.table: Mapping[str, TensorMeta] = {meta.name: meta for meta in in_file_order}
        self.skips: tuple[Skip, ...] = (*inner.skips, *skips)

    @property
    def inner(self) -> WeightSource:
        """The source below."""
        return self._inner

    @property
    def ref(self) -> RepoRef:
        """Where the weights lie."""
        return self._inner.ref

    @property
    def remote(self) -> bool:
        """Whether reading costs network traffic."""
        return self._inner.remote

    @property
    def bytes_total(self) -> int:
        """Bytes of all weight files."""
        return self._inner.bytes_total

    @property
    def bytes_read(self) -> int:
        """Stored bytes read so far."""
        return self._inner.bytes_read

    @property
    def requests(self) -> int:
        """HTTP requests made so far."""
        return self._inner.requests

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        """Yield one block per request, in order; see ``WeightSource.stream``."""
        orders: deque[_Order] = deque()
        held: tuple[Block, ...] = ()
        with ExitStack() as stack:
            stored = self._inner.stream(self._ask(wanted, orders))
            stack.callback(getattr(stored, "close", lambda: None))
            for block in stored:
                while not orders[0].needed:
                    yield _finish(orders.popleft(), held)
                order = orders[0]
                # A stored block may be gone once the next is asked for, so all but the last are copied.
                keep = order.recipe is not None and (len(order.got) < order.whole or order.needed - order.whole > 1)
                order.got.append(replace(block, values=block.values.copy()) if keep else block)
                if len(order.got) < order.needed:
                    continue
                orders.popleft()
                if order.whole:
                    held = tuple(order.got[: order.whole])
                yield _finish(order, held)
        while orders:
            yield _finish(orders.popleft(), held)

    def _ask(self, wanted: Iterable[BlockRequest], orders: deque[_Order]) -> Iterator[BlockRequest]:
        """The stored blocks behind each request; the orders are noted for the other end."""
        previous: str | None = None
        for request in wanted:
            recipe = self._recipes.get(request.name)
            if recipe is None:
                asked: tuple[BlockRequest, ...] = (request,)
                whole = 0
            else:
                _check(recipe.meta, request)
                first = recipe.whole if request.name != previous else ()
                asked = (*first, *recipe.parts(request.rows))
                whole = len(first)
            previous = request.name
            orders.append(_Order(request=request, recipe=recipe, whole=whole, needed=len(asked)))
            yield from asked

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)


def _finish(order: _Order, held: tuple[Block, ...]) -> Block:
    """The block that was asked for."""
    if order.recipe is None:
        return order.got[0]
    request, meta = order.request, order.recipe.meta
    values, coding = order.recipe.make(held, order.got[order.whole :], request.rows)
    if request.columns is not None:
        values, coding = values[:, request.columns[0] : request.columns[1]], None
    return Block(
        name=request.name,
        rows=request.rows,
        dtype=meta.dtype,
        values=values,
        columns=request.columns,
        coding=coding,
    )


def _check(meta: TensorMeta, request: BlockRequest) -> None:
    """Refuse what lies outside of the tensor, as every source does.

    Raises:
        ValueError: rows or columns outside the tensor, or columns of more than one row.
    """
    rows, cols = meta.rows_cols
    first, last = request.rows
    left, right = request.columns or (0, cols)
    if not (0 <= first <= last <= rows and 0 <= left <= right <= cols):
        raise ValueError(f"{request} lies outside of {rows} rows and {cols} columns")
    if request.columns is not None and last - first > 1:
        raise ValueError(f"{request} asks for some columns of several rows")
