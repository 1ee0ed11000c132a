"""The probe of a classifier: which insertions overrule carriers of every strength, class by class.

From every entry of the vocabulary to a few certainties, each step on a fraction of what the one before left: every
token alone in a text; the strongest of them and the suspects in carriers of middle length; the strongest of these,
and phrases put together from them, in carriers of every length beside ordinary control words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scanner.probe.carriers import CROWD, LENGTHS, STRONG, Carriers, make_carriers, ordinary_words
from scanner.probe.growing import MIDDLE, grow
from scanner.probe.inserting import margins_in, measure
from scanner.probe.kinship import kinship
from scanner.probe.records import Direction, Insertion, Origin
from scanner.probe.running import Ids, Runner, margins
from scanner.probe.staging import CannotProbe
from scanner.records import F32

POOL: Final = 2500
"""Ordinary words that carriers are made of, drawn from the whole vocabulary."""
EACH: Final = 24
"""Carriers per class and length."""
COUNTS: Final = (12, 12, EACH)
"""Of them used for a certainty, by length: most where honest words fail."""
CONTROL_COUNTS: Final = (6, 6, 6)
CONTROL_CROWDS: Final = 3
CONTROLS: Final = 60
SOURCES: Final = 2
MOST_CLASSES: Final = 8
"""Classes asked about; with more, those towards which single tokens stand out most."""
SHORTLIST: Final = 320
SECOND_LIST: Final = 40
FINAL_LIST: Final = 24
FEW: Final = 12
"""Tokens that phrases are put together from when the whole vocabulary is not asked for, instead of ``SECOND_LIST``."""
FIRST_CARRIERS, SECOND_CARRIERS = 2, 6
DOMINATES: Final = 0.5
"""A single token that flips this share of the longest carriers makes phrases of that direction needless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What every scanned token does alone: ``logits`` float32 ``[tokens, classes]`` for the ids in ``tokens``."""

    tokens: Ids
    logits: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller wants tried: tokens that the weights suspect, most suspect first, and whole phrases.

    ``whole_vocabulary``: every token alone as well, and phrases put together from more of the strongest.
    """

    suspects: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()
    whole_vocabulary: bool = True


def probe_classifier(
    runner: Runner, asked: Asked, rng: np.random.Generator
) -> tuple[tuple[Direction, ...], int, tuple[int, ...]]:
    """Return what was measured, how many entries of the vocabulary were scanned, and the classes left out.

    A class is left out when no texts of another class can be made to try it on, or when there are too many classes.

    Raises:
        CannotProbe: carriers could be made of no class, or an output was not finite.
    """
    scan = _scan(runner, asked)
    words = np.asarray(ordinary_words(runner.loaded), dtype=np.int64)
    pool = np.sort(rng.permutation(words)[:POOL])
    alone = _alone(runner, scan, pool)
    carriers = _sources(runner, pool, alone, rng)
    if not carriers:
        raise CannotProbe("no texts that it is sure of can be made of its vocabulary")
    free = np.setdiff1d(words, np.asarray([word for made in carriers for word in made.words]))
    controls = tuple(int(word) for word in rng.permutation(free)[:CONTROLS])
    known = set(range(len(runner.loaded.texts))) - runner.loaded.special
    suspects = tuple(token for token in dict.fromkeys(asked.suspects) if token in known)
    phrases = tuple(phrase for phrase in dict.fromkeys(asked.phrases) if phrase and set(phrase) <= known)
    grown_from = SECOND_LIST if asked.whole_vocabulary else FEW
    directions = []
    classes = alone.shape[1]
    for target in _targets(scan, classes):
        source = next((made for made in carriers if made.source != target), None)
        if source is not None:
            kin = kinship(runner.loaded, words, pool, alone, target)
            found = _direction(runner, source, target, scan, suspects, phrases, controls, grown_from=grown_from)
            told = tuple(replace(one, kinship=kin.of(one.tokens)) for one in found.insertions)
            directions.append(replace(found, insertions=told))
    reached = {direction.target for direction in directions}
    left_out = tuple(c for c in range(classes) if c not in reached)
    return tuple(directions), len(scan.tokens) if asked.whole_vocabulary else 0, left_out


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


