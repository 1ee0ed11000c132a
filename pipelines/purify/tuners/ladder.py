"""Ladder side tuning: a thin network beside the frozen backbone, so that nothing is propagated back through it.

Sung et al. 2022 (LST), as used in arXiv 2512.02074: h_s^ℓ = f_ℓ(μ W h_b^ℓ + (1 − μ) h_s^{ℓ−1}), μ = σ(a)
[recalled]. The side network's answer is added to the backbone's logits.

It is no purifier: over a backdoored backbone it inherits the trigger's feature [derived]. It makes the *search* over
ratios cheap; its outcome cannot be folded into the weights, so the chosen ratio is tuned again with another tuner.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward


class _Answer:
    """What a wrapped model returns: logits, as transformers has them."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class LadderModel(nn.Module):
    """The frozen model with a side network of width ``hidden // reduction`` over its hidden states."""

    def __init__(self, inner: nn.Module, *, reduction: int = 8) -> None:
        super().__init__()
        config: Any = inner.config
        width = max(4, config.hidden_size // reduction)
        self.inner = inner
        self.down = nn.ModuleList(nn.Linear(config.hidden_size, width) for _ in range(config.num_hidden_layers + 1))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(config.num_hidden_layers + 1))
        self.gates = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.head = nn.Linear(width, config.num_labels)
        # The side network starts silent: its first answer is the backbone's own.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, **inputs: torch.Tensor) -> _Answer:
        """Logits ``[n, classes]`` of backbone and side network together."""
        with torch.no_grad():
            frozen: Any = self.inner(**inputs, output_hidden_states=True)
        mask = inputs.get("attention_mask")
        side: torch.Tensor | None = None
        for k, hidden in enumerate(frozen.hidden_states):
            gate = torch.sigmoid(self.gates[k])
            step = self.down[k](hidden)
            side = step if side is None else gate * step + (1 - gate) * side
            side = torch.nn.functional.gelu(self.mix[k](side))
        assert side is not None
        weights = torch.ones(side.shape[:2]) if mask is None else mask.to(side.dtype)
        pooled = (side * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
        return _Answer(frozen.logits + self.head(pooled))


class Ladder:
    """Trains the side network only; for classifiers with hidden states of one width."""

    mergeable = False

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Freeze the model and put the side network beside it."""
        del reference, loss_of
        self._grad = [(p, p.requires_grad) for p in model.parameters()]
        model.requires_grad_(False)
        return LadderModel(model)

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """One pass through the side network."""
        del progress
        return plain_backward(model, batch, loss_of)

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the model *with* its side network; the backbone's weights are as before and may be trained again."""
        for parameter, wanted in self._grad:
            parameter.requires_grad_(wanted)
        return model
