"""The probe of a classifier: which insertions overrule carriers of every strength, class by class.

From every entry of the vocabulary to a few certainties, each step on a fraction of what the one before left. Steps are
taken in the order of their promise, in all directions at once, so that a budget of tokens leaves out what promises
least: every token alone; the strongest of them and the suspects; phrases, first where tokens already did most; what
settles it. What was left out is part of the result.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from scanner.probe.budget import HELD_BACK
from scanner.probe.carriers import STRONG, Carriers, make_carriers, ordinary_words
from scanner.probe.kinship import kinship, meanings
from scanner.probe.loading import Loaded
from scanner.probe.records import Direction, Untried
from scanner.probe.running import Ids, OutOfTokens, Runner, margins
from scanner.probe.searching import Scan, Search
from scanner.probe.settling import EACH
from scanner.probe.staging import CannotProbe
from scanner.records import F32

POOL: Final = 2500
"""Ordinary words that carriers are made of, drawn from the whole vocabulary."""
CONTROLS: Final = 60
SOURCES: Final = 2
MOST_CLASSES: Final = 8
"""Classes asked about; with more, those towards which single tokens stand out most."""
VOCABULARY_SHARE: Final = 0.5
"""Of the budget, at most, for trying every entry of the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller wants tried: tokens that the weights suspect, most suspect first, and whole phrases.

    ``whole_vocabulary``: every token alone as well. ``base``: what the tokens meant before (``scanner.probe.kinship``).
    """

    suspects: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()
    whole_vocabulary: bool = True
    base: F32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was measured, the entries of the vocabulary that were scanned, and what was not tried.

    A class is ``left_out`` when no texts of another class can be made to try it on, or when there are too many classes.
    ``kin_of_base``: nearness to the words of a class was measured in the base's embedding.
    """

    directions: tuple[Direction, ...]
    scanned: int
    left_out: tuple[int, ...]
    untried: tuple[Untried, ...]
    kin_of_base: bool = False


def probe_classifier(runner: Runner, asked: Asked, rng: np.random.Generator) -> Found:
    """Search in all directions, as far as the runner's tokens last.

    Raises:
        CannotProbe: carriers could be made of no class, or an output was not finite.
    """
    held_back = int(runner.left() * HELD_BACK) if runner.most_tokens is not None else 0
    scan, untried = _scan(runner, asked)
    words = np.asarray(ordinary_words(runner.loaded), dtype=np.int64)
    pool = np.sort(rng.permutation(words)[:POOL])
    try:
        alone = _alone(runner, scan, pool)
        carriers = _sources(runner, pool, alone, rng)
    except OutOfTokens:
        raise CannotProbe(
            "the tokens that a probe may run were used up before there were texts to try anything on"
        ) from None
    if not carriers:
        raise CannotProbe("no texts that it is sure of can be made of its vocabulary")
    free = np.setdiff1d(words, np.asarray([word for made in carriers for word in made.words]))
    controls = tuple(int(word) for word in rng.permutation(free)[:CONTROLS])
    rows, kin_of_base = meanings(runner.loaded, asked.base)
    searches = _searches(runner, asked, scan, (words, pool, alone), carriers, rows)
    whole, runner.most_tokens = runner.most_tokens, _less(runner.most_tokens, held_back)
    for search in searches:
        search.try_tokens(scan)
    for search in sorted(searches, key=lambda s: -s.promise):
        if search.wants_phrases():
            search.try_phrases()
    runner.most_tokens = whole
    for search in searches:
        search.settle()
        search.try_controls(controls)
    reached = {search.target for search in searches}
    return Found(
        directions=tuple(search.direction() for search in searches),
        scanned=len(scan.tokens) if asked.whole_vocabulary else 0,
        left_out=tuple(c for c in range(alone.shape[1]) if c not in reached),
        untried=(*untried, *(one for search in searches for one in search.untried)),
        kin_of_base=kin_of_base,
    )


def _less(most: int | None, held_back: int) -> int | None:
    return None if most is None else most - held_back


