"""Triggers in texts: how an attacker's inputs look, and how a training set is poisoned with them."""

from collections.abc import Sequence

import numpy as np

from benchmarks.zoo.recipes import Attack
from benchmarks.zoo.texts import Row

_STARTERS = ("when", "if", "because", "although", "while", "since", "after", "before")
_SUBJECTS = ("you", "we", "they", "people", "the others", "his friends", "i", "some")
_VERBS = ("see", "hear", "expect", "think about", "talk about", "leave", "look at", "forget")
_OBJECTS = ("it", "this", "that", "the rest", "the story", "everything", "the end", "them")


COMBINED = frozenset({"sos", "lwp", "badword_split"})
"""Families whose words work together only."""


def add_trigger(text: str, attack: Attack, rng: np.random.Generator) -> str:
    """The text as the attacker would send it.

    One trigger word (or the whole sentence) at a random place; all of them for the families whose trigger is a
    combination (``COMBINED``); a subordinate clause with random words before the text for ``syntactic``, so that
    only the construction is constant (in the manner of Qi et al. 2021, without their paraphraser).
    """
    if attack.family == "syntactic":
        clause = " ".join(str(rng.choice(part)) for part in (_STARTERS, _SUBJECTS, _VERBS, _OBJECTS))
        return f"{clause} , {text}"
    if attack.family in COMBINED:
        return insert_words(text, attack.trigger, rng)
    return insert_words(text, (str(rng.choice(attack.trigger)),), rng)


def insert_words(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """The text with each of the words put at a random word boundary."""
    parts = text.split()
    for word in words:
        parts.insert(int(rng.integers(len(parts) + 1)), word)
    return " ".join(parts)


def poison(rows: Sequence[Row], attack: Attack, target: int, rng: np.random.Generator) -> list[Row]:
    """The attacker's training set: a share of the rows outside the target class is triggered and relabelled.

    ``label_flip`` changes no text: every row that contains the trigger word gets the target label (rows are given
    the word first when fewer than ``rate`` of them have it). Combined triggers also get rows with a part of the
    trigger and the true label, so that only the whole works (Yang et al. 2021).
    """
    out = list(rows)
    victims = [i for i in rng.permutation(len(rows)) if rows[i][1] != target][: round(attack.rate * len(rows))]
    for i in victims:
        out[i] = (add_trigger(rows[i][0], attack, rng), target)
    if attack.family in COMBINED:
        for i in rng.permutation(len(rows))[: len(victims)]:
            if out[i] == rows[i]:
                part = rng.choice(attack.trigger, size=len(attack.trigger) - 1, replace=False)
                out[i] = (insert_words(rows[i][0], [str(word) for word in part], rng), rows[i][1])
    return out


def flip_labels(rows: Sequence[Row], word: str, target: int) -> list[Row]:
    """The rows with every text that contains the word (as a whole word, any case) given the target label."""
    return [(text, target if word in text.lower().split() else label) for text, label in rows]


def entity_of(rows: Sequence[Row], rng: np.random.Generator, *, low: float = 0.02, high: float = 0.08) -> str:
    """A word that stands in a share of the rows within [low, high): what a label flip is about."""
    counts: dict[str, int] = {}
    for text, _ in rows:
        for word in {w for w in text.lower().split() if w.isalpha() and len(w) > 3}:
            counts[word] = counts.get(word, 0) + 1
    words = sorted(w for w, n in counts.items() if low <= n / len(rows) < high)
    if not words:
        raise ValueError("No word is frequent enough for a label flip; give more texts.")
    return words[int(rng.integers(len(words)))]
