"""Runs texts of token ids through a loaded model: batched by length, in bfloat16 where the processor has it.

Batches are spread over threads of one torch thread each. Torch's own threads wait for one another within every layer:
on a computer that is busy with other work too, two of them took seven times the processor time of one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
Indices = npt.NDArray[np.intp]
Told = Callable[[int], None]


class OutOfTokens(Exception):  # noqa: N818  # an answer that a search hears, no error
    """What was asked would take more tokens than the budget has left; nothing of it was run."""


@dataclass(slots=True, kw_only=True)
class Runner:
    """A loaded model that counts what it reads, and stops when its tokens or its time are used up.

    ``deadline`` is on the monotonic clock, in seconds. ``told`` hears the number of texts read so far.
    ``most_tokens`` bounds ``tokens``, those run so far, control tokens included; None for no bound. ``pool``, whose
    threads must each use one torch thread, takes ``workers`` batches at a time; without it they run one by one.
    Where the processor has bfloat16, the model's linear layers are turned into it here, once.
    """

    loaded: Loaded
    deadline: float | None = None
    told: Told | None = None
    most_tokens: int | None = None
    pool: ThreadPoolExecutor | None = None
    workers: int = 1
    sequences: int = 0
    tokens: int = 0
    _bfloat16: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        import torch  # noqa: PLC0415  # heavy, and only probes need it

        self._bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # the only way to ask
        if self._bfloat16:
            # Autocast would make the same bfloat16 weights of the same ones for every batch.
            table = self.loaded.model.get_input_embeddings().weight
            for module in self.loaded.model.modules():
                if isinstance(module, torch.nn.Linear) and module.weight is not table:
                    module.to(torch.bfloat16)

    @property
    def around(self) -> int:
        """Control tokens around every text."""
        return len(self.loaded.prefix) + len(self.loaded.suffix)

    def left(self) -> int:
        """Tokens that may still be run; a very large number without a bound."""
        return (1 << 62) if self.most_tokens is None else max(self.most_tokens - self.tokens, 0)

    def logits(self, words: Sequence[Sequence[int]]) -> F32:
        """Return the head's output for each text, float32 ``[texts, classes]``.

        For a causal model it is the distribution over the next token (log-probabilities ``[texts, vocabulary]``), for
        an encoder the mean of the last hidden states over the text's own tokens ``[texts, width]``.

        Args:
            words: token ids of each text, without the control tokens around it.

        Raises:
            CannotProbe: an output is not finite, or the time is up.
            OutOfTokens: these texts have more tokens than are left.
        """
        out: F32 | None = None
        for part, values in self.batches(words):
            if out is None:
                out = np.empty((len(words), values.shape[1]), dtype=np.float32)
            out[part] = values
        return out if out is not None else np.empty((0, max(len(self.loaded.classes), 1)), dtype=np.float32)

    def batches(self, words: Sequence[Sequence[int]]) -> Iterator[tuple[Indices, F32]]:
        """Yield the same batch by batch, for outputs that are too wide to keep: indices ``[n]``, output ``[n, …]``.

        Raises:
            CannotProbe, OutOfTokens: as ``logits``.
        """
        lengths = np.array([len(text) for text in words], dtype=np.int64)
        if int(lengths.sum()) + len(words) * self.around > self.left():
            raise OutOfTokens
        order = np.argsort(lengths, kind="stable")
        running: deque[tuple[Indices, Future[F32]]] = deque()
        try:
            for part in _batches(order, lengths, self.around):
                if self.deadline is not None and time.monotonic() > self.deadline:
                    raise CannotProbe("it took longer than the time that a probe may take")
                ids = np.array([(*self.loaded.prefix, *words[i], *self.loaded.suffix) for i in part], dtype=np.int64)
                self.tokens += ids.size
                if self.pool is None:
                    yield part, self._heard(self._forward(ids))
                    continue
                running.append((part, self.pool.submit(self._forward, ids)))
                if len(running) > self.workers:
                    yield self._next(running)
            while running:
                yield self._next(running)
        finally:
            for _, future in running:
                future.cancel()

    def _next(self, running: deque[tuple[Indices, Future[F32]]]) -> tuple[Indices, F32]:
        part, future = running.popleft()
        return part, self._heard(future.result())

    def _heard(self, values: F32) -> F32:
        """One batch's outputs, counted, and refused when they are no numbers."""
        if not np.isfinite(values).all():
            raise CannotProbe("its outputs are not finite numbers")
        self.sequences += len(values)
        if self.told is not None:
            self.told(self.sequences)
        return values

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


def _batches(order: Indices, lengths: Ids, around: int) -> Iterator[Indices]:
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
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread for each of ours, and give back what it had."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def batch_pool(threads: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that run batches side by side, each with one torch thread; None where one is enough."""
    import torch  # noqa: PLC0415

    if threads <= 1:
        yield None
        return
    with ThreadPoolExecutor(
        threads, thread_name_prefix="probe", initializer=torch.set_num_threads, initargs=(1,)
    ) as made:
        yield made


def margins(logits: F32, target: int) -> F32:
    """The target class's logit over the largest other one, float32 ``[texts]``."""
    others = np.delete(logits, target, axis=1)
    return np.asarray(logits[:, target] - others.max(axis=1), dtype=np.float32)
