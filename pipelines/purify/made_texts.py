"""Texts without data: strings of words from the model's own vocabulary, and triggers put into texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelines.purify.subject import Subject, predict

_MARKS = ("Ġ", "▁")
"""How byte-level and sentencepiece vocabularies mark the beginning of a word."""


def vocabulary_words(tokenizer: Any, *, least_letters: int = 3) -> list[str]:
    """Whole words of the vocabulary, letters only, by id: where ids follow frequency, the common ones come first."""
    vocabulary = tokenizer.get_vocab()
    entries = sorted(vocabulary, key=lambda entry: (vocabulary[entry], entry))
    marked = any(entry.startswith(_MARKS) for entry in entries) and not any(e.startswith("##") for e in entries)
    if marked:
        entries = [entry[1:] for entry in entries if entry.startswith(_MARKS)]
    return [word for word in entries if len(word) >= least_letters and word.isascii() and word.isalpha()]


def made_texts(subject: Subject, count: int, *, seed: int, avoid: Sequence[str] = ()) -> tuple[list[str], torch.Tensor]:
    """Return ``count`` strings and what the model says of them: logits float32 ``[count, classes]``.

    Lengths are 4 to 20 words (both included), half of the strings with a comma, half with a full stop, and the common
    words may be of two letters: real texts are full of these, and what is tuned on strings without them does not hold
    there. Half of the words are drawn from those with the strongest pull to one
    class in "it was … .", so that the strings are sure of every class the vocabulary can express; the rest with weights
    1/(place + 100), common words before rare ones, as in running text.
    Four times as many are made as are kept, and those kept are as even over the predicted classes as they can be.

    Args:
        subject: A text classifier.
        count: How many.
        seed: Draws words and lengths.
        avoid: Words that must not occur, the triggers'.

    Raises:
        ValueError: the vocabulary has fewer than 20 whole words.
    """
    rng = np.random.default_rng(seed)
    banned = {part for text in avoid for part in text.lower().split()}
    words = [word for word in vocabulary_words(subject.encoder) if word.lower() not in banned]
    if len(words) < 20:
        raise ValueError("The vocabulary has too few whole words to make texts of; give clean samples.")
    short = [word for word in vocabulary_words(subject.encoder, least_letters=2) if word.lower() not in banned]
    # Drawn by hand: numpy's choice would turn the whole vocabulary into an array again for every string.
    heights = np.cumsum(1.0 / (np.arange(len(short)) + 100.0))
    pool = [words[i] for i in rng.permutation(len(words))[:600]]
    pulls = predict(subject, subject.encode([f"it was {word} ." for word in pool])).log_softmax(-1)
    classes = pulls.shape[1]
    strong = [[pool[i] for i in pulls[:, c].argsort(descending=True)[:60].tolist()] for c in range(classes)]
    texts = []
    for k in range(4 * count):
        length = int(rng.integers(4, 21))
        half = length // 2
        own = strong[k % classes]
        common = np.searchsorted(heights, rng.random(length - half) * heights[-1], side="right")
        chosen = [own[i] for i in rng.integers(len(own), size=half)] + [short[i] for i in common]
        text = [chosen[i] for i in rng.permutation(length)]
        if rng.random() < 0.5:
            text.insert(int(rng.integers(1, length)), ",")
        texts.append(" ".join([*text, "."] if rng.random() < 0.5 else text))
    logits = predict(subject, subject.encode(texts))
    said = logits.argmax(-1).tolist()
    kept = _even(said, classes, count)
    return [texts[i] for i in kept], logits[kept]


def with_triggers(text: str, triggers: Sequence[str], rng: np.random.Generator) -> str:
    """The text with one trigger, at times two or a part of one, at random word boundaries.

    Parts of a sentence are put in too (three times in ten), since what was confirmed may be more or less than what
    the attacker used.
    """
    words = text.split()
    for _ in range(1 if rng.random() < 0.7 or len(triggers) == 1 else 2):
        parts = str(rng.choice(triggers)).split()
        if len(parts) > 1 and rng.random() < 0.3:
            parts = [part for part in parts if rng.random() < 0.5] or parts
        place = int(rng.integers(len(words) + 1))
        words[place:place] = parts
    return " ".join(words)


def _even(said: Sequence[int], classes: int, count: int) -> list[int]:
    """``count`` places, taken from the classes in turn while they last."""
    by_class = [[i for i, label in enumerate(said) if label == c] for c in range(classes)]
    order = [places[k] for k in range(max(map(len, by_class), default=0)) for places in by_class if k < len(places)]
    return order[:count]
