"""Low-rank tuning: adapters on the attention's projections and the whole head, merged into the weights at the end."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipelines.purify.subject import Batch
from pipelines.purify.training import LossOf, plain_backward

_ATTENTION = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "c_attn")
_HEADS = ("classifier", "score", "pre_classifier")


class LowRank:
    """LoRA through peft: rank 8, scale 2; needs a fraction of the memory for gradients and moments."""

    mergeable = True

    def __init__(self, *, rank: int = 8) -> None:
        self._rank = rank
        self._grad: list[tuple[nn.Parameter, bool]] = []

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """Wrap the attention's projections in place.

        Raises:
            ValueError: the model has none of the projections that are known by name.
        """
        del reference, loss_of
        from peft import LoraConfig, inject_adapter_in_model

        names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        targets = [name for name in _ATTENTION if name in names]
        if not targets:
            raise ValueError("No attention projection of this model is known; use another tuner.")
        self._grad = [(p, p.requires_grad) for p in model.parameters()]
        model.requires_grad_(False)
        fan = "c_attn" in targets
        config = LoraConfig(r=self._rank, lora_alpha=2 * self._rank, target_modules=targets, fan_in_fan_out=fan)
        wrapped: nn.Module = inject_adapter_in_model(config, model)
        for name, module in wrapped.named_children():
            if name in _HEADS:
                module.requires_grad_(True)
        return wrapped

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """One pass; only the factors and the head have gradients."""
        del progress
        return plain_backward(model, batch, loss_of)

    def finish(self, model: nn.Module) -> nn.Module:
        """Merge the factors and take the wrappers out, in place."""
        from peft.tuners.lora import LoraLayer

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, LoraLayer):
                    layer: Any = child
                    with torch.no_grad():
                        layer.merge()
                    setattr(parent, name, layer.get_base_layer())
        for parameter, wanted in self._grad:
            parameter.requires_grad_(wanted)
        return model
