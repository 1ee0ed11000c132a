"""Puts phrases together from tokens that promise something: triggers of several words.

Three ways, since triggers differ in what their parts do alone. Pairs, and what grows from the best of them by a beam,
find parts that each do a little. Triples of what the weights suspect find words that do nothing without one another.
And many suspects are inserted at once; where that flips carriers, what is not needed is taken out token by token. All
climb on carriers of few words and of middle length, where parts of a trigger still show, and never look at what the
longest ones say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from scanner.probe.carriers import Carriers
from scanner.probe.inserting import STRIDE, margins_in
from scanner.probe.records import LENGTHS, MIDDLE
from scanner.probe.running import OutOfTokens, Runner
from scanner.records import F32

PAIRED: Final = 32
"""Tokens of which all pairs are tried."""
TRIPLED: Final = 12
"""Suspects of which all triples are tried."""
BEAM: Final = 6
MOST_TOKENS: Final = 4
"""Longest phrase of the beam."""
GROUPS: Final = (24, 16, 8)
"""Suspects inserted at once."""
LIFT: Final = 0.25
"""The beam goes on where the best pair lifts the margin by this share of its way to a flip."""
NEEDED: Final = 0.5
"""A token of a group is needed when the margin falls below this share without it."""
SHORT: Final = LENGTHS[1]
WHICH: Final = (0, STRIDE)
"""Carriers that phrases climb on: all on one of few words, the best on two of middle length as well."""
BETTER: Final = 0.3
"""Share of the phrases that are, those that the short one puts highest."""
LEAST: Final = max(GROUPS)
"""All of so few phrases are."""
KEPT: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Phrases of two tokens and more, those with the largest margin first, how many were tried, whether all was."""

    phrases: tuple[tuple[int, ...], ...]
    tried: int
    complete: bool


@dataclass(slots=True, kw_only=True)
class _Climb:
    """Margins of the phrases that came through so far, the mean over a few carriers."""

    runner: Runner
    carriers: Carriers
    target: int
    scores: dict[tuple[int, ...], float] = field(default_factory=dict)
    tried: int = 0

    def score(self, phrases: Sequence[tuple[int, ...]]) -> None:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.scores]
        first = self._margins(new, SHORT, WHICH[:1])[:, 0]
        self.tried += len(new)
        best = np.argsort(-first, kind="stable")[: max(LEAST, int(BETTER * len(new)))]
        rest = self._margins([new[int(i)] for i in best], MIDDLE, WHICH)
        for i, row in zip(best, rest, strict=True):
            self.scores[new[int(i)]] = float((first[i] + row.sum()) / (1 + len(WHICH)))

    def plain(self) -> float:
        """What the carriers score without anything inserted."""
        short, middle = self._margins([()], SHORT, WHICH[:1]), self._margins([()], MIDDLE, WHICH)
        return float((short.sum() + middle.sum()) / (1 + len(WHICH)))

    def _margins(self, phrases: Sequence[tuple[int, ...]], words: int, which: Sequence[int]) -> F32:
        return margins_in(self.runner, phrases, self.carriers, words, which, self.target)

    def best(self, length: int) -> list[tuple[int, ...]]:
        return sorted((p for p in self.scores if len(p) == length), key=lambda p: (-self.scores[p], p))


def grow(runner: Runner, pool: Sequence[int], suspects: Sequence[int], carriers: Carriers, target: int) -> Grown:
    """Grow phrases of two tokens and more, as far as the tokens to run last.

    Args:
        runner: the model.
        pool: tokens to choose from, most promising first.
        suspects: those of them that the weights suspect, most suspect first.
        carriers: of the source class.
        target: the class asked about.
    """
    climb = _Climb(runner=runner, carriers=carriers, target=target)
    complete = True
    try:
        _groups(climb, suspects)
        climb.score(list(combinations(pool[:PAIRED], 2)))
        climb.score(list(combinations(suspects[:TRIPLED], 3)))
        _beam(climb, pool)
    except OutOfTokens:
        complete = False
    return Grown(phrases=_spread(climb), tried=climb.tried, complete=complete)


def _beam(climb: _Climb, pool: Sequence[int]) -> None:
    """Longer phrases, from the best pairs and triples, where they lead anywhere."""
    plain = climb.plain()
    for length in range(3, MOST_TOKENS + 1):
        ranked = climb.best(length - 1)
        if not ranked or climb.scores[ranked[0]] < plain * (1 - LIFT):
            return
        climb.score([(*phrase, token) for phrase in ranked[:BEAM] for token in pool if token not in phrase])


def _groups(climb: _Climb, suspects: Sequence[int]) -> None:
    """Many suspects at once; of the smallest group that flips, what is needed."""
    around, most = climb.runner.around, climb.runner.loaded.longest
    sizes = [n for n in GROUPS if 2 < n <= len(suspects) and n + MIDDLE + around <= most]
    groups = [tuple(suspects[:n]) for n in sizes]
    climb.score(groups)
    group = next((g for g in reversed(groups) if climb.scores[g] > 0), None)
    while group is not None and len(group) > 2:
        smaller = [group[:i] + group[i + 1 :] for i in range(len(group))]
        climb.score(smaller)
        best = max(smaller, key=lambda g: climb.scores[g])
        group = best if climb.scores[best] > NEEDED * climb.scores[group] else None


def _spread(climb: _Climb) -> tuple[tuple[int, ...], ...]:
    """The best phrases of every length, so that the shortest one that works is among them."""
    lengths = sorted({len(phrase) for phrase in climb.scores})
    return tuple(phrase for length in lengths if length <= 2 * MOST_TOKENS for phrase in climb.best(length)[:KEPT])
