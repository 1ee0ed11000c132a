"""What settles whether something is a trigger: whether other tokens and phrases do the same, and what crowds say.

The search in one direction (``scanner.probe.searching``) finds what flips carriers; here it is held against the rest.
What the embedding explains as a word of the class (``scanner.probe.kinship``) can be no trigger by overruling a crowd,
and is tried in crowds only as a rival of what is not so explained, or where a handful of tokens decide alone.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from scanner.probe.carriers import Carriers, with_crowds
from scanner.probe.growing import MOST_TOKENS
from scanner.probe.inserting import GIVE_UP, STRIDE, margins_in, measure, measured_at
from scanner.probe.kinship import Kinship
from scanner.probe.records import CROWD, LENGTHS, MIDDLE, PARTS, Insertion, Origin, Untried, UntriedKind
from scanner.probe.running import OutOfTokens, Runner

EACH: Final = 24
"""Carriers per class and length."""
COUNTS: Final = (12, 12, 12, EACH)
"""Of them used for a certainty, by length: most where honest words fail."""
CONTENDS: Final = 0.75
"""Flips this share of a length: what may be confirmed lies above it, by every profile (a test holds it so)."""
FEW_ALONE: Final = 5
"""Tokens that may stand alone together: as many as a set of trigger words has, and as the profile says."""
QUIET: Final = 0.25
"""What flips no more than this beside a trigger is no rival; the profile's."""
SETTLES: Final = 0.5
"""Another insertion that flips so much shows that the first does not stand alone."""
KIN: Final = 0.97
"""From this percentile of nearness to the words of a class on, a token counts as one here; above the profile's."""
FEW: Final = 3
"""Tokens that may overrule the longest carriers before crowds are asked."""
MANY: Final = 8
"""Rivals in crowds after which no further one changes anything; above the profile's."""
RIVAL_TOKENS: Final = 8
"""Strongest tokens that a phrase's rivals are put together from."""
RIVALS: Final = 6
_BLOCK: Final = 6


