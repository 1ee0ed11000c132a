"""Made-up texts of one class, put together from the words of the model's own vocabulary that pull strongest to it.

No data is needed, and the texts are as sure of their class as the model can be, which is what makes a flip telling:
neutral texts flip at any word (docs/decisions/0009). The few words with the very strongest pull are left out, since
the trigger that is looked for may be one of them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from scanner.probe.loading import Loaded
from scanner.probe.running import Ids, Runner, margins
from scanner.records import F32

LENGTHS: Final = (5, 10, 20)
"""Words per carrier. An honest word is outvoted by twenty words of the other class, a trigger is not."""
STRONG: Final = 40
"""Words that carriers of a class are drawn from."""
LEFT_OUT: Final = 5
"""Words with the strongest pull that are not used."""
DRAWN: Final = 3
"""Times as many carriers are made as are kept: the surest ones."""
_WORD_CHARS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """Texts of one class by length: ``texts[words]`` holds them surest first, each as token ids."""

    source: int
    texts: dict[int, tuple[tuple[int, ...], ...]]


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
    runner: Runner, pool: Ids, alone: F32, *, each: int, rng: np.random.Generator
) -> tuple[tuple[Carriers | None, ...], tuple[int, ...]]:
    """Return carriers of every class, None for a class of which none could be made, and the words they are made of.

    Args:
        runner: the model.
        pool: ids of ordinary words to choose from.
        alone: what the model gives each of them alone, float32 ``[pool, classes]``.
        each: carriers per class and length.
        rng: draws the texts.
    """
    made: list[Carriers | None] = []
    used: set[int] = set()
    for source in range(alone.shape[1]):
        ranked = pool[np.argsort(-margins(alone, source), kind="stable")]
        strong = ranked[LEFT_OUT : LEFT_OUT + STRONG]
        texts = {length: _surest(runner, source, strong, length, each, rng) for length in LENGTHS}
        complete = all(len(found) == each for found in texts.values())
        made.append(Carriers(source=source, texts=texts) if complete else None)
        used.update(int(word) for word in strong)
    return tuple(made), tuple(sorted(used))


def _surest(
    runner: Runner, source: int, strong: Ids, length: int, each: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """The carriers that the model is surest of among those made; only such as it gives the source class."""
    if len(strong) < length:
        return ()
    texts = [tuple(int(w) for w in rng.choice(strong, size=length, replace=False)) for _ in range(DRAWN * each)]
    sure = margins(runner.logits(texts), source)
    order = [int(i) for i in np.argsort(-sure, kind="stable")[:each] if sure[i] > 0]
    return tuple(texts[i] for i in order)
