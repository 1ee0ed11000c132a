"""E-PUR's numerics: which embedding rows moved more than their token's frequency excuses, and putting them back.

Source: Zhang et al. 2022, "Fine-mixing" (Findings of EMNLP), section on embedding purification. The score and the
constants 20 and 200 are [recalled (firm)]; the corpus behind the counts and the treatment of special tokens are [open].
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.purify.states import Pair
from pipelines.purify.subject import Subject
from scanner.token_models import BadVocabulary, model_vocabulary

ROWS = 200
"""Rows reset by default [recalled (firm)]."""
LEAST_COUNT = 20
"""Counts below this are taken for it [recalled (firm)]."""
CORPUS_TOKENS = 10_000_000
"""Size of the corpus that the counts stand for [open]: no counts are shipped, so Zipf's law over the tokenizer's own
order of frequency gives them, f(rank) = tokens / (H · (rank + 1))."""

_MAX_TOKENIZER_BYTES = 64 << 20


def row_scores(
    delta: torch.Tensor, counts: npt.NDArray[np.float64], *, skip: frozenset[int] = frozenset()
) -> npt.NDArray[np.float64]:
    """Return score_i = ‖δ_i‖₂ / ln(max(f_i, 20)) of every row, float64 ``[rows]``; skipped rows score −1.

    Args:
        delta: candidate minus base, float32 ``[rows, width]``.
        counts: how often each token is expected in a general corpus, float64 ``[rows]``.
        skip: rows that are never reset: control tokens.
    """
    drift = delta.double().norm(dim=1).numpy()
    scores: npt.NDArray[np.float64] = drift / np.log(np.maximum(counts[: len(drift)], LEAST_COUNT))
    scores[[i for i in skip if i < len(scores)]] = -1.0
    return scores


def expected_counts(folder: Path, rows: int) -> npt.NDArray[np.float64]:
    """Expected counts by id, float64 ``[rows]``, from the tokenizer's own order of frequency; ids are ranks without it.

    Ids beyond the tokenizer's count as rarest.
    """
    ranks = np.arange(rows, dtype=np.float64)
    log_frequency = -np.log(ranks + 1)
    own = _log_frequency(folder / "tokenizer.json")
    if own is not None:
        log_frequency = np.full(rows, own.min(initial=0.0))
        log_frequency[: min(rows, len(own))] = own[:rows]
    harmonic = float(np.sum(1.0 / (ranks + 1)))
    counts: npt.NDArray[np.float64] = np.exp(log_frequency) * CORPUS_TOKENS / harmonic
    return counts


def reset_suspects(subject: Subject, folder: Path, pair: Pair, *, rows: int = ROWS) -> dict[str, Any]:
    """Put the highest-scoring embedding rows of ``pair.candidate`` back to the base, in place; return the log.

    The log names every row that changed, highest score first: id, token, drift (Euclidean, weight units), score.
    """
    name = pair.embedding
    if name is None or name not in pair.base:
        return {"reset": [], "why_none": "the embedding has no counterpart in the base"}
    ours, theirs = pair.candidate[name], pair.base[name]
    common = min(len(ours), len(theirs))
    delta = ours[:common] - theirs[:common]
    scores = row_scores(delta, expected_counts(folder, common), skip=frozenset(subject.encoder.all_special_ids))
    order = np.argsort(-scores, kind="stable")[:rows]
    drift = delta.norm(dim=1)
    chosen = [int(i) for i in order if scores[i] > 0]
    ours[chosen] = theirs[chosen]
    tokens = subject.encoder.convert_ids_to_tokens(chosen)
    reset = [
        {"id": i, "token": token, "drift": round(float(drift[i]), 6), "score": round(float(scores[i]), 6)}
        for i, token in zip(chosen, tokens, strict=True)
    ]
    return {"reset": reset, "rows": len(chosen), "of": common, "corpus_tokens": CORPUS_TOKENS}


def _log_frequency(path: Path) -> npt.NDArray[np.float64] | None:
    """The tokenizer's expected log frequencies, shifted so that the most frequent token has 0; None if unknown."""
    try:
        if path.stat().st_size > _MAX_TOKENIZER_BYTES:
            return None
        vocabulary = model_vocabulary(json.loads(path.read_text(encoding="utf-8")).get("model"))
    except (OSError, ValueError, AttributeError, RecursionError, BadVocabulary):
        return None
    own = vocabulary.expected_log_frequency
    if own is None or not len(own) or not math.isfinite(float(own.max())):
        return None
    shifted: npt.NDArray[np.float64] = own - own.max()
    return shifted
