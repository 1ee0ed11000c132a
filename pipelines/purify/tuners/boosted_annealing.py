"""Boosted annealing: a global gradient is measured once at rate zero, then boosts every step less and less.

Dynamic Boosted Annealing (arXiv 2509.26242) [V-abs, V-3p]: stage 1 gathers ĝ = E[g] with a zero learning rate and
β₁ → 1; stage 2 adds a decaying multiple of ĝ to the step's gradient, initial coefficient k₀ = 200/T for T steps, and
scales the step by the likeness of the two. The decay law and the scaling's formula could not be verified [open]:
here the coefficient falls linearly to zero and the scale is (1 + cos)/2, so that a step never grows.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward


class BoostedAnnealing:
    """``passes``: reference batches that the global gradient is averaged over."""

    mergeable = True

    def __init__(self, *, passes: int = 8, steps: int = 40) -> None:
        self._passes = passes
        # k₀ = 200/T exceeds one for short runs, where the anchor would drown the step; it is cut there.
        self._boost = min(1.0, 200 / max(1, steps))
        self._anchor: list[torch.Tensor] = []

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Average the gradient over reference batches; no weight moves."""
        for _ in range(self._passes):
            plain_backward(model, reference(), loss_of)
        trained = [p for p in model.parameters() if p.requires_grad]
        self._anchor = [
            torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() / self._passes for p in trained
        ]
        model.zero_grad(set_to_none=True)
        return model

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """One pass; the gradient is boosted by the anchor and scaled by their likeness, per parameter tensor."""
        loss = plain_backward(model, batch, loss_of)
        coefficient = self._boost * (1 - progress)
        trained = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for p, anchor in zip(trained, self._anchor, strict=True):
                if p.grad is None:
                    continue
                likeness = float(cosine_similarity(p.grad.flatten(), anchor.flatten(), dim=0))
                scale = (1 + (likeness if math.isfinite(likeness) else 0.0)) / 2
                p.grad.add_(anchor, alpha=coefficient).mul_(scale)
        return loss

    def finish(self, model: nn.Module) -> nn.Module:
        """Forget the anchor; return the model itself."""
        self._anchor = []
        return model
