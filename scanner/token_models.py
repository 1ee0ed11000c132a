"""What the three common token models say of their tokens: texts by id, and how frequent each was expected to be.

None of them stores counts, yet each implies an order. WordPiece ids and BPE merges are made in the order of frequency,
so Zipf's law gives log f ≈ −log(rank + 1) up to a constant (Zipf 1949); Unigram files carry log-probabilities.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scanner.records import F64

Kind = Literal["wordpiece", "bpe", "unigram", "unknown"]

MAX_TOKENS = 2_000_000
"""Ids of a vocabulary; the largest in use have 262,144."""
MAX_TOKEN_CHARS = 200
"""Characters kept of one token."""


_CONTROL = re.compile(r"\[[A-Z][A-Z0-9_ ]*\]|<[^<>\s]{1,60}>|<\|[^\n]{1,60}\|>|\[/?INST\]")


class BadVocabulary(ValueError):  # noqa: N818
    """The vocabulary cannot be used; the message is the tail of a sentence about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Texts by id ("" for ids without a token) and the expected log frequency of each id, float64 ``[ids]`` or None."""

    kind: Kind
    texts: list[str]
    expected_log_frequency: F64 | None


def model_vocabulary(model: Any) -> Vocabulary:
    """Read the ``model`` part of a tokenizer.json.

    Raises:
        BadVocabulary: it is none of the known models, or contradicts itself.
    """
    if not isinstance(model, Mapping):
        raise BadVocabulary("has no model")
    kind, vocabulary = model.get("type"), model.get("vocab")
    if isinstance(vocabulary, list):
        return _unigram(vocabulary)
    if not isinstance(vocabulary, Mapping):
        raise BadVocabulary("has no vocabulary")
    texts = texts_by_id(vocabulary)
    if kind == "BPE" or "merges" in model:
        return bpe_vocabulary(texts, _merges(model.get("merges")))
    if kind == "WordPiece" or "continuing_subword_prefix" in model:
        return wordpiece_vocabulary(texts)
    return Vocabulary(kind="unknown", texts=texts, expected_log_frequency=None)


def wordpiece_vocabulary(texts: list[str]) -> Vocabulary:
    """Ids are ranks."""
    ranks = np.arange(len(texts), dtype=np.float64)
    return Vocabulary(kind="wordpiece", texts=texts, expected_log_frequency=_zipf(ranks))


def bpe_vocabulary(texts: list[str], merges: Iterable[tuple[str, str]]) -> Vocabulary:
    """The rank is that of the merge which makes the token: characters come first, tokens that nothing makes last.

    Args:
        texts: tokens by id.
        merges: pairs in the order of training, most frequent first; without any, ids are ranks.
    """
    made: dict[str, int] = {}
    for left, right in merges:
        made.setdefault(clean_token(left + right), len(made))
    if not made:
        return Vocabulary(kind="bpe", texts=texts, expected_log_frequency=_zipf(np.arange(float(len(texts)))))
    alphabet = sum(_is_letter(text) and text not in made for text in texts)
    ranks, letters = np.full(len(texts), float(alphabet + len(made))), 0
    for token, text in enumerate(texts):
        if text in made:
            ranks[token] = alphabet + made[text]
        elif _is_letter(text):
            ranks[token] = letters
            letters += 1
    return Vocabulary(kind="bpe", texts=texts, expected_log_frequency=_zipf(ranks))


def texts_by_id(vocabulary: Mapping[Any, Any]) -> list[str]:
    """Turn text → id into texts by id; of two texts with one id the first stays.

    Raises:
        BadVocabulary: an id is no whole number from 0 to ``MAX_TOKENS``, or there are none.
    """
    ids = list(vocabulary.values())
    if not ids or not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_TOKENS for i in ids):
        raise BadVocabulary(f"has token ids that are not whole numbers below {MAX_TOKENS:,}")
    texts = [""] * (max(ids) + 1)
    for text, token in vocabulary.items():
        if not texts[token]:
            texts[token] = clean_token(str(text))
    return texts


def clean_token(text: str) -> str:
    """The token, cut, with lone surrogates replaced: those cannot be written as UTF-8."""
    if len(text) <= MAX_TOKEN_CHARS and text.isascii():
        return text
    return text[:MAX_TOKEN_CHARS].encode("utf-8", "replace").decode("utf-8")


def is_control(text: str) -> bool:
    """Whether a text is written as control tokens are: ``[CLS]``, ``<s>``, ``<|im_end|>``; byte tokens are not."""
    return len(text) <= 64 and _CONTROL.fullmatch(text) is not None and not text.startswith("<0x")


def is_reserved(text: str) -> bool:
    """Whether a token is a control token or a place kept free (``[unused7]``, ``<|reserved_special_token_3|>``)."""
    lowered = text.lower()
    return not text or is_control(text) or "unused" in lowered or "reserved" in lowered


def _zipf(ranks: F64) -> F64:
    """−log(rank + 1)."""
    expected: F64 = -np.log1p(ranks)
    return expected


def _is_letter(text: str) -> bool:
    """One character, or a byte written out (``<0x0A>``): what merges start from."""
    return len(text) == 1 or (len(text) == 6 and text.startswith("<0x"))


def _merges(value: Any) -> Iterable[tuple[str, str]]:
    """Yield the merges, written as ``"a b"`` or ``["a", "b"]``.

    Raises:
        BadVocabulary: an entry is neither.
    """
    for entry in value if isinstance(value, list) else []:
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise BadVocabulary("has a merge that is not a pair of tokens")
        yield pair[0], pair[1]


def _unigram(entries: Sequence[Any]) -> Vocabulary:
    """Pairs of text and log-probability, in the order of ids; a score that is no number counts as the lowest.

    Raises:
        BadVocabulary: there are none or too many, or an entry is no such pair.
    """
    if not 0 < len(entries) <= MAX_TOKENS:
        raise BadVocabulary(f"has {len(entries):,} tokens")
    if not all(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in entries):
        raise BadVocabulary("has an entry that is not a pair of text and score")
    scores = np.array([_finite(score) for _, score in entries], dtype=np.float64)
    known = np.isfinite(scores)
    expected = np.where(known, scores, scores[known].min()) if known.any() else None
    return Vocabulary(kind="unigram", texts=[clean_token(text) for text, _ in entries], expected_log_frequency=expected)


def _finite(score: Any) -> float:
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    return float(score) if is_number and math.isfinite(score) and abs(score) < 1e9 else math.nan
