"""Runs texts of token ids through a loaded model: batched by length, in bfloat16 where the processor has it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.probe.loading import Loaded
from scanner.probe.staging import CannotProbe
from scanner.records import F32

BATCH_TOKENS: Final = 1536
"""Tokens per batch: larger ones leave the processor's cache."""

Ids = npt.NDArray[np.int64]
Told = Callable[[int], None]


@dataclass(slots=True, kw_only=True)
class Runner:
    """A loaded model that counts what it reads and stops when its time is up.

    ``deadline`` is on the monotonic clock, in seconds. ``told`` hears the number of texts read so far.
    """

    loaded: Loaded
    deadline: float | None = None
    told: Told | None = None
    sequences: int = 0
    _bfloat16: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        import torch  # noqa: PLC0415  # heavy, and only probes need it

        self._bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # the only way to ask

    def logits(self, words: Sequence[Sequence[int]]) -> F32:
        """Return the head's output for each text, float32 ``[texts, classes]``.

        For a causal model it is the distribution over the next token (log-probabilities ``[texts, vocabulary]``), for
        an encoder the mean of the last hidden states over the text's own tokens ``[texts, width]``.

        Args:
            words: token ids of each text, without the control tokens around it.

        Raises:
            CannotProbe: an output is not finite, or the time is up.
        """
        out: F32 | None = None
        for part, values in self.batches(words):
            if out is None:
                out = np.empty((len(words), values.shape[1]), dtype=np.float32)
            out[part] = values
        return out if out is not None else np.empty((0, max(len(self.loaded.classes), 1)), dtype=np.float32)

    def batches(self, words: Sequence[Sequence[int]]) -> Iterator[tuple[npt.NDArray[np.intp], F32]]:
        """Yield the same batch by batch, for outputs that are too wide to keep: indices ``[n]``, output ``[n, …]``.

        Raises:
            CannotProbe: as ``logits``.
        """
        lengths = np.array([len(text) for text in words], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        before, after = self.loaded.prefix, self.loaded.suffix
        for part in _batches(order, lengths, len(before) + len(after)):
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise CannotProbe("it took longer than the time that a probe may take")
            ids = np.array([(*before, *words[i], *after) for i in part], dtype=np.int64)
            values = self._forward(ids)
            if not np.isfinite(values).all():
                raise CannotProbe("its outputs are not finite numbers")
            yield part, values
            self.sequences += len(part)
            if self.told is not None:
                self.told(self.sequences)

    def _forward(self, ids: Ids) -> F32:
        import torch  # noqa: PLC0415

        model: Any = self.loaded.model
        # All texts of a batch have one length, so no mask is needed. Autocast stays inside the step: around a loop it
        # would serve cast weights that are no longer the model's, should a caller change them in between.
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            if self.loaded.kind == "encoder":
                hidden = model(input_ids=torch.from_numpy(ids)).last_hidden_state.float()
                first, last = len(self.loaded.prefix), ids.shape[1] - len(self.loaded.suffix)
                return np.asarray(hidden[:, first:last].mean(1).numpy(), dtype=np.float32)
            last_alone = {"logits_to_keep": 1} if self.loaded.keeps_last else {}
            scores = model(input_ids=torch.from_numpy(ids), **last_alone).logits.float()
            if self.loaded.kind == "causal":
                scores = scores[:, -1].log_softmax(-1)
        return np.asarray(scores.numpy(), dtype=np.float32)


def _batches(order: npt.NDArray[np.intp], lengths: Ids, around: int) -> Iterator[npt.NDArray[np.intp]]:
    """Runs of equal length, cut to at most ``BATCH_TOKENS`` tokens each."""
    start = 0
    while start < len(order):
        length = int(lengths[order[start]])
        most = max(1, BATCH_TOKENS // (length + around))
        end = start
        while end < len(order) and end - start < most and lengths[order[end]] == length:
            end += 1
        yield order[start:end]
        start = end


@contextmanager
def bounded_threads(threads: int | None) -> Iterator[None]:
    """Let torch use this many threads, and give back what it had."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def margins(logits: F32, target: int) -> F32:
    """The target class's logit over the largest other one, float32 ``[texts]``."""
    others = np.delete(logits, target, axis=1)
    return np.asarray(logits[:, target] - others.max(axis=1), dtype=np.float32)
