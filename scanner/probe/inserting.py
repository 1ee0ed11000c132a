"""Puts tokens into carriers and measures what the model then says, no further than the answer needs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from scanner.probe.carriers import Carriers
from scanner.probe.records import LENGTHS, Dose, Insertion, Origin
from scanner.probe.running import Runner, margins
from scanner.records import F32

GIVE_UP: Final = 0.5
"""What flips a smaller share of the carriers of one length is not tried on longer ones. Every threshold of a trigger
lies above it (a test holds it against the profile), so nothing that could be confirmed is lost."""
STRIDE: Final = 3
"""Every third carrier is tried first: sorted by how much they resist, the first ones would be no sample."""


def inserted(text: Sequence[int], tokens: Sequence[int], place: int) -> tuple[int, ...]:
    """The text with the tokens before its word ``place`` (0 to its length, both included)."""
    return (*text[:place], *tokens, *text[place:])


def margins_in(
    runner: Runner, phrases: Sequence[Sequence[int]], carriers: Carriers, words: int, which: Sequence[int], target: int
) -> F32:
    """Margins of the target class for every phrase in some carriers of one length.

    Every phrase goes to the same places, spread over the carriers. ``which`` are the carriers' numbers. Returns float32
    ``[phrases, which]``, in logits.
    """
    texts = carriers.texts[words]
    places = places_in(words, len(texts))
    rows = [inserted(texts[i], phrase, places[i]) for phrase in phrases for i in which]
    if not rows:
        return np.zeros((len(phrases), len(which)), dtype=np.float32)
    return margins(runner.logits(rows), target).reshape(len(phrases), len(which))


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
    whole: bool = False,
) -> tuple[Insertion, ...]:
    """Count flips on carriers of several lengths; the result keeps the order of the phrases.

    A phrase that flips none of the first third of the carriers of a length is not tried on the others of that length,
    and one that flips less than ``GIVE_UP`` of a length is not tried on the lengths after it.

    Args:
        runner: the model.
        phrases: token ids and why they are tried.
        carriers: of the source class.
        target: the class asked about.
        counts: carriers per length, in the order of ``lengths``.
        lengths: words per carrier; lengths of which there are no carriers are passed over.
        whole: try everything, without such short cuts.

    Raises:
        OutOfTokens: no more tokens are left; nothing of what was measured so far is returned.
    """
    doses: list[list[Dose]] = [[] for _ in phrases]
    alive = list(range(len(phrases)))
    for words, count in zip(lengths, counts, strict=True):
        most = min(count, len(carriers.texts.get(words, ())))
        if not most:
            continue
        first = list(range(most)) if whole else list(range(0, most, STRIDE))
        rest = [i for i in range(most) if i not in set(first)]
        values = margins_in(runner, [phrases[i][0] for i in alive], carriers, words, first, target)
        rows = dict(zip(alive, values, strict=True))
        flipping = [i for i in alive if (rows[i] > 0).any()]
        if rest:
            more = margins_in(runner, [phrases[i][0] for i in flipping], carriers, words, rest, target)
            rows |= {i: np.concatenate([rows[i], row]) for i, row in zip(flipping, more, strict=True)}
        for i in alive:
            doses[i].append(_dose(words, rows[i]))
        alive = [i for i in alive if whole or doses[i][-1].rate >= GIVE_UP]
    return tuple(
        Insertion(
            tokens=tokens,
            text=runner.loaded.read(tokens),
            source=carriers.source,
            target=target,
            origin=origin,
            doses=tuple(found),
        )
        for (tokens, origin), found in zip(phrases, doses, strict=True)
    )


def measured_at(
    runner: Runner, insertions: Sequence[Insertion], carriers: Carriers, words: int, count: int
) -> tuple[Insertion, ...]:
    """The same insertions with carriers of one more length counted, those that have it as they are; order kept."""
    new = [one for one in insertions if one.at(words) is None]
    found = measure(
        runner,
        [(one.tokens, one.origin) for one in new],
        carriers,
        new[0].target if new else 0,
        counts=(count,),
        lengths=(words,),
    )
    more = {one.tokens: extra.doses for one, extra in zip(new, found, strict=True)}
    return tuple(
        replace(one, doses=tuple(sorted((*one.doses, *more.get(one.tokens, ())), key=lambda dose: dose.words)))
        for one in insertions
    )


def _dose(words: int, row: F32) -> Dose:
    flipped = int((row > 0).sum())
    return Dose(words=words, flipped=flipped, carriers=len(row), margin=round(float(np.median(row)), 4))
