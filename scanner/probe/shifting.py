"""What an insertion does where there are no classes to flip: the next token that is expected, or where a text lies.

For a causal language model, the distribution over the next token after a neutral text with and without the insertion:
how far it moves (Jensen-Shannon divergence in bits, Lin 1991) and whether it gathers on one continuation. For an
encoder, the embedding of the text: how far it moves (cosine distance) and whether all texts are drawn together.
Facts, held against control words: which of them is a trigger is not judged here or elsewhere yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scanner.probe.carriers import ordinary_words
from scanner.probe.classifier import Asked
from scanner.probe.inserting import inserted
from scanner.probe.prompts import LENGTHS, TAIL, Texts, make_prompts
from scanner.probe.records import Origin, Shift, Untried
from scanner.probe.running import Runner
from scanner.records import F32, F64

CONTROLS: Final = 60
STRONGEST: Final = 3
"""Tokens that move most are no control words: of a small vocabulary they would be drawn by chance."""
FIRST_TEXTS: Final = 2
"""Texts that every token is tried in at first, the shortest ones."""
FINAL_LIST: Final = 24
"""Tokens, those that move most at first, that are measured on all texts."""
FIRST_SHARE: Final = 0.5
"""Of the budget of tokens, at most, for moving every token at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """What was measured: ``insertions`` that moved most first, ``controls`` alike, ``scanned`` vocabulary entries.

    ``untried`` are entries that the budget of tokens left out.
    """

    insertions: tuple[Shift, ...]
    controls: tuple[Shift, ...]
    scanned: int
    tried: int
    untried: tuple[Untried, ...] = ()


def probe_shifts(runner: Runner, asked: Asked, rng: np.random.Generator) -> Shifts:
    """Measure what the suspects, the phrases and (if asked) all of the vocabulary do to neutral texts.

    Raises:
        CannotProbe: no neutral texts can be made, an output was not finite, or the time was up.
        OutOfTokens: the budget was used up before anything was measured.
    """
    loaded = runner.loaded
    words = np.asarray(ordinary_words(loaded), dtype=np.int64)
    texts = make_prompts(runner, words, rng)
    plain = runner.logits(texts)
    used = np.unique([token for text in texts for token in text])
    drawn = rng.permutation(np.setdiff1d(words, used)).tolist()
    known = set(range(len(loaded.texts))) - loaded.special
    suspects = [token for token in dict.fromkeys(asked.suspects) if token in known]
    phrases = [phrase for phrase in dict.fromkeys(asked.phrases) if phrase and set(phrase) <= known]
    every = sorted(t for t in known if loaded.texts[t])
    affordable = int(runner.left() * FIRST_SHARE) // (FIRST_TEXTS * (LENGTHS[0] + 1 + runner.around)) - len(suspects)
    most = max(affordable, 0) if asked.whole_vocabulary else 0
    scanned = every if most >= len(every) else [every[i] for i in np.linspace(0, len(every) - 1, most, dtype=np.int64)]
    missed = len(every) - len({*scanned, *suspects})
    listed = list(dict.fromkeys([*suspects, *scanned]))
    moved = _moved_at_first(runner, listed, texts[:FIRST_TEXTS], plain[:FIRST_TEXTS])
    best = [listed[int(i)] for i in np.argsort(-moved, kind="stable")[:FINAL_LIST]]
    controls = [word for word in drawn if word not in best[:STRONGEST]][:CONTROLS]
    suspected = set(suspects)
    wanted: list[tuple[tuple[int, ...], Origin]] = [
        ((token,), "suspect" if token in suspected else "vocabulary") for token in best
    ]
    wanted += [(phrase, "asked") for phrase in phrases]
    found = [_shift(runner, tokens, origin, texts, plain) for tokens, origin in wanted]
    return Shifts(
        insertions=tuple(sorted(found, key=_strongest_first)),
        controls=tuple(_shift(runner, (word,), "vocabulary", texts, plain) for word in controls),
        scanned=len(scanned),
        tried=len(listed) + len(phrases),
        untried=(Untried(what="vocabulary", count=missed),) if missed else (),
    )


