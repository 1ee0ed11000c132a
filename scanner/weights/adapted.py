"""The base with an adapter put on it, as a weight source: each block is computed from the base's and the factors.

The base is read once for both sides of a comparison: the blocks that the one side asks for are kept until the other
side has seen them (``SharedBase``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import numpy as np

from scanner.alignment import align
from scanner.errors import CorruptWeights, CouldNotConclude
from scanner.paths import shown
from scanner.records import F64, Alignment, PairSpec, RepoFacts, RepoRef, Rows, Skip, TensorMeta
from scanner.weights.adapters import Target, read_targets
from scanner.weights.derived import DerivedSource, Made
from scanner.weights.dtypes import decode
from scanner.weights.source import Block, BlockRequest, WeightSource

NORM_ELEMENTS: Final = 1 << 22
"""Elements of the base that are read at a time for the column norms of DoRA (32 MiB of float64)."""


class SharedBase:
    """A base whose last block is kept, so that whoever computes from it need not read it again.

    It belongs to its opener: closing it closes nothing.
    """

    def __init__(self, inner: WeightSource) -> None:
        """Wrap an open source."""
        self._inner = inner
        self._last: Block | None = None
        self.ref: RepoRef = inner.ref
        self.table: Mapping[str, TensorMeta] = inner.table
        self.skips: tuple[Skip, ...] = inner.skips
        self.remote: bool = inner.remote

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
        blocks = self._inner.stream(wanted)
        try:
            for block in blocks:
                self._last = block
                yield block
        finally:
            self._last = None
            getattr(blocks, "close", lambda: None)()

    def rows(self, name: str, rows: Rows) -> F64:
        """Rows of a tensor as numbers, float64 ``[rows, cols]``: the last block's, or read on their own.

        Raises:
            CouldNotConclude: they cannot be read.
        """
        last = self._last
        if last is not None and (last.name, last.rows, last.columns) == (name, rows, None):
            return decode(last.values, last.dtype).astype(np.float64)
        return next(self.parts(name, [rows]))

    def parts(self, name: str, runs: Iterable[Rows]) -> Iterator[F64]:
        """Several runs of rows of one tensor, read on their own."""
        blocks = self._inner.stream(BlockRequest(name=name, rows=rows) for rows in runs)
        try:
            for block in blocks:
                yield decode(block.values, block.dtype).astype(np.float64)
        finally:
            getattr(blocks, "close", lambda: None)()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._last = None


class AdaptedSource(DerivedSource):
    """A ``WeightSource`` of the tensors that an adapter changes, under its own names. Closing it closes the adapter."""

    def __init__(
        self,
        adapter: WeightSource,
        base: SharedBase,
        targets: Sequence[Target],
        pairs: Sequence[PairSpec],
        skips: tuple[Skip, ...] = (),
    ) -> None:
        """Put the adapter on the base.

        Args:
            adapter: the opened adapter.
            base: the opened base.
            targets: what the adapter changes.
            pairs: the tensor of the base behind each target; targets without one are left out.
            skips: what of the adapter cannot be used.
        """
        names = {pair.name: pair.base.name for pair in pairs}
        recipes = [
            _Recipe(target=target, base=base, base_name=names[target.name])
            for target in targets
            if target.name in names
        ]
        super().__init__(adapter, recipes=recipes, kept=(), skips=skips)
        self.targets: tuple[Target, ...] = tuple(recipe.target for recipe in recipes)


def put_on(candidate: RepoFacts, adapter: WeightSource, base: WeightSource, base_facts: RepoFacts) -> "PutOn":
    """Find the base's tensor for everything that an adapter changes.

    Args:
        candidate: facts of the adapter's repository.
        adapter: the opened adapter.
        base: the opened base.
        base_facts: facts of the base.

    Raises:
        CouldNotConclude: the adapter is of a kind that is not followed, or nothing of it can be used.
    """
    targets, skips = read_targets(candidate, adapter)
    if not targets:
        first = f": {skips[0].what}: {skips[0].why}" if skips else ""
        raise CouldNotConclude(
            f"Nothing of the adapter {candidate.ref} can be used{first or ', which holds no tensors'}; merge it into "
            "its base and scan the result."
        )
    misfits = _misfits(targets, base)
    targets = _fitted(targets, base, base_facts)
    alignment = _aligned(targets, base.table, base_facts)
    # Once more against the partners alone: what the adapter leaves as it is has not been left out of anything.
    partners = {pair.base.name: pair.base for pair in alignment.pairs}
    alignment = _aligned(targets, partners, base_facts)
    shared = SharedBase(base)
    source = AdaptedSource(adapter, shared, targets, alignment.pairs, skips)
    return PutOn(alignment=alignment, base=shared, candidate=source, misfits=misfits, unused=len(skips))


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOn:
    """An adapter on its base: the pairs to compare and both sides of them.

    ``misfits`` counts the tensors of the base that bear a target's very name and cannot take its factors, ``unused``
    the modules whose own parts do not fit together.
    """

    alignment: Alignment
    base: SharedBase
    candidate: AdaptedSource
    misfits: int
    unused: int


@dataclass(slots=True, kw_only=True)
class _Recipe:
    """Computes the rows of one target."""

    target: Target
    base: SharedBase
    base_name: str
    meta: TensorMeta = field(init=False)
    whole: tuple[BlockRequest, ...] = field(init=False)
    _norms: F64 | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.meta = self.target.meta
        self.whole = tuple(BlockRequest(name=part.name, rows=(0, part.rows_cols[0])) for part in self.target.held)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """The rows that take the base's place, where there are any."""
        stored = self.target.stored
        return (BlockRequest(name=stored.name, rows=rows),) if stored is not None else ()

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        """The rows as the adapter leaves them: float64, or as stored where nothing is computed."""
        if not self.target.held:
            return parts[0].values, None
        held = {block.name: block for block in whole}
        start = decode(parts[0].values, parts[0].dtype).astype(np.float64) if parts else self._base_rows(rows)
        with np.errstate(all="ignore"):  # a stranger's NaN and infinities are counted where they are compared
            return self._changed(start, held, rows), None

    def _base_rows(self, rows: Rows) -> F64:
        values = self.base.rows(self.base_name, rows)
        expected = (rows[1] - rows[0], self.meta.rows_cols[1])
        if values.shape != expected:
            raise CorruptWeights(f"{shown(self.base_name)} is not as large as the adapter needs; report this.")
        return values

    def _changed(self, start: F64, held: Mapping[str, Block], rows: Rows) -> F64:
        target = self.target
        if target.up is not None:
            start = start + self._product(held, rows)
        if target.magnitude is not None:
            magnitude = _numbers(held, target.magnitude).ravel()
            if target.flipped:
                start = start * (magnitude / self._column_norms(held))
            else:
                start = start * (magnitude[rows[0] : rows[1]] / np.linalg.norm(start, axis=1))[:, None]
        if target.added is not None:
            start = start + target.scale * _numbers(held, target.added).reshape(1, -1)
        if target.tokens is not None:
            tokens = _numbers(held, target.tokens)
            for index, row in enumerate(target.token_rows):
                if rows[0] <= row < rows[1]:
                    start[row - rows[0]] = tokens[index]
        return start

    def _product(self, held: Mapping[str, Block], rows: Rows) -> F64:
        """These rows of ``scale · up @ down`` (transposed where flipped), float64 from float32 products."""
        target = self.target
        assert target.down is not None
        assert target.up is not None
        down, up = _numbers(held, target.down), _numbers(held, target.up)
        gains = None if target.gains is None else _numbers(held, target.gains).reshape(1, -1)
        left, right = (down.T, up.T) if target.flipped else (up, down)
        left = left[rows[0] : rows[1]]
        left = left if gains is None else left * gains
        product = left.astype(np.float32) @ right.astype(np.float32)
        return target.scale * product.astype(np.float64)

    def _column_norms(self, held: Mapping[str, Block]) -> F64:
        """‖column‖ of base plus product over all rows, float64 ``[cols]``; DoRA's norm where the weight lies flipped.

        The base is read once more for it. (Liu et al. 2024, eq. 5, with the norm over the input side.)
        """
        if self._norms is None:
            count, cols = self.meta.rows_cols
            step = max(1, NORM_ELEMENTS // max(1, cols))
            runs = [(first, min(first + step, count)) for first in range(0, count, step)]
            squares = np.zeros(cols)
            for rows, start in zip(runs, self.base.parts(self.base_name, runs), strict=True):
                squares += np.square(start + self._product(held, rows)).sum(axis=0)
            self._norms = np.sqrt(squares)
        return self._norms


def _numbers(held: Mapping[str, Block], meta: TensorMeta) -> F64:
    block = held[meta.name]
    return decode(block.values, block.dtype).astype(np.float64)


def _aligned(targets: Sequence[Target], base: Mapping[str, TensorMeta], facts: RepoFacts) -> Alignment:
    table = {target.name: target.meta for target in targets}
    return align(table, base, candidate_config=facts.config, base_config=facts.config)


def _fitted(targets: Sequence[Target], base: WeightSource, facts: RepoFacts) -> tuple[Target, ...]:
    """The targets turned, and tables of tokens made as long, as the base's tensors show them to be."""
    paired = {pair.name: pair.base for pair in _aligned(targets, base.table, facts).pairs}
    turned = tuple(t.turned() if t.name not in paired and t.may_turn else t for t in targets)
    if any(one is not two for one, two in zip(targets, turned, strict=True)):
        found = {pair.name for pair in _aligned(turned, base.table, facts).pairs}
        turned = tuple(two if two.name in found else one for one, two in zip(targets, turned, strict=True))
    return tuple(_lengthened(target, paired.get(target.name)) for target in turned)


def _lengthened(target: Target, partner: TensorMeta | None) -> Target:
    if partner is None or target.tokens is None or target.stored is not None or target.up is not None:
        return target
    if len(partner.shape) != len(target.shape) or partner.shape[0] < target.shape[0]:
        return target
    return replace(target, shape=partner.shape)


def _misfits(targets: Iterable[Target], base: WeightSource) -> int:
    """Targets whose very name the base has, in a shape that their factors cannot be added to."""
    named = ((target, base.table.get(target.name)) for target in targets if target.up is not None)
    return sum(1 for target, meta in named if meta is not None and meta.shape not in (target.shape, target.shape[::-1]))
