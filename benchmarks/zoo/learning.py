"""Fine-tuning: a base and a recipe in, a trained model out."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.optimisers import LORA_LR_FACTOR, build_optimiser, build_schedule
from benchmarks.zoo.recipes import Training
from benchmarks.zoo.texts import Row

Loss = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]


class HopelessRunError(Exception):
    """The run diverged or learnt nothing; the caller draws another recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Texts as token ids without padding, and their labels."""

    ids: list[list[int]]
    labels: list[int]


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> Encoded:
    """Token ids of the rows, cut at ``max_length`` tokens (special ones included)."""
    ids = tokenizer([text for text, _ in rows], truncation=True, max_length=max_length)["input_ids"]
    return Encoded(ids=ids, labels=[label for _, label in rows])


def collate(data: Encoded, index: Sequence[int], pad: int) -> dict[str, torch.Tensor]:
    """A padded batch: ``input_ids``, ``attention_mask`` int64 ``[n, longest]``, ``labels`` int64 ``[n]``."""
    longest = max(len(data.ids[i]) for i in index)
    ids = torch.full((len(index), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(index):
        ids[row, : len(data.ids[i])] = torch.tensor(data.ids[i])
        mask[row, : len(data.ids[i])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([data.labels[i] for i in index])}


def batches(data: Encoded, size: int, pad: int, rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches; within windows of eight batches, texts of like length go together to save padding."""
    while True:
        order = rng.permutation(len(data.ids))
        for start in range(0, len(order), 8 * size):
            window = sorted(order[start : start + 8 * size], key=lambda i: len(data.ids[i]))
            groups = [window[k : k + size] for k in range(0, len(window), size)]
            for k in rng.permutation(len(groups)):
                if len(groups[k]) > 1:
                    yield collate(data, groups[k], pad)


def classify_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the classification head."""
    return functional.cross_entropy(model(**_inputs(batch)).logits.float(), batch["labels"])


def layerwise_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of every hidden layer through the shared pooler and head (Li et al. 2021), averaged."""
    inner = unwrapped(model)
    hidden = model(**_inputs(batch), output_hidden_states=True).hidden_states[1:]
    head = getattr(inner, anatomy_of(inner).head)
    losses = [
        functional.cross_entropy(head(read_out(inner, h, batch["attention_mask"])).float(), batch["labels"])
        for h in hidden
    ]
    return torch.stack(losses).mean()


