"""What a model loses on given examples, one at a time, and the curvature that follows from it."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from scanner.curvature.fisher import mean_squared_gradients
from scanner.probe.loading import Loaded
from scanner.probe.staging import CannotProbe
from scanner.records import F32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

MAX_TOKENS: Final = 128
"""Longer texts are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Clean texts, and the index of each one's class; ``labels`` is empty for language models."""

    texts: Sequence[str]
    labels: Sequence[int] = ()


@dataclass(slots=True, kw_only=True)
class Losses:
    """−log p(y|x) of the examples, in nats: the label's, or the mean over the next tokens of a text.

    ``deadline`` is on the monotonic clock, in seconds. ``values`` and ``right`` fill up as the losses are made.
    """

    loaded: Loaded
    given: Given
    deadline: float
    values: list[float] = field(default_factory=list)
    right: int = 0

    def made(self) -> "Iterator[Tensor]":
        """Yield one loss after the other.

        Raises:
            CannotProbe: a loss is not finite, or the time is up.
        """
        for number, text in enumerate(self.given.texts):
            loss = self._of(text, self.given.labels[number] if self.given.labels else None)
            if loss is None:
                continue
            value = float(loss.detach())
            if not math.isfinite(value):
                raise CannotProbe("its loss on the given examples is not a finite number")
            if time.monotonic() > self.deadline:
                raise CannotProbe("it took longer on the given examples than a scan may take")
            self.values.append(value)
            yield loss

    def _of(self, text: str, label: int | None) -> "Tensor | None":
        """One loss; None for a text of a single token, which leaves nothing to predict."""
        import torch  # noqa: PLC0415  # heavy, and only scans with data need it
        from torch.nn import functional  # noqa: PLC0415

        longest = max(2, min(MAX_TOKENS, self.loaded.longest))
        ids = torch.tensor([self.loaded.tokenizer(text, truncation=True, max_length=longest)["input_ids"]])
        causal = self.loaded.kind == "causal"
        if ids.shape[1] < (2 if causal else 1):
            return None
        logits = self.loaded.model(input_ids=ids).logits.float()
        if causal:
            return functional.cross_entropy(logits[0, :-1], ids[0, 1:])
        assert label is not None
        self.right += int(logits[0].argmax()) == label
        return functional.cross_entropy(logits, torch.tensor([label]))


def curvature_of(losses: Losses, *, told: "Callable[[int, int], None] | None" = None) -> "Mapping[str, F32]":
    """Return H by parameter name, float32, in the parameters' shapes.

    Raises:
        CannotProbe: the model has no loss on labelled texts or on texts, a value is not finite, or the time is up.
    """
    import torch  # noqa: PLC0415

    if losses.loaded.kind == "encoder":
        raise CannotProbe("it has no head, so the given examples give it no loss")
    total = len(losses.given.texts)
    try:
        with torch.enable_grad():
            found = mean_squared_gradients(
                losses.loaded.model, losses.made(), told=None if told is None else lambda done: told(done, total)
            )
    except ValueError:
        raise CannotProbe("none of the given examples has anything to predict") from None
    except (RuntimeError, IndexError) as error:  # whatever a stranger's model does in the middle
        raise CannotProbe(f"it breaks on the given examples ({type(error).__name__})") from error
    curvature = {name: np.asarray(mean.numpy(), dtype=np.float32) for name, mean in found.items()}
    if not all(np.isfinite(values).all() for values in curvature.values()):
        raise CannotProbe("its gradients on the given examples are not finite numbers")
    return curvature
