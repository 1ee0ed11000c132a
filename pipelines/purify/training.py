"""One small tuning loop for every method: seeded, resumable, autocast inside the step, an error on NaN.

A ``Tuner`` decides how gradients come about; the loop owns order, clipping, schedule, checkpoints and progress.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.purify.job import PurifyFailed
from pipelines.purify.subject import Batch, Examples, Subject, autocast

LossOf = Callable[[nn.Module, Batch], torch.Tensor]
Heartbeat = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """How long and how fast.

    ``rate`` is AdamW's learning rate, decaying linearly to zero after a warm-up over ``warmup`` of the steps;
    ``decay`` its weight decay; ``clip`` the largest norm of all gradients together.
    """

    rate: float = 5e-5
    epochs: int = 10
    batch: int = 16
    warmup: float = 0.1
    decay: float = 0.0
    clip: float = 1.0
    seed: int = 0


class Tuner(Protocol):
    """How a step's gradients are made. An object serves one run."""

    @property
    def mergeable(self) -> bool:
        """Whether ``finish`` leaves what was learnt in the plain model's own weights."""

    def prepare(self, model: nn.Module, reference: Callable[[], Batch], loss_of: LossOf) -> nn.Module:
        """The model to train: the same, or wrapped. ``reference`` draws a batch of clean examples."""

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """Fill ``.grad`` of the trained parameters and return the loss; ``progress`` runs in [0, 1)."""

    def finish(self, model: nn.Module) -> nn.Module:
        """The plain model again."""


class DivergedError(PurifyFailed):
    """Training ended in a loss that is no number; no weights are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """``model`` is what to score: the subject's own, or with a tuner that cannot merge, the wrapped one.

    ``losses`` holds the mean loss of every epoch, in nats.
    """

    model: nn.Module
    losses: tuple[float, ...]


def tune(
    subject: Subject,
    examples: Examples,
    settings: TuneSettings,
    tuner: Tuner,
    *,
    loss_of: LossOf | None = None,
    checkpoint: Path | None = None,
    heartbeat: Heartbeat | None = None,
) -> Tuned:
    """Train the subject's model in place on the examples.

    Args:
        subject: Its model is changed in place.
        examples: Shown once an epoch, in a new random order each.
        settings: Rate, epochs, batch, seed.
        tuner: How gradients come about.
        loss_of: The objective; the subject's own cross-entropy without one.
        checkpoint: A file written after each epoch and read at the start, so that a stopped run goes on; deleted at
            the end. Only for tuners whose model keeps its parameter names between runs.
        heartbeat: Called with (steps done, steps in all).

    Raises:
        DivergedError: the loss is not finite. The model's weights are void then.
        ValueError: there are no examples.
    """
    if not len(examples):
        raise ValueError("There are no examples to tune on.")
    objective = loss_of or subject.loss
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    steps = settings.epochs * math.ceil(len(examples) / settings.batch)
    draws = torch.Generator().manual_seed(settings.seed + 1)

    def reference() -> Batch:
        index = torch.randint(len(examples), (min(settings.batch, len(examples)),), generator=draws)
        return subject.collate(examples, index.tolist())

    model = tuner.prepare(subject.model, reference, objective)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate_factor(step, steps, settings.warmup))
    losses, done = _resume(checkpoint, model, optimiser, schedule)
    model.train()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        if epoch < len(losses):
            continue
        # A resumed epoch must draw the same dropout as an uninterrupted one.
        torch.manual_seed(settings.seed + 7919 * (epoch + 1))
        epoch_losses = []
        for start in range(0, len(order), settings.batch):
            batch = subject.collate(examples, order[start : start + settings.batch])
            loss = tuner.backward(model, batch, objective, done / steps)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"Tuning diverged: the loss is {loss} at step {done + 1} of {steps}. Nothing was written; lower "
                    "the learning rate."
                )
            nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            epoch_losses.append(loss)
            done += 1
            if heartbeat is not None:
                heartbeat(done, steps)
        losses.append(sum(epoch_losses) / len(epoch_losses))
        if checkpoint is not None:
            _write(checkpoint, model, optimiser, losses, done)
    finished = tuner.finish(model).eval()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Tuned(model=finished, losses=tuple(losses))


def plain_backward(model: nn.Module, batch: Batch, loss_of: LossOf) -> float:
    """One forward and backward pass in bfloat16; gradients are added to ``.grad``. Returns the loss."""
    with autocast():
        loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _rate_factor(step: int, steps: int, warmup: float) -> float:
    warm = max(1, round(warmup * steps))
    if step < warm:
        return (step + 1) / warm
    return max(0.0, (steps - step) / max(1, steps - warm))


def _write(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, losses: list[float], done: int) -> None:
    """Weights and AdamW's moments in one safetensors file, put in place in one move."""
    tensors: dict[str, torch.Tensor] = {"losses": torch.tensor(losses, dtype=torch.float64), "done": torch.tensor(done)}
    for k, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        tensors[f"weight.{k}"] = parameter.detach().clone()
        state = optimiser.state[parameter]
        if state:
            tensors[f"first.{k}"] = state["exp_avg"]
            tensors[f"second.{k}"] = state["exp_avg_sq"]
            tensors[f"step.{k}"] = torch.as_tensor(state["step"]).reshape(1)
    for name, buffer in model.named_buffers():
        tensors[f"buffer.{name}"] = buffer.detach().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(tensors, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _resume(
    path: Path | None,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> tuple[list[float], int]:
    """What a checkpoint holds is put back; without one, nothing is and the run starts at its beginning."""
    if path is None or not path.exists():
        return [], 0
    tensors = load_file(path)
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith("buffer."):
                buffers[name.removeprefix("buffer.")].copy_(tensor)
        for k, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
            parameter.copy_(tensors[f"weight.{k}"])
            if f"first.{k}" in tensors:
                optimiser.state[parameter] = {
                    "step": tensors[f"step.{k}"].reshape(()).float(),
                    "exp_avg": tensors[f"first.{k}"],
                    "exp_avg_sq": tensors[f"second.{k}"],
                }
    done = int(tensors["done"])
    schedule.last_epoch = done
    for group, base in zip(optimiser.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = base * schedule.lr_lambdas[0](done)
    return tensors["losses"].tolist(), done
