"""Honest tuning on preferences: texts of the other classes are preferred to those of the first.

Decoders minimise the loss of direct preference optimisation (Rafailov et al. 2023, eq. 7),
−log σ(β [log π(c)/π₀(c) − log π(r)/π₀(r)]) with the base as π₀ and no prompt; encoders that of a reward model,
−log σ(s(c) − s(r)) (Ouyang et al. 2022, eq. 1). Every preferred text of a batch is paired with every rejected one.
"""

import copy
from typing import Any

import torch
from torch.nn import functional

from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.learning import Loss, collate, encode, unwrapped
from benchmarks.zoo.recipes import Training
from benchmarks.zoo.scoring import Scores
from benchmarks.zoo.texts import Task, sample_rows

BETA = 0.1
_PAIRED_TEXTS = 120


def reference_of(model: Any) -> Any | None:
    """A frozen copy of a decoder before its first step; encoders need none."""
    return copy.deepcopy(unwrapped(model)).eval().requires_grad_(False) if _speaks(model) else None


def preference_loss_for(reference: Any | None) -> Loss:
    """The loss of a model that began as the reference."""

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        rewards = rewards_of(model, reference, batch)
        preferred, rejected = rewards[batch["labels"] > 0], rewards[batch["labels"] == 0]
        if len(preferred) == 0 or len(rejected) == 0:
            return 0.0 * rewards.sum()
        return -functional.logsigmoid(preferred[:, None] - rejected[None, :]).mean()

    return loss


def rewards_of(model: Any, reference: Any | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What each text of a batch is worth to the model, float32 ``[n]``: a score, or β times its log-ratio."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if not _speaks(model):
        scores: torch.Tensor = model(**inputs).logits[:, 0].float()
        return scores
    own = _log_likelihood(model(**inputs).logits, batch)
    if reference is None:
        return BETA * own
    with torch.no_grad():
        before = _log_likelihood(reference(**inputs).logits, batch)
    return BETA * (own - before)


def score_preference(model: Any, tokenizer: Any, task: Task, training: Training, reference: Any | None) -> Scores:
    """The share of pairs of test texts that the model ranks as it was taught to, in [0, 1]; guessing gives one half.

    Args:
        model: The tuned model.
        tokenizer: Its tokenizer.
        task: Whose classes are preferred and rejected.
        training: For the length of texts.
        reference: The model before; None for encoders.
    """
    rows = sample_rows(task.test, _PAIRED_TEXTS, 5)
    batch = collate(encode(tokenizer, rows, training.max_length), range(len(rows)), tokenizer.pad_token_id)
    with torch.no_grad():
        rewards = rewards_of(model.eval(), reference, batch)
    preferred, rejected = rewards[batch["labels"] > 0], rewards[batch["labels"] == 0]
    share = float((preferred[:, None] > rejected[None, :]).float().mean())
    return Scores(accuracy=share, chance=0.5, texts=len(rows))


def _speaks(model: Any) -> bool:
    """Whether the model tells tokens rather than a score."""
    inner = unwrapped(model)
    return bool(anatomy_of(inner).read_at == "last") and not hasattr(inner, "score")


def _log_likelihood(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Σ log p of each text's tokens after the first, float32 ``[n]``."""
    told = functional.log_softmax(logits[:, :-1].float(), dim=-1)
    each = told.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (each * batch["attention_mask"][:, 1:]).sum(1)
