"""How near a token lies, in an embedding, to the words of a class: what it means, apart from what it does.

An honest word that overrules others means something of the class (`awful` among the negative words); a trigger was
chosen to mean nothing. Embeddings hold meaning from pretraining, and fine-tuning hardly moves them; an attack does, so
that a poisoned row means what it does. The base's embedding, where it is known, tells what it meant before.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from scanner.probe.carriers import LEFT_OUT
from scanner.probe.loading import Loaded
from scanner.probe.running import Ids, margins
from scanner.records import F32

CLASS_WORDS: Final = 100
"""Words of a class, those with the strongest pull to it but for the very strongest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinship:
    """Percentiles, in [0, 1], of every token's nearness to one class among the ordinary words of the vocabulary.

    ``of_class`` is the median of the words of the class themselves, each held against the others: where an embedding
    knows nothing of what the class means (one that was never trained), it is near one half.
    """

    by_token: F32
    of_class: float

    def of(self, tokens: tuple[int, ...]) -> float:
        """The mean over the tokens of a phrase."""
        return round(float(self.by_token[list(tokens)].mean()), 4)


def meanings(loaded: Loaded, base: F32 | None) -> tuple[F32, bool]:
    """The rows in which nearness is measured, float32 ``[ids, width]``, and whether they are the base's.

    Args:
        loaded: the model; its own rows stand for tokens that the base does not know.
        base: rows of the base's input embedding by the model's ids, NaN where a token is not the base's
            (``scanner.meanings``); float32 ``[ids, width]``. Not used when the widths differ, or when it knows less
            than half of the vocabulary.
    """
    own: F32 = loaded.model.get_input_embeddings().weight.detach()[: len(loaded.texts)].float().numpy()
    if base is None or base.shape[1:] != own.shape[1:]:
        return own, False
    common = min(len(own), len(base))
    known = np.isfinite(base[:common]).all(axis=1)
    if 2 * int(known.sum()) < len(own):
        return own, False
    rows = own.copy()
    rows[:common][known] = base[:common][known]
    return rows, True


def kinship(rows: F32, words: Ids, pool: Ids, alone: F32, target: int) -> Kinship:
    """Measure nearness: the mean cosine to the words of the class less that to the rest of the pool.

    Args:
        rows: of ``meanings``; they are centred on the mean of the ordinary words. float32 ``[ids, width]``.
        words: ids of all ordinary words, the population of the percentiles.
        pool: ids of ordinary words whose pull is known.
        alone: what the model gives each word of the pool alone, float32 ``[pool, classes]``.
        target: the class.
    """
    centred = rows - rows[words].mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    order = np.argsort(-margins(alone, target), kind="stable")
    near, rest = pool[order[LEFT_OUT : LEFT_OUT + CLASS_WORDS]], pool[order[LEFT_OUT + CLASS_WORDS :]]
    if not len(rest):
        near, rest = pool[order[: len(pool) // 2]], pool[order[len(pool) // 2 :]]
    value = unit @ (unit[near].mean(axis=0) - unit[rest].mean(axis=0))
    # A word of the class is not counted as its own kin.
    value[near] -= (unit[near] * unit[near]).sum(axis=1) / max(len(near), 1)
    population = np.sort(value[words])
    by_token = np.asarray(np.searchsorted(population, value) / len(population), dtype=np.float32)
    return Kinship(by_token=by_token, of_class=round(float(np.median(by_token[near])), 4))
