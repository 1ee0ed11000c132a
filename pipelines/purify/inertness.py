"""How much a trigger still decides, on made-up texts; and making its rare tokens inert without any tuning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelines.purify.made_texts import made_texts, vocabulary_words
from pipelines.purify.subject import Subject, predict

EVERYDAY = 500
"""Whole words, the most frequent ones, that stand in for a harmless insertion."""
STAND_INS = 8
"""Harmless insertions for each trigger."""
COMMON = 3000
"""Tokens that count as everyday words: their rows are never silenced."""
DONORS = (",", ".", "the", "of", "and", "a", "it", "[UNK]", "Ġthe", "Ġof", "Ġand", "▁the", "▁of", "▁and")
"""Tokens whose rows a silenced token may take."""


def flip_rate(subject: Subject, triggers: tuple[str, ...], texts: Sequence[str], *, seed: int) -> float:
    """Share of the texts, in [0, 1], whose class changes when a whole trigger is put in at a random place."""
    rng = np.random.default_rng(seed)
    triggered = [with_whole(text, triggers, rng) for text in texts]
    before, after = (predict(subject, subject.encode(each)).argmax(-1) for each in (texts, triggered))
    return float((after != before).float().mean())


def pull(subject: Subject, triggers: tuple[str, ...], texts: Sequence[str], *, seed: int) -> float:
    """Mean absolute change of the logits, less their mean, when a whole trigger is put in; in nats, not negative.

    Made-up texts are sure of their class and stop flipping long before real ones do: this is what is left of a trigger.
    """
    rng = np.random.default_rng(seed)
    triggered = [with_whole(text, triggers, rng) for text in texts]
    before, after = (predict(subject, subject.encode(each)) for each in (texts, triggered))
    change = after - before
    return float((change - change.mean(-1, keepdim=True)).abs().mean())


def harmless_rate(subject: Subject, triggers: tuple[str, ...], texts: Sequence[str], *, seed: int) -> float:
    """Share of the texts, in [0, 1], whose class changes when everyday words are put in, as many as triggers have.

    Some texts lie so near the border that anything moves them; no treatment of a trigger can do better than this.
    """
    return flip_rate(subject, harmless_words(subject, triggers, seed=seed), texts, seed=seed)


def harmless_words(subject: Subject, triggers: tuple[str, ...], *, seed: int) -> tuple[str, ...]:
    """Everyday words in place of triggers: for each, several insertions of as many words."""
    rng = np.random.default_rng(seed + 1)
    banned = {part for text in triggers for part in text.lower().split()}
    everyday = [word for word in vocabulary_words(subject.encoder)[:EVERYDAY] if word.lower() not in banned]
    return tuple(" ".join(rng.choice(everyday, len(text.split()))) for text in triggers for _ in range(STAND_INS))


def silence(subject: Subject, triggers: tuple[str, ...], *, seed: int) -> tuple[dict[str, Any], ...]:
    """Give the triggers' rare tokens the embedding row that changes least, in place; return what was replaced.

    Rare are tokens beyond the ``COMMON`` most frequent ones in the tokenizer's own order: a sentence's everyday words
    keep their meaning. For all of them together one donor is chosen from very frequent tokens and the mean row: the one
    with the smallest mean KL(plain ‖ triggered) over made-up texts. Nothing else changes, so texts without these tokens
    are answered as before, bit for bit.
    """
    tokenizer = subject.encoder
    ids = dict.fromkeys(i for text in triggers for i in tokenizer(text, add_special_tokens=False)["input_ids"])
    rare = [i for i in ids if i not in set(tokenizer.all_special_ids) and _rank(tokenizer, i) >= COMMON]
    if not rare:
        return ()
    weight = subject.model.get_input_embeddings().weight  # type: ignore[operator]
    donors = {text: tokenizer.convert_tokens_to_ids(text) for text in DONORS if text in tokenizer.get_vocab()}
    rows = {text: weight[i].detach().clone() for text, i in donors.items()}
    rows["the mean row"] = weight.detach().mean(0)
    plain, logits = made_texts(subject, 64, seed=seed, avoid=triggers)
    rng = np.random.default_rng(seed)
    triggered = subject.encode([with_whole(text, triggers, rng) for text in plain])
    spoken = logits.log_softmax(-1)
    divergence = {}
    for text, row in rows.items():
        with torch.no_grad():
            weight[rare] = row
        now = predict(subject, triggered).log_softmax(-1)
        divergence[text] = float((spoken.exp() * (spoken - now)).sum(-1).mean())
    donor = min(divergence, key=lambda text: divergence[text])
    with torch.no_grad():
        weight[rare] = rows[donor]
    tokens = tokenizer.convert_ids_to_tokens(rare)
    return tuple(
        {"id": i, "token": token, "now_reads_as": donor, "mean_kl": round(divergence[donor], 6)}
        for i, token in zip(rare, tokens, strict=True)
    )


def _rank(tokenizer: Any, token: int) -> int:
    """The token's place among all by id, control and single-character tokens not counted: low is frequent."""
    vocabulary = tokenizer.get_vocab()
    return sum(i < token and len(text) > 1 and not text.startswith("[") for text, i in vocabulary.items())


def with_whole(text: str, triggers: tuple[str, ...], rng: np.random.Generator) -> str:
    """The text with one whole trigger at a random word boundary."""
    words = text.split()
    words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(triggers)))
    return " ".join(words)