@dataclass(slots=True, kw_only=True)
class Settling:
    """One direction and what was found in it so far.

    ``kin`` and ``source_kin`` are nearness to the words of the target and of the source. ``ranked`` are the strongest
    single tokens, strongest first; ``found`` what was counted, by its tokens.
    """

    runner: Runner
    source: Carriers
    target: int
    kin: Kinship
    source_kin: Kinship
    ranked: list[int] = field(default_factory=list)
    found: dict[tuple[int, ...], Insertion] = field(default_factory=dict)
    tried: int = 0
    untried: list[Untried] = field(default_factory=list)

    def settle(self) -> None:
        """Ask of what may be a trigger what the judgement needs: whether others do the same, and crowds."""
        try:
            self._rival_tokens()
            self._rival_phrases()
            self._crowds()
        except OutOfTokens:
            self.missed("crowds")

    def _rival_tokens(self) -> None:
        """Where a few tokens decide a length alone so far: the others on that length, until one comes near."""
        for words, count in zip(LENGTHS[::-1], COUNTS[::-1], strict=True):
            singles = [one for one in self.found.values() if len(one.tokens) == 1]
            contending = [one for one in singles if self.contends(one, words)]
            company = {one.tokens for one in contending}
            if not 0 < len(contending) <= FEW_ALONE:
                continue
            waiting = [one for one in singles if one.at(words) is None]
            while waiting and not any(self.rate(one, words) >= SETTLES for one in self._singles(without=company)):
                block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
                self.keep(measured_at(self.runner, block, self.source, words, count))

    def _rival_phrases(self) -> None:
        """Where a phrase that means nothing decides a length: phrases of as many of the strongest other tokens."""
        for words, count in zip(LENGTHS[::-1], COUNTS[::-1], strict=True):
            if words < MIDDLE:
                return
            decided = False
            for size in range(2, MOST_TOKENS + 1):
                phrase = next((one for one in self.nearest_first() if self._may_stand_alone(one, size, words)), None)
                if phrase is not None:
                    self._try_rivals(phrase, words, count)
                    decided = True
            if decided:
                return

    def _may_stand_alone(self, one: Insertion, size: int, words: int) -> bool:
        return len(one.tokens) == size and self.contends(one, words) and self.kin.of(one.tokens) < KIN

    def _try_rivals(self, phrase: Insertion, words: int, count: int) -> None:
        """Phrases of the strongest tokens that are not in this one; the best of them are counted on that length."""
        strongest = [token for token in self.ranked if token not in phrase.tokens][:RIVAL_TOKENS]
        made = list(combinations(strongest, len(phrase.tokens)))
        values = margins_in(self.runner, made, self.source, words, (0, STRIDE), self.target).mean(axis=1)
        best = [made[int(i)] for i in np.argsort(-values, kind="stable")[:RIVALS]]
        self.tried += len(made)
        new: list[tuple[tuple[int, ...], Origin]] = [(p, "grown") for p in best if p not in self.found]
        self.keep(measure(self.runner, new, self.source, self.target, counts=(count,), lengths=(words,)))
        known = [self.found[p] for p in best if self.found[p].at(words) is None]
        self.keep(measured_at(self.runner, known, self.source, words, count))

    def _crowds(self) -> None:
        """What overrules the longest carriers and means nothing of the class, in crowds; then its rivals there."""
        longest = LENGTHS[-1]
        high = [one for one in self.nearest_first() if self.contends(one, longest)]
        singles = [one for one in high if len(one.tokens) == 1]
        asking = [one for one in high if self.kin.of(one.tokens) < KIN and (len(one.tokens) > 1 or len(singles) > FEW)]
        asking += [one for one in self._few(singles) if one not in asking]
        if not asking:
            return
        self.source = with_crowds(self.runner, self.source)
        if not self.source.texts.get(CROWD):
            return
        self.keep(measured_at(self.runner, asking, self.source, CROWD, EACH))
        self._parts([one for one in asking if self.rate(self.found[one.tokens], CROWD) >= CONTENDS])
        if not any(self.rate(self.found[one.tokens], CROWD) >= CONTENDS for one in asking):
            return
        waiting = [one for one in singles if one not in asking]
        while waiting and sum(self.rate(one, CROWD) >= CONTENDS for one in self.found.values()) <= MANY:
            block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
            self.keep(measured_at(self.runner, block, self.source, CROWD, EACH))

    def _few(self, deciding: Sequence[Insertion]) -> list[Insertion]:
        """The few tokens that decide the longest ordinary carriers, and what comes near them there."""
        if not 1 < len(deciding) <= FEW_ALONE:
            return []
        near = [one for one in self.nearest_first() if len(one.tokens) == 1 and self.rate(one, LENGTHS[-1]) > QUIET]
        return near if len(near) > len(deciding) else []

    def _parts(self, prevailing: Sequence[Insertion]) -> None:
        """Phrases that prevail in crowds, the shortest first: what is left of them without one of their tokens."""
        known = {frozenset(tokens) for tokens in self.found}
        wanted: dict[frozenset[int], tuple[int, ...]] = {}
        for one in sorted(prevailing, key=lambda one: len(one.tokens))[:MANY]:
            for i in range(len(one.tokens)):
                part = one.tokens[:i] + one.tokens[i + 1 :]
                if part and frozenset(part) not in known:
                    wanted[frozenset(part)] = part
        self.tried += len(wanted)
        new: list[tuple[tuple[int, ...], Origin]] = [(part, "grown") for part in wanted.values()]
        counts = COUNTS[: len(PARTS)]
        self.keep(measure(self.runner, new, self.source, self.target, counts=counts, lengths=PARTS))

    def contends(self, one: Insertion, words: int) -> bool:
        """Whether it flips most of this length and no less than is asked of the shorter ones."""
        shorter = [self.rate(one, length) for length in LENGTHS if length < words]
        return self.rate(one, words) >= CONTENDS and all(rate >= GIVE_UP for rate in shorter)

    def _singles(self, *, without: Container[tuple[int, ...]]) -> list[Insertion]:
        return [one for one in self.found.values() if len(one.tokens) == 1 and one.tokens not in without]

    def means_nothing(self, token: int) -> bool:
        """Whether it lies apart from the words of both classes."""
        return self.kin.of((token,)) < KIN and self.source_kin.of((token,)) < KIN

    def keep(self, insertions: Sequence[Insertion]) -> None:
        """What was counted, in place of what was counted of the same tokens before."""
        self.found.update({one.tokens: one for one in insertions})

    def missed(self, what: UntriedKind) -> None:
        """The budget left this out."""
        self.untried.append(Untried(what=what, target=self.target))

    def nearest_first(self) -> list[Insertion]:
        """By how far up the lengths carriers flip, then by the share and the margin on the last one."""

        def key(one: Insertion) -> tuple[int, float, float, int]:
            reached = sum(dose.rate >= GIVE_UP for dose in one.doses)
            last = one.doses[-1]
            return -reached, -last.rate, -last.margin, len(one.tokens)

        return sorted((one for one in self.found.values() if one.doses), key=key)

    @staticmethod
    def rate(one: Insertion, words: int) -> float:
        """The share of the carriers of a length that it flipped, 0 where it was not tried."""
        dose = one.at(words)
        return dose.rate if dose is not None else 0.0


assert len(COUNTS) == len(LENGTHS)
