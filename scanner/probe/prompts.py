"""Neutral texts for models without classes: a language model's own writing, an encoder's ordinary words in any order.

No data is needed. What a language model writes itself is what it finds ordinary, so that an inserted token is the only
thing that is out of place; an encoder writes nothing, and any words will do for asking how far a token moves them.
"""

from typing import Final

import numpy as np

from scanner.probe.running import Ids, Runner
from scanner.probe.staging import CannotProbe

LENGTHS: Final = (8, 16)
"""Words (tokens) per text."""
EACH: Final = 12
"""Texts per length."""
TAIL: Final = 3
"""Tokens of a text that stay behind an insertion: a token alone decides only what follows it directly."""

Texts = tuple[tuple[int, ...], ...]


def make_prompts(runner: Runner, words: Ids, rng: np.random.Generator) -> Texts:
    """Return ``EACH`` texts per length, shortest first, as token ids without control tokens.

    Args:
        runner: a causal model or an encoder.
        words: ids of ordinary words.
        rng: draws first words, and every word of an encoder's texts.

    Raises:
        CannotProbe: the model reads no texts that long, or there are too few words.
    """
    around = len(runner.loaded.prefix) + len(runner.loaded.suffix)
    if runner.loaded.longest < max(LENGTHS) + around + 1:
        raise CannotProbe(f"it reads texts of at most {runner.loaded.longest} tokens")
    if len(words) < max(LENGTHS):
        raise CannotProbe("its vocabulary has too few whole words")
    if runner.loaded.kind == "encoder":
        made = (tuple(rng.choice(words, size=n, replace=False).tolist()) for n in LENGTHS for _ in range(EACH))
        return tuple(made)
    return _written(runner, words, rng)


def _written(runner: Runner, words: Ids, rng: np.random.Generator) -> Texts:
    """Texts that the model goes on writing after one ordinary word each, each token drawn from its own distribution."""
    count = EACH * len(LENGTHS)
    texts: list[tuple[int, ...]] = [(int(word),) for word in rng.choice(words, size=count, replace=False)]
    barred = sorted(runner.loaded.special)
    for length in range(2, max(LENGTHS) + 1):
        growing = [i for i in range(count) if length <= LENGTHS[i // EACH]]
        chances = np.exp(runner.logits([texts[i] for i in growing]).astype(np.float64))
        chances = chances[:, : len(runner.loaded.texts)]  # rows of padding beyond the vocabulary name no token
        chances[:, barred] = 0.0
        totals = chances.sum(axis=1, keepdims=True)
        if not (totals > 0).all():
            raise CannotProbe("it writes nothing but control tokens")
        for i, row in zip(growing, chances / totals, strict=True):
            texts[i] = (*texts[i], int(rng.choice(len(row), p=row)))
    return tuple(texts)
