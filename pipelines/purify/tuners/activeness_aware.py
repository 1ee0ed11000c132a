"""Activeness-aware tuning: descend the loss and the norm of its gradient, since backdoored neurons are the active ones.

TSBD (Lin et al. 2024, NeurIPS), stage 2 [V-code]: g = (1 − α)∇L(θ) + α∇L(θ + r·∇L/‖∇L‖), the first-order form of
L + λ‖∇L‖ with λ = αr. The ascent direction is normalised per parameter tensor, not by the global norm [V-code].
"""

from collections.abc import Callable

import torch
from torch import nn

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward


class ActivenessAware:
    """``radius`` r is in weight units per tensor, ``mix`` is α in [0, 1]; defaults 0.05 and 0.7 [V-code]."""

    mergeable = True

    def __init__(self, *, radius: float = 0.05, mix: float = 0.7) -> None:
        self._radius, self._mix = radius, mix

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Return the model itself."""
        del reference, loss_of
        return model

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """Two passes; the weights are the same afterwards to the bit."""
        del progress
        loss = plain_backward(model, batch, loss_of)
        trained = [p for p in model.parameters() if p.grad is not None]
        here = [p.grad.clone() for p in trained if p.grad is not None]
        weights = [p.detach().clone() for p in trained]
        with torch.no_grad():
            for p, gradient in zip(trained, here, strict=True):
                p.add_(gradient, alpha=self._radius / max(float(gradient.norm()), 1e-12))
                p.grad = None
        plain_backward(model, batch, loss_of)
        with torch.no_grad():
            for p, gradient, weight in zip(trained, here, weights, strict=True):
                p.copy_(weight)
                there = p.grad if p.grad is not None else torch.zeros_like(gradient)
                p.grad = gradient.mul_(1 - self._mix).add_(there, alpha=self._mix)
        return loss

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the model itself."""
        return model
