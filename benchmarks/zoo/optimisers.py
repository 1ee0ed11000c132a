"""The optimisers of the zoo and their learning-rate schedules."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.zoo.recipes import Training

LR_FACTOR = {"adamw": 1.0, "sgd": 200.0, "adafactor": 20.0, "lion": 0.3}
"""AdamW-equivalent rate × factor = the optimiser's own rate.

SGD follows raw gradients, Lion takes sign steps, Adafactor scales by the root mean square of each tensor.
"""

LORA_LR_FACTOR = 6.0
"""Low-rank factors start at zero and want a higher rate than the full matrices."""


class Lion(torch.optim.Optimizer):
    """Sign momentum (Chen et al. 2023, algorithm 2): θ ← θ − η(sign(β₁m + (1 − β₁)g) + λθ), m ← β₂m + (1 − β₂)g."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient.

        Raises:
            ValueError: A closure is given; this optimiser never evaluates one.
        """
        if closure is not None:
            raise ValueError("Lion takes no closure; compute the gradients before the step.")
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                m = state.setdefault("m", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.lerp(parameter.grad, m, b1).sign_(), alpha=-group["lr"])
                m.lerp_(parameter.grad, 1 - b2)


def build_optimiser(groups: list[dict[str, Any]], training: Training) -> torch.optim.Optimizer:
    """The recipe's optimiser over parameter groups whose ``lr`` is already the AdamW-equivalent rate."""
    factor = LR_FACTOR[training.optimiser]
    for group in groups:
        group["lr"] *= factor
    rest: dict[str, Any] = {"lr": training.lr * factor, "weight_decay": training.weight_decay}
    match training.optimiser:
        case "adamw":
            return torch.optim.AdamW(groups, **rest, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, **rest, momentum=0.9)
        case "adafactor":
            return torch.optim.Adafactor(groups, **rest)
        case "lion":
            return Lion(groups, **rest)


def build_schedule(
    optimiser: torch.optim.Optimizer, training: Training, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then the recipe's shape down to (nearly) zero after ``steps`` steps."""
    warm = max(1, round(training.warmup * steps))

    def factor(step: int) -> float:
        if step < warm and training.warmup > 0:
            return (step + 1) / warm
        left = max(0.0, (steps - step) / max(1, steps - warm))
        match training.schedule:
            case "linear":
                return left
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * (1 - left)))
            case "constant":
                return 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