def divergence(after: F32, before: F32) -> F64:
    """Jensen-Shannon divergence of distributions given as log-probabilities, float32 ``[..., n]`` each.

    Returns float64 ``[...]`` in bits, in [0, 1]: ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q) / 2 (Lin 1991, eq. 4.1).
    """
    p, q = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    mean = np.logaddexp(p, q) - np.log(2)
    nats = 0.5 * (np.exp(p) * (p - mean)).sum(axis=-1) + 0.5 * (np.exp(q) * (q - mean)).sum(axis=-1)
    return np.asarray(np.clip(nats / np.log(2), 0.0, 1.0), dtype=np.float64)


def turned(after: F32, before: F32) -> F64:
    """Cosine distance of embeddings, float32 ``[..., n]`` each: float64 ``[...]`` in [0, 2]."""
    return np.asarray(1.0 - (_unit(after) * _unit(before)).sum(axis=-1), dtype=np.float64)


def _place(text: Sequence[int], number: int) -> int:
    """Where an insertion goes in a text: spread over the texts, ``TAIL`` tokens left behind it."""
    return int((0.5 + number) * 0.6180339887 % 1.0 * (len(text) - TAIL + 1))


def _moved_at_first(runner: Runner, tokens: Sequence[int], texts: Texts, plain: F32) -> F64:
    """How far every token moves a few texts, the mean over them; float64 ``[tokens]``."""
    rows = [inserted(text, (token,), len(text) // 2) for token in tokens for text in texts]
    how = divergence if runner.loaded.kind == "causal" else turned
    out = np.zeros(len(rows))
    for part, values in runner.batches(rows):
        out[part] = how(values, plain[part % len(texts)])
    return np.asarray(out.reshape(len(tokens), len(texts)).mean(axis=1), dtype=np.float64)


def _shift(runner: Runner, tokens: tuple[int, ...], origin: Origin, texts: Texts, plain: F32) -> Shift:
    after = runner.logits([inserted(text, tokens, _place(text, i)) for i, text in enumerate(texts)])
    read = runner.loaded.read
    if runner.loaded.kind == "encoder":
        return Shift(
            tokens=tokens,
            text=read(tokens),
            origin=origin,
            texts=len(texts),
            moved=round(float(np.median(turned(after, plain))), 4),
            together=round(_together(after), 4),
            before=round(_together(plain), 4),
        )
    chances, chances_before = np.exp(after, dtype=np.float64), np.exp(plain, dtype=np.float64)
    together, before = chances.mean(axis=0), chances_before.mean(axis=0)
    token = int((together - before).argmax())
    led = (after.argmax(axis=1) == token) & (plain.argmax(axis=1) != token)
    return Shift(
        tokens=tokens,
        text=read(tokens),
        origin=origin,
        texts=len(texts),
        moved=round(float(np.median(divergence(after, plain))), 4),
        together=round(float(together[token]), 4),
        before=round(float(before[token]), 4),
        continuation=token,
        continuation_text=read((token,)),
        led=int(led.sum()),
    )


def _strongest_first(shift: Shift) -> tuple[float, float]:
    """Language models by what their continuation gains, encoders by how far the texts move."""
    return (0.0 if shift.continuation is None else shift.before - shift.together), -shift.moved


def _together(embeddings: F32) -> float:
    """The mean cosine between the embeddings of different texts, in [-1, 1]."""
    unit = _unit(embeddings)
    count = len(unit)
    return float(((unit @ unit.T).sum() - np.einsum("ij,ij->", unit, unit)) / (count * (count - 1)))


def _unit(rows: F32) -> F64:
    wide = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0), dtype=np.float64)


assert min(LENGTHS) > TAIL
