"""One probe, told once: a staged model in, facts out."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from scanner.probe.budget import token_budget
from scanner.probe.classifier import Asked, Found, probe_classifier
from scanner.probe.loading import load
from scanner.probe.records import ProbeFacts
from scanner.probe.running import OutOfTokens, Runner, batch_pool, one_torch_thread
from scanner.probe.shifting import Shifts, probe_shifts
from scanner.probe.staging import CannotProbe
from scanner.records import F32

MOST_SUSPECTS: Final = 64
"""Suspected tokens that are tried; the rest of the list is not looked at."""
MOST_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """What a probe may cost.

    ``parameters`` and ``weight_bytes`` are of models that are run at all. ``work`` is how many times the usual budget
    of tokens (``scanner.probe.budget``) may be run, None for no bound; what it leaves out is recorded. ``seconds`` is
    a last resort: a probe that takes longer ends without a result.
    """

    parameters: int = 160_000_000
    weight_bytes: int = 700_000_000
    work: float | None = 1.0
    seconds: float = 900.0


DEFAULT_LIMITS: Final = ProbeLimits()


def probe(
    folder: Path,
    *,
    suspects: Sequence[int] = (),
    phrases: Sequence[Sequence[int]] = (),
    whole_vocabulary: bool = True,
    base: F32 | None = None,
    limits: ProbeLimits = DEFAULT_LIMITS,
    threads: int | None = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ProbeFacts:
    """Run a model on made-up texts and measure which insertions decide what it says.

    Of a classifier it is measured which class follows (``directions``), of a causal language model which token, and of
    an encoder without a head where its texts come to lie (``shifts``).

    Args:
        folder: config.json, tokenizer and safetensors weights, as ``scanner.probe.staging.staged`` gives them or as
            any complete local folder holds them. No code from it is run.
        suspects: vocabulary ids that the weights suspect, most suspect first (``audit.suspects``).
        phrases: token ids of whole phrases to try as they stand, for example triggers found before.
        whole_vocabulary: also try every entry of the vocabulary.
        base: rows of the base's input embedding by the model's ids, float32 ``[ids, width]``, NaN where a token is not
            the base's (``scanner.meanings.base_meanings``): what tokens meant before anything was done to the model.
        limits: what it may cost.
        threads: that run texts side by side; None takes the processors that this process may use, up to
            ``MOST_THREADS``. What is measured does not depend on it.
        seed: draws carriers and control words.
        progress: hears how many texts were read.

    Raises:
        CannotProbe: the model does not load, is of a kind that is not probed, is too large, gave an output that is not
            finite, or took too long. The message is a clause that says which.
    """
    started = time.monotonic()
    count = min(threads or _processors(), MOST_THREADS)
    with one_torch_thread(), batch_pool(count) as pool:
        loaded = load(folder, most_parameters=limits.parameters)
        runner = Runner(
            loaded=loaded,
            deadline=started + limits.seconds,
            told=progress,
            most_tokens=None if limits.work is None else int(limits.work * token_budget(loaded.model)),
            pool=pool,
            # Of a language model every batch in flight holds a score for each entry of the vocabulary.
            workers=min(count, 2) if loaded.kind == "causal" else count,
        )
        asked = Asked(
            suspects=tuple(suspects)[:MOST_SUSPECTS],
            phrases=tuple(tuple(phrase) for phrase in phrases),
            whole_vocabulary=whole_vocabulary,
            base=base,
        )
        found, shifts = _probed(runner, asked, np.random.default_rng(seed))
    return ProbeFacts(
        kind=loaded.kind,
        classes=loaded.classes,
        directions=found.directions,
        left_out=found.left_out,
        scanned=found.scanned + shifts.scanned,
        sequences=runner.sequences,
        seconds=round(time.monotonic() - started, 3),
        seed=seed,
        shifts=shifts.insertions,
        control_shifts=shifts.controls,
        shifts_tried=shifts.tried,
        tokens=runner.tokens,
        budget=runner.most_tokens or 0,
        untried=(*found.untried, *shifts.untried),
        kin_of_base=found.kin_of_base,
    )


def _probed(runner: Runner, asked: Asked, rng: np.random.Generator) -> tuple[Found, Shifts]:
    """The one that this kind of model has, and the other one empty."""
    if runner.loaded.kind == "classifier":
        none = Shifts(insertions=(), controls=(), scanned=0, tried=0)
        return probe_classifier(runner, asked, rng), none
    try:
        shifts = probe_shifts(runner, asked, rng)
    except OutOfTokens:
        raise CannotProbe("the tokens that a probe may run were used up before anything was measured") from None
    return Found(directions=(), scanned=0, left_out=(), untried=()), shifts


def _processors() -> int:
    """Processors that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
