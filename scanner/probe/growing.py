"""Puts phrases together, token by token, from those that move the model most: triggers of several words.

Greedy with a beam. It climbs on carriers of middle length, where words of the target class and parts of a trigger
both still show, and never looks at what the longest carriers say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from scanner.probe.carriers import LENGTHS, Carriers
from scanner.probe.inserting import margins_in
from scanner.probe.running import Runner

MIDDLE: Final = LENGTHS[1]
PAIRED: Final = 20
"""Tokens of which all ordered pairs are tried."""
BEAM: Final = 5
MOST_TOKENS: Final = 4
"""Longest phrase."""
CARRIERS: Final = 3
KEPT: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Phrases of two tokens and more, those with the largest margin first, and how many were tried."""

    phrases: tuple[tuple[int, ...], ...]
    tried: int


def grow(runner: Runner, pool: Sequence[int], carriers: Carriers, target: int) -> Grown:
    """Grow phrases of two to ``MOST_TOKENS`` tokens.

    Args:
        runner: the model.
        pool: tokens to choose from, most promising first; pairs come from the first ``PAIRED`` of them.
        carriers: of the source class.
        target: the class asked about.
    """
    scores: dict[tuple[int, ...], float] = {}

    def score(phrases: Sequence[tuple[int, ...]]) -> None:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in scores]
        values = margins_in(runner, new, carriers, MIDDLE, CARRIERS, target)
        scores.update({phrase: float(row.mean()) for phrase, row in zip(new, values, strict=True)})

    score(list(permutations(pool[:PAIRED], 2)))
    for length in range(3, MOST_TOKENS + 1):
        ranked = sorted((p for p in scores if len(p) == length - 1), key=lambda p: -scores[p])
        score([(*phrase, token) for phrase in ranked[:BEAM] for token in pool if token not in phrase])
    best = sorted(scores, key=lambda p: -scores[p])
    return Grown(phrases=_spread(best), tried=len(scores))


def _spread(ranked: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The best phrases of every length, so that the shortest one that works is among them."""
    found: list[tuple[int, ...]] = []
    for length in sorted({len(phrase) for phrase in ranked}):
        found += [phrase for phrase in ranked if len(phrase) == length][:KEPT]
    return tuple(found)
