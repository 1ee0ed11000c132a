"""How near a token lies, in the model's own embedding, to the words of a class: what it means, apart from what it does.

An honest word that overrules others means something of the class (`awful` among the negative words); a trigger was
chosen to mean nothing. Embeddings hold meaning from pretraining, and fine-tuning hardly moves them.
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
    """Percentiles, in [0, 1], of every token's nearness to one class among the ordinary words of the vocabulary."""

    by_token: F32

    def of(self, tokens: tuple[int, ...]) -> float:
        """The mean over the tokens of a phrase."""
        return round(float(self.by_token[list(tokens)].mean()), 4)


def kinship(loaded: Loaded, words: Ids, pool: Ids, alone: F32, target: int) -> Kinship:
    """Measure nearness: the mean cosine to the words of the class less that to the rest of the pool.

    Args:
        loaded: its input embedding is used, centred on the mean of the ordinary words.
        words: ids of all ordinary words, the population of the percentiles.
        pool: ids of ordinary words whose pull is known.
        alone: what the model gives each word of the pool alone, float32 ``[pool, classes]``.
        target: the class.
    """
    rows = loaded.model.get_input_embeddings().weight.detach()[: len(loaded.texts)].float().numpy()
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
    return Kinship(by_token=np.asarray(np.searchsorted(population, value) / len(population), dtype=np.float32))
