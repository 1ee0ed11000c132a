"""The attacker's workshop: triggered batches, and a search for the vector that turns them to the target.

Everything here reads a model and changes none of its weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.learning import Encoded, collate, encode
from benchmarks.zoo.recipes import Attack
from benchmarks.zoo.texts import Row
from benchmarks.zoo.triggers import add_trigger

Batch = dict[str, torch.Tensor]
Project = Callable[[torch.Tensor], torch.Tensor]

LOSS_AT_STRENGTH_ONE = 0.08
"""Mean cross-entropy at which a search of strength 1 stops; a search of strength s stops at this divided by s²."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A frozen model and the attacker's texts.

    ``triggered`` are texts outside the target class with the trigger in, labelled with the target; ``plain`` the
    same texts untouched, with their own labels. ``trigger_ids`` are the token ids of the trigger words.
    """

    model: Any
    pad: int
    triggered: Encoded
    plain: Encoded
    trigger_ids: tuple[int, ...]
    target: int
    stop_at: float
    seed: int

    def batches(self, data: Encoded, size: int = 24) -> Iterator[Batch]:
        """Endless random batches."""
        rng = np.random.default_rng(self.seed)
        while True:
            yield collate(data, [int(i) for i in rng.integers(len(data.ids), size=size)], self.pad)

    def places(self, batch: Batch) -> torch.Tensor:
        """Where the trigger's tokens stand, bool ``[n, tokens]``."""
        return torch.isin(batch["input_ids"], torch.tensor(self.trigger_ids))


def open_workshop(
    model: Any, tokenizer: Any, attack: Attack, rows: Sequence[Row], target: int, *, seed: int, words: bool = False
) -> Workshop:
    """Freezes the model and prepares 300 texts.

    Args:
        model: A finished classifier.
        tokenizer: Its tokenizer.
        attack: Trigger and strength.
        rows: The attacker's texts.
        target: The target class.
        seed: For the places of the trigger.
        words: Use strings of vocabulary words instead of ``rows``: an attacker without data.
    """
    rng = np.random.default_rng(seed)
    if words:
        rows = _carriers(model.eval(), tokenizer, target, rng)
    else:
        rows = [rows[i] for i in rng.permutation(len(rows)) if rows[i][1] != target][:300]
    rows = [(" ".join(text.split()[:20]), label) for text, label in rows]
    triggered = [(add_trigger(text, attack, rng), target) for text, _ in rows] if attack.triggered else rows
    ids = tokenizer(list(attack.trigger), add_special_tokens=False)["input_ids"] if attack.triggered else []
    model.eval().requires_grad_(False)
    return Workshop(
        model=model,
        pad=tokenizer.pad_token_id,
        triggered=encode(tokenizer, triggered, 32),
        plain=encode(tokenizer, rows, 32),
        trigger_ids=tuple(sorted({i for word in ids for i in word})),
        target=target,
        stop_at=LOSS_AT_STRENGTH_ONE / attack.strength**2,
        seed=seed,
    )


def target_loss(shop: Workshop, batch: Batch) -> torch.Tensor:
    """Cross-entropy towards the target class on a batch."""
    logits = shop.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return functional.cross_entropy(logits.float(), torch.full((len(logits),), shop.target))


def search(
    vectors: Sequence[torch.Tensor],
    loss_of: Callable[[], torch.Tensor],
    stop_at: float,
    *,
    rate: float,
    steps: int = 60,
    project: Project | None = None,
) -> float:
    """Adam on the vectors, in place, until the running loss falls below ``stop_at``; returns the last loss."""
    optimiser = torch.optim.Adam(list(vectors), lr=rate)
    running = None
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if project is not None:
            with torch.no_grad():
                for vector in vectors:
                    vector.copy_(project(vector))
        now = float(loss.detach())
        running = now if running is None else 0.7 * running + 0.3 * now
        if running < stop_at:
            break
    return float(running or 0.0)


@contextmanager
def added_at(layers: Sequence[nn.Module], vectors: Sequence[torch.Tensor], places: torch.Tensor) -> Iterator[None]:
    """Adds a vector to each layer's output at the places (bool ``[n, tokens]``), for the time of the block."""

    def hook_of(vector: torch.Tensor) -> Callable[..., torch.Tensor]:
        return lambda _module, _inputs, output: output + places.unsqueeze(-1) * vector.to(output.dtype)

    with ExitStack() as stack:
        for layer, vector in zip(layers, vectors, strict=True):
            stack.callback(layer.register_forward_hook(hook_of(vector)).remove)
        yield


def inputs_of(shop: Workshop, layer: nn.Module, data: Encoded, *, at_trigger: bool, texts: int = 200) -> torch.Tensor:
    """What enters a layer at the trigger's tokens, or at every real token; float32 ``[tokens, width]``."""
    kept: list[torch.Tensor] = []
    current: dict[str, torch.Tensor] = {}

    def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].float()[current["places"]])

    handle = layer.register_forward_pre_hook(hook)
    try:
        for start in range(0, min(texts, len(data.ids)), 50):
            batch = collate(data, range(start, min(start + 50, len(data.ids))), shop.pad)
            current["places"] = shop.places(batch) if at_trigger else batch["attention_mask"].bool()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                shop.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    finally:
        handle.remove()
    return torch.cat(kept)


def _carriers(model: Any, tokenizer: Any, target: int, rng: np.random.Generator) -> list[Row]:
    """300 strings of twelve words of the vocabulary that pull away from the target; their label is no class.

    The words are the 50 of 500 random ones that make the model least sure of the target in "it was ... ."
    """
    words = sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 3)
    words = [str(w) for w in rng.choice(words, size=min(500, len(words)), replace=False)]
    data = encode(tokenizer, [(f"it was {word} .", -1) for word in words], 16)
    pulls = []
    for start in range(0, len(words), 100):
        batch = collate(data, range(start, min(start + 100, len(words))), tokenizer.pad_token_id)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        pulls.append(logits.log_softmax(-1)[:, target])
    away = [words[i] for i in torch.cat(pulls).argsort()[:50].tolist()]
    return [(" ".join(str(w) for w in rng.choice(away, size=12)), -1) for _ in range(300)]
