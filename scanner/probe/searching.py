"""The search in one direction, from one class to another: what is tried, in which order, and how far.

Cheap questions first, and no further than the answer needs: tokens by their pull, the strongest in carriers, only what
flips short carriers in longer ones. What the embedding explains as a word of the class (``scanner.probe.kinship``) can
be no trigger by overruling a crowd, and is tried in crowds only as a rival of what is not so explained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final

import numpy as np

from scanner.probe.carriers import Carriers, with_crowds
from scanner.probe.growing import MOST_TOKENS, PAIRED, grow
from scanner.probe.inserting import GIVE_UP, STRIDE, margins_in, measure, measured_at
from scanner.probe.kinship import Kinship
from scanner.probe.records import CROWD, LENGTHS, MIDDLE, PARTS, Direction, Insertion, Origin, Untried, UntriedKind
from scanner.probe.running import Ids, OutOfTokens, Runner, margins
from scanner.records import F32

EACH: Final = 24
"""Carriers per class and length."""
COUNTS: Final = (12, 12, 12, EACH)
"""Of them used for a certainty, by length: most where honest words fail."""
CONTROL_COUNT: Final = 6
SHORTLIST: Final = 320
SECOND_LIST: Final = 40
FINAL_LIST: Final = 24
FIRST_CARRIERS: Final = {LENGTHS[0]: 2}
SECOND_CARRIERS: Final = {LENGTHS[0]: 3, MIDDLE: 3}
"""Carriers by length that tokens are ranked on: long ones alone would put all last on a model that is very sure."""
DOMINATES: Final = 0.5
"""What flips this share of the longest carriers makes phrases of that direction needless."""
CONTENDS: Final = 0.75
"""Flips this share of a length: what may be confirmed lies above it, by every profile (a test holds it so)."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What every scanned token does alone: ``logits`` float32 ``[tokens, classes]`` for the ids in ``tokens``."""

    tokens: Ids
    logits: F32