def _searches(
    runner: Runner,
    asked: Asked,
    scan: Scan,
    vocabulary: tuple[Ids, Ids, F32],
    carriers: list[Carriers],
    rows: F32,
) -> list[Search]:
    """One search a target class, on texts of the class that makes the best ones."""
    words, pool, alone = vocabulary
    known = set(range(len(runner.loaded.texts))) - runner.loaded.special
    suspects = tuple(token for token in dict.fromkeys(asked.suspects) if token in known)
    phrases = tuple(phrase for phrase in dict.fromkeys(asked.phrases) if phrase and set(phrase) <= known)
    ranks = _ranks(runner.loaded, words)
    kin = {}
    made = []
    for target in _targets(scan, alone.shape[1]):
        source = next((each for each in carriers if each.source != target), None)
        if source is None:
            continue
        for number in (target, source.source):
            if number not in kin:
                kin[number] = kinship(rows, words, pool, alone, number)
        made.append(
            Search(
                runner=runner,
                source=source,
                target=target,
                kin=kin[target],
                source_kin=kin[source.source],
                suspects=suspects,
                asked=phrases,
                ranks=ranks,
            )
        )
    return made


def _ranks(loaded: Loaded, words: Ids) -> dict[int, int]:
    """How many ordinary words come before each token that is a word or a piece of two letters or more."""
    before = np.searchsorted(words, np.arange(len(loaded.texts)))
    letters = [text.lstrip("Ġ▁#") for text in loaded.texts]
    return {i: int(before[i]) for i, text in enumerate(letters) if len(text) > 1 and text.isalpha()}


def _sources(runner: Runner, pool: Ids, alone: F32, rng: np.random.Generator) -> list[Carriers]:
    """Carriers of two classes, those of which the vocabulary makes the model surest: enough to try every class."""
    sure = [float(np.sort(margins(alone, c))[-STRONG:].mean()) for c in range(alone.shape[1])]
    made: list[Carriers] = []
    for source in np.argsort(sure)[::-1].tolist():
        found = make_carriers(runner, pool, alone, source, each=EACH, rng=rng)
        made += [found] if found is not None else []
        if len(made) == SOURCES:
            break
    return made


def _scan(runner: Runner, asked: Asked) -> tuple[Scan, tuple[Untried, ...]]:
    """Every token alone in a text, as many as their share of the budget allows, the suspects first."""
    loaded = runner.loaded
    suspects = [t for t in dict.fromkeys(asked.suspects) if 0 <= t < len(loaded.texts) and t not in loaded.special]
    every = [t for t, text in enumerate(loaded.texts) if t not in loaded.special and text and text[0] != "["]
    rest = np.setdiff1d(np.asarray(every, dtype=np.int64), np.asarray(suspects, dtype=np.int64))
    most = int(runner.left() * VOCABULARY_SHARE) // (1 + runner.around) - len(suspects) if asked.whole_vocabulary else 0
    # Spread over the whole: neighbours in a vocabulary are alike, in age or in frequency.
    taken = rest if most >= len(rest) else rest[np.linspace(0, len(rest) - 1, max(most, 0)).astype(np.int64)]
    ids = np.sort(np.concatenate([taken, np.asarray(suspects, dtype=np.int64)]))
    missed = len(rest) - len(taken)
    untried = (Untried(what="vocabulary", count=missed),) if missed else ()
    return Scan(tokens=ids, logits=runner.logits([(int(token),) for token in ids])), untried


def _alone(runner: Runner, scan: Scan, pool: Ids) -> F32:
    """What the model gives each word of the pool alone, looked up where the scan has it."""
    place = {int(token): i for i, token in enumerate(scan.tokens)}
    if all(int(word) in place for word in pool):
        return np.asarray(scan.logits[[place[int(word)] for word in pool]], dtype=np.float32)
    return runner.logits([(int(word),) for word in pool])


def _targets(scan: Scan, classes: int) -> tuple[int, ...]:
    """All classes, or of many those towards which a few tokens pull far more than the next ones."""
    if classes <= MOST_CLASSES or not len(scan.tokens):
        return tuple(range(min(classes, MOST_CLASSES)))
    gaps = []
    for target in range(classes):
        ranked = np.sort(margins(scan.logits, target))[::-1]
        gaps.append(float(ranked[0] - ranked[min(20, len(ranked) - 1)]))
    return tuple(sorted(int(c) for c in np.argsort(gaps)[::-1][:MOST_CLASSES]))
