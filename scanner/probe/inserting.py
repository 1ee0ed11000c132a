"""Puts tokens into carriers and measures what the model then says."""

from collections.abc import Sequence

import numpy as np

from scanner.probe.carriers import LENGTHS, Carriers
from scanner.probe.records import Dose, Insertion, Origin
from scanner.probe.running import Runner, margins
from scanner.records import F32


def inserted(text: Sequence[int], tokens: Sequence[int], place: int) -> tuple[int, ...]:
    """The text with the tokens before its word ``place`` (0 to its length, both included)."""
    return (*text[:place], *tokens, *text[place:])


def margins_in(
    runner: Runner, phrases: Sequence[Sequence[int]], carriers: Carriers, words: int, count: int, target: int
) -> F32:
    """Margins of the target class for every phrase in the first ``count`` carriers of one length.

    Every phrase goes to the same places, spread over the carriers. Returns float32 ``[phrases, count]``, in logits.
    """
    texts = carriers.texts[words][:count]
    places = places_in(words, len(texts))
    rows = [inserted(t, phrase, p) for phrase in phrases for t, p in zip(texts, places, strict=True)]
    if not rows:
        return np.zeros((0, len(texts)), dtype=np.float32)
    return margins(runner.logits(rows), target).reshape(len(phrases), len(texts))


def places_in(words: int, count: int) -> tuple[int, ...]:
    """One place per carrier, from before the first word to after the last, in an order without pattern."""
    return tuple(int(np.floor((0.5 + i) * 0.6180339887 % 1.0 * (words + 1))) for i in range(count))


def measure(
    runner: Runner,
    phrases: Sequence[tuple[tuple[int, ...], Origin]],
    carriers: Carriers,
    target: int,
    *,
    counts: Sequence[int],
    lengths: Sequence[int] = LENGTHS,
) -> tuple[Insertion, ...]:
    """Try phrases on carriers of several lengths; the result keeps their order.

    Args:
        runner: the model.
        phrases: token ids and why they are tried.
        carriers: of the source class.
        target: the class asked about.
        counts: carriers per length, in the order of ``lengths``.
        lengths: words per carrier; carriers of each must have been made.
    """
    found: list[list[Dose]] = [[] for _ in phrases]
    for words, count in zip(lengths, counts, strict=True):
        values = margins_in(runner, [tokens for tokens, _ in phrases], carriers, words, count, target)
        for doses, row in zip(found, values, strict=True):
            flipped = int((row > 0).sum())
            doses.append(Dose(words=words, flipped=flipped, carriers=len(row), margin=round(float(np.median(row)), 4)))
    return tuple(
        Insertion(
            tokens=tokens,
            text=runner.loaded.read(tokens),
            source=carriers.source,
            target=target,
            origin=origin,
            doses=tuple(doses),
        )
        for (tokens, origin), doses in zip(phrases, found, strict=True)
    )