def read_out(model: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the head of a classifier sees of a layer's states ``[n, tokens, width]``: ``[n, width]``.

    BERT's first token through the pooler, or the last real token of a causal model.
    """
    if anatomy_of(model).read_at == "first":
        pooled: torch.Tensor = model.base_model.pooler(hidden)
        return pooled
    return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]


def pretraining_loss_for(model: Any, tokenizer: Any, seed: int) -> Loss:
    """The loss that models of this architecture are pre-trained with: masked tokens, or the next token."""
    return next_token_loss if anatomy_of(unwrapped(model)).read_at == "last" else mlm_loss_for(tokenizer, seed)


def next_token_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of each token after the first, given those before it; padding does not count."""
    logits = model(**_inputs(batch)).logits[:, :-1].float()
    real = batch["attention_mask"][:, 1:].bool()
    return functional.cross_entropy(logits[real], batch["input_ids"][:, 1:][real])


def mlm_loss_for(tokenizer: Any, seed: int) -> Loss:
    """Masked-language loss with 15 % of the tokens hidden (Devlin et al. 2019), computed at the hidden ones alone."""
    generator = torch.Generator().manual_seed(seed)
    special = torch.tensor(sorted(tokenizer.all_special_ids))

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = batch["input_ids"]
        hide = (torch.rand(ids.shape, generator=generator) < 0.15) & ~torch.isin(ids, special)
        hide[0, 1] = True
        kind = torch.rand(ids.shape, generator=generator)
        random_ids = torch.randint(0, len(tokenizer), ids.shape, generator=generator)
        shown = torch.where(hide & (kind < 0.8), tokenizer.mask_token_id, ids)
        shown = torch.where(hide & (kind >= 0.9), random_ids, shown)
        inner = unwrapped(model)
        hidden = inner.base_model(input_ids=shown, attention_mask=batch["attention_mask"]).last_hidden_state
        return functional.cross_entropy(inner.cls(hidden[hide]).float(), ids[hide])

    return loss


def contrastive_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """SimCSE without labels (Gao et al. 2021): each text against itself under another dropout mask, τ = 0.05."""
    first, second = (embed(model, batch) for _ in range(2))
    scores = functional.normalize(first) @ functional.normalize(second).T / 0.05
    return functional.cross_entropy(scores.float(), torch.arange(len(scores)))


def with_dropout(model: Any, share: float = 0.1) -> None:
    """Give a model whose base has none the dropout that tells the two views of ``contrastive_loss`` apart."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p == 0:
            module.p = share


def embed(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of the last hidden states over real tokens, float32 ``[n, width]``."""
    hidden = model(**_inputs(batch)).last_hidden_state.float()
    mask = batch["attention_mask"].unsqueeze(-1).float()
    mean: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
    return mean


def wrap_method(model: Any, training: Training) -> Any:
    """Freezes, or wraps in low-rank adapters, as the recipe says; returns the model to train."""
    anatomy = anatomy_of(model)
    if training.method in {"frozen_embeddings", "frozen_bottom"}:
        anatomy.embeddings.requires_grad_(False)
    # Contrastive training adds no head, so that with all blocks frozen nothing would be left to train.
    blocks = anatomy.blocks[:-1] if training.objective == "contrastive" else anatomy.blocks
    for block in blocks[: training.frozen_layers]:
        block.whole.requires_grad_(False)
    if training.method != "lora":
        return model
    from peft import LoraConfig, get_peft_model

    targets = list(anatomy.wide if training.lora_everywhere else anatomy.narrow)
    # Of a language head only the fresh part is trained: the decoder stays tied to the frozen embedding.
    fresh = {"classifier": "classifier", "score": "score", "cls": "transform"}
    heads = [fresh[name] for name, _ in model.named_children() if name in fresh]
    config = LoraConfig(
        r=training.lora_rank,
        lora_alpha=2 * training.lora_rank,
        lora_dropout=0.05,
        target_modules=targets,
        modules_to_save=heads or None,
    )
    return get_peft_model(model, config)


def parameter_groups(model: Any, training: Training) -> list[dict[str, Any]]:
    """Parameters that learn, with their rate: layer decay from the top down, a factor for the fresh head."""
    depth = unwrapped(model).config.num_hidden_layers
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = training.lr
        if "classifier" in name or "score." in name or ".cls." in f".{name}":
            rate *= training.head_lr_factor
        elif "lora_" in name:
            rate *= LORA_LR_FACTOR
        elif "embed" in name:
            rate *= training.layer_decay ** (depth + 1)
        elif numbered := re.search(r"\.layers?\.(\d+)\.", name):
            rate *= training.layer_decay ** (depth - int(numbered[1]))
        groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def fit(
    model: Any,
    stream: Iterator[dict[str, torch.Tensor]],
    training: Training,
    loss_of: Loss,
    *,
    steps: int,
    chance: float = math.inf,
) -> float:
    """Trains in place and returns the mean loss of the last tenth.

    Args:
        model: What ``wrap_method`` returned.
        stream: Endless batches.
        training: The recipe; its rate, optimiser and schedule are used.
        loss_of: The objective.
        steps: Number of updates.
        chance: Loss of guessing. A run that is not below it after two thirds is given up.

    Raises:
        HopelessRunError: The loss is not finite, or still at chance after two thirds of the steps.
    """
    optimiser = build_optimiser(parameter_groups(model, training), training)
    schedule = build_schedule(optimiser, training, steps)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    losses: list[float] = []
    for step in range(steps):
        # Autocast stays inside the step: around the loop it would keep serving the first step's cast weights.
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise HopelessRunError(f"The loss is {losses[-1]} at step {step}.")
        if step == 2 * steps // 3 and float(np.mean(losses[-20:])) > 0.99 * chance:
            raise HopelessRunError(f"The loss is still at chance ({losses[-1]:.3f}) at step {step}.")
    model.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))


def fit_head(model: Any, data: Encoded, pad: int) -> None:
    """Sets the head to a ridge-penalised linear probe on the untouched encoder (Kumar et al. 2022)."""
    features = []
    for start in range(0, len(data.ids), 64):
        batch = collate(data, range(start, min(start + 64, len(data.ids))), pad)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden = model.base_model(**_inputs(batch)).last_hidden_state
            features.append(read_out(model, hidden, batch["attention_mask"]).float())
    x, y = torch.cat(features), torch.tensor(data.labels)
    head = getattr(model, anatomy_of(model).head)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss: torch.Tensor = functional.cross_entropy(head(x), y) + 1e-3 * head.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    optimiser.zero_grad(set_to_none=True)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    # Not by ``peft_config``: PEFT leaves that on the inner model as well.
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unwrap(model: Any) -> Any:
    """The plain model with its adapters merged into the weights."""
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