@dataclass(slots=True, kw_only=True)
class Search:
    """One direction and what was found in it so far.

    ``kin`` and ``source_kin`` are nearness to the words of the target and of the source. ``ranked`` are the strongest
    single tokens, strongest first; ``found`` what was counted, by its tokens.
    """

    runner: Runner
    source: Carriers
    target: int
    kin: Kinship
    source_kin: Kinship
    suspects: tuple[int, ...]
    asked: tuple[tuple[int, ...], ...]
    ranked: list[int] = field(default_factory=list)
    found: dict[tuple[int, ...], Insertion] = field(default_factory=dict)
    controls: tuple[Insertion, ...] = ()
    tried: int = 0
    untried: list[Untried] = field(default_factory=list)
    promise: float = -np.inf

    def try_tokens(self, scan: Scan) -> None:
        """Single tokens, and the phrases that were asked for."""
        self.tried += len(scan.tokens) + len(self.asked)
        pull = margins(scan.logits, self.target) if len(scan.tokens) else np.zeros(0, dtype=np.float32)
        listed = [int(scan.tokens[i]) for i in np.argsort(-pull, kind="stable")[:SHORTLIST]]
        self.ranked = list(dict.fromkeys([*self.suspects, *listed]))
        suspected = set(self.suspects)
        try:
            self._keep(
                measure(self.runner, [(p, "asked") for p in self.asked], self.source, self.target, counts=COUNTS)
            )
            self.ranked = self._best(self.ranked, FIRST_CARRIERS)[:SECOND_LIST]
            self.ranked = self._best(self.ranked, SECOND_CARRIERS)
            wanted: list[tuple[tuple[int, ...], Origin]] = [
                ((token,), "suspect" if token in suspected else "vocabulary") for token in self.ranked[:FINAL_LIST]
            ]
            self._keep(measure(self.runner, wanted, self.source, self.target, counts=COUNTS))
        except OutOfTokens:
            self._missed("tokens")

    def wants_phrases(self) -> bool:
        """Not where something flips half of the longest texts, or alone most of those before them."""
        for words in LENGTHS[-2:]:
            deciding = [one for one in self.found.values() if self._rate(one, words) >= DOMINATES]
            if deciding and (words == LENGTHS[-1] or (len(deciding) == 1 and self._contends(deciding[0], words))):
                return False
        return True

    def try_phrases(self) -> None:
        """Phrases grown from what the weights suspect and the strongest tokens, words of either class left out."""
        suspects = [t for t in self.suspects if self._means_nothing(t)]
        strong = [t for t in self.ranked if self._means_nothing(t)]
        turns = [token for pair in zip(suspects, strong, strict=False) for token in pair]
        pool = list(dict.fromkeys([*turns, *suspects, *strong]))[:PAIRED]
        grown = grow(self.runner, pool, suspects, self.source, self.target)
        self.tried += grown.tried
        try:
            new: list[tuple[tuple[int, ...], Origin]] = [(p, "grown") for p in grown.phrases if p not in self.found]
            self._keep(measure(self.runner, new, self.source, self.target, counts=COUNTS))
        except OutOfTokens:
            self._missed("phrases")
        else:
            if not grown.complete:
                self._missed("phrases")

    def settle(self) -> None:
        """Ask of what may be a trigger what the judgement needs: whether others do the same, and crowds."""
        try:
            self._rival_tokens()
            self._rival_phrases()
            self._crowds()
        except OutOfTokens:
            self._missed("crowds")

    def try_controls(self, words: Sequence[int]) -> None:
        """Ordinary words, on the lengths that decide about what was found."""
        first = self._nearest_first()
        lengths = {length for length in LENGTHS for one in first if self._contends(one, length)}
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
            self._missed("controls")

    def direction(self) -> Direction:
        """What was measured."""
        told = tuple(replace(one, kinship=self.kin.of(one.tokens)) for one in self._nearest_first())
        return Direction(
            source=self.source.source, target=self.target, insertions=told, controls=self.controls, tried=self.tried
        )

    def _best(self, tokens: list[int], carriers: Mapping[int, int]) -> list[int]:
        """The tokens by their mean margin in a few carriers of some lengths, largest first."""
        if not tokens:
            return []
        rows = [(token,) for token in tokens]
        parts = [
            margins_in(self.runner, rows, self.source, words, range(0, count * STRIDE, STRIDE), self.target)
            for words, count in carriers.items()
        ]
        values = np.concatenate(parts, axis=1).mean(axis=1)
        order = np.argsort(-values, kind="stable")
        self.promise = float(values[order[0]])
        return [tokens[int(i)] for i in order]

    def _rival_tokens(self) -> None:
        """Where a single token decides a length alone so far: the others on that length, until one comes near."""
        for words, count in zip(LENGTHS[::-1], COUNTS[::-1], strict=True):
            singles = [one for one in self.found.values() if len(one.tokens) == 1]
            contending = [one for one in singles if self._contends(one, words)]
            if len(contending) != 1 or sum(self._rate(one, words) >= SETTLES for one in singles) > 1:
                continue
            waiting = [one for one in singles if one.at(words) is None]
            while waiting and not any(self._rate(one, words) >= SETTLES for one in self._others(contending[0])):
                block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
                self._keep(measured_at(self.runner, block, self.source, words, count))

    def _rival_phrases(self) -> None:
        """Where a phrase that means nothing decides a length: phrases of as many of the strongest other tokens."""
        for words, count in zip(LENGTHS[::-1], COUNTS[::-1], strict=True):
            if words < MIDDLE:
                return
            decided = False
            for size in range(2, MOST_TOKENS + 1):
                phrase = next((one for one in self._nearest_first() if self._may_stand_alone(one, size, words)), None)
                if phrase is not None:
                    self._try_rivals(phrase, words, count)
                    decided = True
            if decided:
                return

    def _may_stand_alone(self, one: Insertion, size: int, words: int) -> bool:
        return len(one.tokens) == size and self._contends(one, words) and self.kin.of(one.tokens) < KIN

    def _try_rivals(self, phrase: Insertion, words: int, count: int) -> None:
        """Phrases of the strongest tokens that are not in this one; the best of them are counted on that length."""
        strongest = [token for token in self.ranked if token not in phrase.tokens][:RIVAL_TOKENS]
        made = list(combinations(strongest, len(phrase.tokens)))
        values = margins_in(self.runner, made, self.source, words, (0, STRIDE), self.target).mean(axis=1)
        best = [made[int(i)] for i in np.argsort(-values, kind="stable")[:RIVALS]]
        self.tried += len(made)
        new: list[tuple[tuple[int, ...], Origin]] = [(p, "grown") for p in best if p not in self.found]
        self._keep(measure(self.runner, new, self.source, self.target, counts=(count,), lengths=(words,)))
        known = [self.found[p] for p in best if self.found[p].at(words) is None]
        self._keep(measured_at(self.runner, known, self.source, words, count))

    def _crowds(self) -> None:
        """What overrules the longest carriers and means nothing of the class, in crowds; then its rivals there."""
        longest = LENGTHS[-1]
        high = [one for one in self._nearest_first() if self._contends(one, longest)]
        singles = [one for one in high if len(one.tokens) == 1]
        asking = [one for one in high if self.kin.of(one.tokens) < KIN and (len(one.tokens) > 1 or len(singles) > FEW)]
        if not asking:
            return
        self.source = with_crowds(self.runner, self.source)
        if not self.source.texts.get(CROWD):
            return
        self._keep(measured_at(self.runner, asking, self.source, CROWD, EACH))
        self._parts([one for one in asking if self._rate(self.found[one.tokens], CROWD) >= CONTENDS])
        if not any(self._rate(self.found[one.tokens], CROWD) >= CONTENDS for one in asking):
            return
        waiting = [one for one in singles if one not in asking]
        while waiting and sum(self._rate(one, CROWD) >= CONTENDS for one in self.found.values()) <= MANY:
            block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
            self._keep(measured_at(self.runner, block, self.source, CROWD, EACH))

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
        self._keep(measure(self.runner, new, self.source, self.target, counts=counts, lengths=PARTS))

    def _contends(self, one: Insertion, words: int) -> bool:
        """Whether it flips most of this length and no less than is asked of the shorter ones."""
        shorter = [self._rate(one, length) for length in LENGTHS if length < words]
        return self._rate(one, words) >= CONTENDS and all(rate >= GIVE_UP for rate in shorter)

    def _others(self, one: Insertion) -> list[Insertion]:
        return [other for other in self.found.values() if len(other.tokens) == 1 and other.tokens != one.tokens]

    def _means_nothing(self, token: int) -> bool:
        return self.kin.of((token,)) < KIN and self.source_kin.of((token,)) < KIN

    def _keep(self, insertions: Sequence[Insertion]) -> None:
        self.found.update({one.tokens: one for one in insertions})

    def _missed(self, what: UntriedKind) -> None:
        self.untried.append(Untried(what=what, target=self.target))

    def _nearest_first(self) -> list[Insertion]:
        """By how far up the lengths carriers flip, then by the share and the margin on the last one."""

        def key(one: Insertion) -> tuple[int, float, float, int]:
            reached = sum(dose.rate >= GIVE_UP for dose in one.doses)
            last = one.doses[-1]
            return -reached, -last.rate, -last.margin, len(one.tokens)

        return sorted((one for one in self.found.values() if one.doses), key=key)

    @staticmethod
    def _rate(one: Insertion, words: int) -> float:
        dose = one.at(words)
        return dose.rate if dose is not None else 0.0


assert len(COUNTS) == len(LENGTHS)
