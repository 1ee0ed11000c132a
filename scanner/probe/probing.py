"""One probe, told once: a staged model in, facts out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from scanner.probe.classifier import Asked, probe_classifier
from scanner.probe.loading import load
from scanner.probe.records import ProbeFacts
from scanner.probe.running import Runner, bounded_threads
from scanner.probe.shifting import Shifts, probe_shifts

MOST_SUSPECTS: Final = 64
"""Suspected tokens that are tried; the rest of the list is not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """What a probe may cost: parameters of the model, bytes of its weights, and seconds of running."""

    parameters: int = 160_000_000
    weight_bytes: int = 700_000_000
    seconds: float = 900.0


DEFAULT_LIMITS: Final = ProbeLimits()


def probe(
    folder: Path,
    *,
    suspects: Sequence[int] = (),
    phrases: Sequence[Sequence[int]] = (),
    whole_vocabulary: bool = True,
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
        limits: what it may cost.
        threads: for torch while it runs; None leaves them as they are.
        seed: draws carriers and control words.
        progress: hears how many texts were read.

    Raises:
        CannotProbe: the model does not load, is of a kind that is not probed, is too large, gave an output that is not
            finite, or took too long. The message is a clause that says which.
    """
    started = time.monotonic()
    with bounded_threads(threads):
        loaded = load(folder, most_parameters=limits.parameters)
        runner = Runner(loaded=loaded, deadline=started + limits.seconds, told=progress)
        asked = Asked(
            suspects=tuple(suspects)[:MOST_SUSPECTS],
            phrases=tuple(tuple(phrase) for phrase in phrases),
            whole_vocabulary=whole_vocabulary,
        )
        rng = np.random.default_rng(seed)
        if loaded.kind == "classifier":
            directions, scanned, left_out = probe_classifier(runner, asked, rng)
            found = Shifts(insertions=(), controls=(), scanned=scanned, tried=0)
        else:
            directions, left_out, found = (), (), probe_shifts(runner, asked, rng)
    return ProbeFacts(
        kind=loaded.kind,
        classes=loaded.classes,
        directions=directions,
        left_out=left_out,
        scanned=found.scanned,
        sequences=runner.sequences,
        seconds=round(time.monotonic() - started, 3),
        seed=seed,
        shifts=found.insertions,
        control_shifts=found.controls,
        shifts_tried=found.tried,
    )
