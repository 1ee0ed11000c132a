"""The search in one direction, from one class to another: what is tried, in which order, and how far.

Cheap questions first, and no further than the answer needs: tokens by their pull, the strongest in carriers, only what
flips short carriers in longer ones; then phrases. What settles the answer is in ``scanner.probe.settling``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from scanner.probe.growing import PAIRED, grow
from scanner.probe.inserting import STRIDE, margins_in, measure
from scanner.probe.records import LENGTHS, MIDDLE, Direction, Insertion, Origin
from scanner.probe.running import Ids, OutOfTokens, margins
from scanner.probe.settling import COUNTS, Settling
from scanner.records import F32

CONTROL_COUNT: Final = 6
SHORTLIST: Final = 320
SECOND_LIST: Final = 40
FINAL_LIST: Final = 24
FIRST_CARRIERS: Final = 2
"""Carriers of a length that tokens are ranked on at first: of the shortest, and of longer ones while too many tokens
flip them all. Where a class is given to every text with one of its words, short texts put hundreds of words level."""
SECOND_CARRIERS: Final = {LENGTHS[0]: 3, MIDDLE: 3}
"""Carriers by length that tokens are ranked on: long ones alone would put all last on a model that is very sure."""
DOMINATES: Final = 0.5
"""What flips this share of the longest carriers makes phrases of that direction needless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What every scanned token does alone: ``logits`` float32 ``[tokens, classes]`` for the ids in ``tokens``."""

    tokens: Ids
    logits: F32


@dataclass(slots=True, kw_only=True)
class Search(Settling):
    """One direction, and the search in it.

    ``suspects`` are tokens and ``asked`` phrases that the caller wants tried. ``ranks`` are places in the vocabulary,
    by token. ``promise`` is the largest mean margin of a token, in logits.
    """

    suspects: tuple[int, ...]
    asked: tuple[tuple[int, ...], ...]
    ranks: Mapping[int, int] = field(default_factory=dict)
    controls: tuple[Insertion, ...] = ()
    promise: float = -np.inf

    def try_tokens(self, scan: Scan) -> None:
        """Single tokens, and the phrases that were asked for."""
        self.tried += len(scan.tokens) + len(self.asked)
        pull = margins(scan.logits, self.target) if len(scan.tokens) else np.zeros(0, dtype=np.float32)
        listed = [int(scan.tokens[i]) for i in np.argsort(-pull, kind="stable")[:SHORTLIST]]
        self.ranked = list(dict.fromkeys([*self.suspects, *listed]))
        suspected = set(self.suspects)
        try:
            self.keep(measure(self.runner, [(p, "asked") for p in self.asked], self.source, self.target, counts=COUNTS))
            self.ranked = self._first_ranked(self.ranked)
            self.ranked = self._best(self.ranked, SECOND_CARRIERS)
            wanted: list[tuple[tuple[int, ...], Origin]] = [
                ((token,), "suspect" if token in suspected else "vocabulary") for token in self.ranked[:FINAL_LIST]
            ]
            self.keep(measure(self.runner, wanted, self.source, self.target, counts=COUNTS))
        except OutOfTokens:
            self.missed("tokens")

    def wants_phrases(self) -> bool:
        """Not where something flips half of the longest texts, or alone most of those before them."""
        for words in LENGTHS[-2:]:
            deciding = [one for one in self.found.values() if self.rate(one, words) >= DOMINATES]
            if deciding and (words == LENGTHS[-1] or (len(deciding) == 1 and self.contends(deciding[0], words))):
                return False
        return True

    def try_phrases(self) -> None:
        """Phrases grown from what the weights suspect and the strongest tokens, words of either class left out."""
        suspects = [t for t in self.suspects if self.means_nothing(t)]
        strong = [t for t in self.ranked if self.means_nothing(t)]
        turns = [token for pair in zip(suspects, strong, strict=False) for token in pair]
        pool = list(dict.fromkeys([*turns, *suspects, *strong]))[:PAIRED]
        grown = grow(self.runner, pool, suspects, self.source, self.target)
        self.tried += grown.tried
        try:
            new: list[tuple[tuple[int, ...], Origin]] = [(p, "grown") for p in grown.phrases if p not in self.found]
            self.keep(measure(self.runner, new, self.source, self.target, counts=COUNTS))
        except OutOfTokens:
            self.missed("phrases")
        else:
            if not grown.complete:
                self.missed("phrases")

    def try_controls(self, words: Sequence[int]) -> None:
        """Ordinary words, on the lengths that decide about what was found."""
        first = self.nearest_first()
        lengths = {length for length in LENGTHS for one in first if self.contends(one, length)}
        lengths |= {first[0].doses[-1].words} & set(LENGTHS) if first else set()
        ordered = sorted(lengths)
        try:
            self.controls = measure(
                self.runner,
                [((word,), "vocabulary") for word in words],
                self.source,
                self.target,
                counts=(CONTROL_COUNT,) * len(ordered),
                lengths=ordered,
                whole=True,
            )
        except OutOfTokens:
            self.missed("controls")

    def direction(self) -> Direction:
        """What was measured."""
        told = tuple(
            replace(one, kinship=self.kin.of(one.tokens), rank=self._rank(one)) for one in self.nearest_first()
        )
        return Direction(
            source=self.source.source,
            target=self.target,
            insertions=told,
            controls=self.controls,
            tried=self.tried,
            class_kinship=self.kin.of_class,
        )

    def _rank(self, one: Insertion) -> int | None:
        return self.ranks.get(one.tokens[0]) if len(one.tokens) == 1 else None

    def _best(self, tokens: list[int], carriers: Mapping[int, int]) -> list[int]:
        """The tokens by their mean margin in a few carriers of some lengths, largest first."""
        if not tokens:
            return []
        values = self._values(tokens, carriers).mean(axis=1)
        order = np.argsort(-values, kind="stable")
        self.promise = float(values[order[0]])
        return [tokens[int(i)] for i in order]

    def _values(self, tokens: Sequence[int], carriers: Mapping[int, int]) -> F32:
        """Margins of every token in a few carriers of some lengths, float32 ``[tokens, carriers]``."""
        rows = [(token,) for token in tokens]
        parts = [
            margins_in(self.runner, rows, self.source, words, range(0, count * STRIDE, STRIDE), self.target)
            for words, count in carriers.items()
        ]
        return np.concatenate(parts, axis=1)

    def _first_ranked(self, tokens: list[int]) -> list[int]:
        """The most promising tokens, by the length of the carriers that they flip and by their margin there."""
        behind: list[int] = []
        order: list[int] = []
        for words in LENGTHS:
            values = self._values(tokens, {words: FIRST_CARRIERS})
            order = [int(i) for i in np.argsort(-values.mean(axis=1), kind="stable")]
            flipping = {i for i in order if (values[i] > 0).all()}
            if len(flipping) <= SECOND_LIST or words == LENGTHS[-1]:
                break
            behind = [tokens[i] for i in order if i not in flipping] + behind
            tokens = [tokens[i] for i in order if i in flipping]
        return [*(tokens[i] for i in order), *behind][:SECOND_LIST]
