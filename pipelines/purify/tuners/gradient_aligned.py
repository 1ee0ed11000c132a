"""Gradient-aligned tuning: every step keeps the direction of a clean reference gradient.

MuScleLoRA (Wu et al. 2024, ACL), component GA [V-code]: per parameter tensor
g_al = |‖g‖ cos(g, g_ref) / ‖g_ref‖| · g_ref, the length of g's projection along the reference's direction.
Used after a repair, where batch and reference both are clean, it keeps what two clean batches agree on.
"""

from collections.abc import Callable

import torch
from torch import nn

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward


def aligned(gradient: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return |g·g_ref| / ‖g_ref‖² · g_ref, shaped as both; zero where the reference is zero."""
    square = (reference * reference).sum()
    if float(square) == 0.0:
        return torch.zeros_like(reference)
    return reference * ((gradient * reference).sum().abs() / square)


class GradientAligned:
    """The reference is one batch drawn from the clean samples at each step."""

    mergeable = True

    def __init__(self) -> None:
        self._reference: Callable[[], Batch] | None = None

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Keep the source of references; return the model itself."""
        del loss_of
        self._reference = reference
        return model

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """Two passes: the batch's gradient, and the reference's that it is laid along."""
        del progress
        assert self._reference is not None
        plain_backward(model, self._reference(), loss_of)
        trained = [p for p in model.parameters() if p.grad is not None]
        references = [p.grad for p in trained]
        for p in trained:
            p.grad = None
        loss = plain_backward(model, batch, loss_of)
        with torch.no_grad():
            for p, direction in zip(trained, references, strict=True):
                if p.grad is not None and direction is not None:
                    p.grad = aligned(p.grad, direction)
        return loss

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the model itself."""
        return model