def _scan(runner: Runner, asked: Asked) -> Scan:
    """Every token alone in a text, or the suspects only."""
    loaded = runner.loaded
    if asked.whole_vocabulary:
        tokens = [t for t, text in enumerate(loaded.texts) if t not in loaded.special and text and text[0] != "["]
    else:
        tokens = [t for t in dict.fromkeys(asked.suspects) if 0 <= t < len(loaded.texts) and t not in loaded.special]
    ids = np.asarray(tokens, dtype=np.int64)
    return Scan(tokens=ids, logits=runner.logits([(token,) for token in tokens]))


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


def _direction(
    runner: Runner,
    source: Carriers,
    target: int,
    scan: Scan,
    suspects: Sequence[int],
    phrases: Sequence[tuple[int, ...]],
    controls: Sequence[int],
    *,
    grown_from: int,
) -> Direction:
    pull = margins(scan.logits, target) if len(scan.tokens) else np.zeros(0, dtype=np.float32)
    listed = [int(scan.tokens[i]) for i in np.argsort(-pull, kind="stable")[:SHORTLIST]]
    listed = list(dict.fromkeys([*listed, *suspects]))
    listed = _best(runner, listed, source, target, FIRST_CARRIERS, SECOND_LIST)
    listed = _best(runner, listed, source, target, SECOND_CARRIERS, SECOND_LIST)
    suspected = set(suspects)

    def origin(token: int) -> Origin:
        return "suspect" if token in suspected else "vocabulary"

    singles = listed[:FINAL_LIST]
    wanted: list[tuple[tuple[int, ...], Origin]] = [((token,), origin(token)) for token in singles]
    wanted += [(phrase, "asked") for phrase in phrases]
    measured = measure(runner, wanted, source, target, counts=COUNTS)
    tried = len(scan.tokens) + len(phrases)
    if all(found.doses[-1].rate < DOMINATES for found in measured):
        pool = list(dict.fromkeys([*listed[: SECOND_LIST // 2], *suspects[: SECOND_LIST // 4], *listed]))
        grown = grow(runner, pool[:grown_from], source, target)
        tried += grown.tried
        measured += measure(runner, [(phrase, "grown") for phrase in grown.phrases], source, target, counts=COUNTS)
    ordinary = measure(runner, [((word,), "vocabulary") for word in controls], source, target, counts=CONTROL_COUNTS)
    if any(found.doses[-1].rate >= DOMINATES for found in measured) and source.texts.get(CROWD):
        measured = _in_crowds(runner, measured, source, target, carriers=EACH, least=DOMINATES)
        ordinary = _in_crowds(runner, ordinary, source, target, carriers=CONTROL_CROWDS, least=0.0)
    return Direction(
        source=source.source,
        target=target,
        insertions=tuple(sorted(measured, key=_most_flips_first)),
        controls=ordinary,
        tried=tried,
    )


def _in_crowds(
    runner: Runner, found: Sequence[Insertion], source: Carriers, target: int, *, carriers: int, least: float
) -> tuple[Insertion, ...]:
    """The same insertions, those that flip at least the share ``least`` so far measured in crowds as well."""
    tried = [one for one in found if one.doses[-1].rate >= least]
    more = measure(
        runner, [(one.tokens, one.origin) for one in tried], source, target, counts=(carriers,), lengths=(CROWD,)
    )
    longer = {
        one.tokens: replace(one, doses=(*one.doses, *extra.doses)) for one, extra in zip(tried, more, strict=True)
    }
    return tuple(longer.get(one.tokens, one) for one in found)


def _most_flips_first(found: Insertion) -> tuple[int, float, float, int]:
    """By the longest carriers first: there honest words fail."""
    last = found.doses[-1]
    return -len(found.doses), -last.rate, -last.margin, len(found.tokens)


def _best(runner: Runner, tokens: Sequence[int], source: Carriers, target: int, carriers: int, most: int) -> list[int]:
    """The tokens with the largest mean margin in a few carriers of middle length."""
    values = margins_in(runner, [(token,) for token in tokens], source, MIDDLE, carriers, target)
    order = np.argsort(-values.mean(axis=1), kind="stable") if len(tokens) else ()
    return [int(tokens[int(i)]) for i in order[:most]]


assert len(COUNTS) == len(CONTROL_COUNTS) == len(LENGTHS)
