"""The plain tuner: the gradient of the loss, every weight trained."""

from collections.abc import Callable

from torch import nn

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward


class Vanilla:
    """Nothing but back-propagation."""

    mergeable = True

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Return the model itself."""
        del reference, loss_of
        return model

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """Fill the gradients; return the loss."""
        del progress
        return plain_backward(model, batch, loss_of)

    def finish(self, model: nn.Module) -> nn.Module:
        """Return the model itself."""
        return model
