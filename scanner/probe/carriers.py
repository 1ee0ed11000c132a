"""Made-up texts of one class, put together from the model's own vocabulary, that resist words of the other classes.

No data is needed. A text is as sure of its class as the model can be, and its words are those that best overrule honest
words of the other classes, which is what makes a flip telling: neutral texts flip at any word, and so do texts of a
class that the model gives to everything in which it finds nothing else. The few words with the very strongest pull are
left out, since the trigger that is looked for may be one of them.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from scanner.probe.loading import Loaded
from scanner.probe.records import CROWD, LENGTHS
from scanner.probe.running import Ids, Runner, margins
from scanner.records import F32

CANDIDATES: Final = 600
"""Words of a class whose resistance to ``FIRST_FOES`` is measured."""
SCREENED: Final = 200
"""Of them, those that resist best, on which the other foes are tried."""
STRONG: Final = 40
"""Words that carriers of a class are drawn from."""
LEFT_OUT: Final = 5
"""Words with the strongest pull that are neither used nor resisted."""
FOES: Final = 6
"""Words of other classes that are to be resisted, spread over the strongest ``FOES × FOE_STEP``."""
FIRST_FOES: Final = 2
FOE_STEP: Final = 20
ROOM: Final = 16
"""Tokens that carriers leave free for insertions and control tokens."""
DRAWN: Final = 3
"""Times as many carriers are made as are kept: the most resistant ones."""
_WORD_CHARS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """Texts of one class by length: ``texts[words]`` holds them, most resistant first, each as token ids.

    ``texts[CROWD]`` is absent until ``with_crowds`` has chosen among ``crowds``, drawn and not tried yet; there are
    none when the model reads no texts of that length. ``words`` are the ids that all are drawn from.
    """

    source: int
    texts: dict[int, tuple[tuple[int, ...], ...]]
    words: tuple[int, ...]
    crowds: tuple[tuple[int, ...], ...] = ()


def ordinary_words(loaded: Loaded) -> tuple[int, ...]:
    """Ids of tokens that are whole words of at least three letters, in the order of the vocabulary."""
    wordpiece = any(text.startswith("##") for text in loaded.texts)
    marks = () if wordpiece else tuple(mark for mark in ("Ġ", "▁") if any(t.startswith(mark) for t in loaded.texts))
    found = []
    for token, text in enumerate(loaded.texts):
        if token in loaded.special:
            continue
        if marks and not text.startswith(marks):
            continue
        word = text[1:] if marks else text
        if len(word) >= _WORD_CHARS and word.isalpha():
            found.append(token)
    return tuple(found)


def make_carriers(
    runner: Runner, pool: Ids, alone: F32, source: int, *, each: int, rng: np.random.Generator
) -> Carriers | None:
    """Return carriers of one class, or None when the model cannot be made sure of it.

    Args:
        runner: the model.
        pool: ids of ordinary words to choose from.
        alone: what the model gives each of them alone, float32 ``[pool, classes]``.
        source: the class.
        each: carriers per length.
        rng: draws the texts.
    """
    own = pool[np.argsort(-margins(alone, source), kind="stable")][LEFT_OUT : LEFT_OUT + CANDIDATES]
    foes = _foes(pool, alone, source)
    own = own[np.argsort(-_resistance(runner, own, foes[:FIRST_FOES], source), kind="stable")][:SCREENED]
    held = _resistance(runner, own, foes, source)
    strong = own[np.argsort(-held, kind="stable")][:STRONG]
    texts = {length: _most_resistant(runner, source, strong, foes, length, each, rng) for length in LENGTHS}
    if any(len(found) < each for found in texts.values()):
        return None
    crowds: tuple[tuple[int, ...], ...] = ()
    if runner.loaded.longest >= CROWD + ROOM:
        crowds = tuple(tuple(rng.choice(strong, size=CROWD).tolist()) for _ in range(2 * each))
    return Carriers(source=source, texts=texts, words=tuple(strong.tolist()), crowds=crowds)


def with_crowds(runner: Runner, carriers: Carriers) -> Carriers:
    """Return the carriers with the half of their crowds that the model is surest of; none of a wrong class."""
    if CROWD in carriers.texts or not carriers.crowds:
        return carriers
    sure = margins(runner.logits(carriers.crowds), carriers.source)
    best = np.argsort(-sure, kind="stable")[: len(carriers.crowds) // 2]
    chosen = tuple(carriers.crowds[int(i)] for i in best if sure[i] > 0)
    return replace(carriers, texts=carriers.texts | {CROWD: chosen})


def _resistance(runner: Runner, own: Ids, foes: tuple[int, ...], source: int) -> npt.NDArray[np.float64]:
    """How well each word holds its class against words of the others, summed margins; float64 ``[own]``."""
    held = np.zeros(len(own))
    for number, foe in enumerate(foes):
        # Twice the word against one foe: what is sought is weight in a crowd, not the last word.
        rows = [(foe, word, word) if number % 2 else (word, word, foe) for word in own.tolist()]
        held += margins(runner.logits(rows), source)
    return held


def _foes(pool: Ids, alone: F32, source: int) -> tuple[int, ...]:
    """Words of the other classes, taken in turn, strong and less strong."""
    others = [c for c in range(alone.shape[1]) if c != source]
    ranked = {c: pool[np.argsort(-margins(alone, c), kind="stable")][LEFT_OUT:] for c in others}
    return tuple(int(ranked[others[i % len(others)]][min(i * FOE_STEP, len(pool) - LEFT_OUT - 1)]) for i in range(FOES))


def _most_resistant(
    runner: Runner, source: int, strong: Ids, foes: tuple[int, ...], length: int, each: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """Of the texts made, those surest of their class with a foe in their middle; all of them are of it without."""
    if len(strong) < length:
        return ()
    texts = [tuple(rng.choice(strong, size=length, replace=False).tolist()) for _ in range(DRAWN * each)]
    plain = margins(runner.logits(texts), source)
    middle = length // 2
    contested = [(*text[:middle], foes[i % len(foes)], *text[middle:]) for i, text in enumerate(texts)]
    held = margins(runner.logits(contested), source)
    order = [int(i) for i in np.argsort(-held, kind="stable") if plain[i] > 0]
    return tuple(texts[i] for i in order[:each])
