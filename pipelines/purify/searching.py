"""Finding a ratio: from the strongest repair to the weakest, the first whose tuned accuracy is still good enough.

The accuracy is that on the *select* split and never anything about a trigger, which nobody knows. Every trial is
kept in the job's work folder, so that a stopped search goes on where it was.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.purify.job import PurifyFailed, PurifyJob, Split
from pipelines.purify.states import State, Treatment, put, state_of
from pipelines.purify.subject import Examples, Subject, score
from pipelines.purify.training import Tuned, Tuner, TuneSettings, tune
from pipelines.purify.tuners.catalogue import make_tuner


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The ratio chosen and how it was: ``log`` is JSON-able. The subject's model holds the outcome."""

    ratio: float
    reached: bool
    log: dict[str, Any]


def settings_of(job: PurifyJob) -> TuneSettings:
    """The job's tuning with the defaults of this harness: 10 epochs, batch 16, AdamW 5e-5 [open in the papers]."""
    tuning, usual = job.tuning, TuneSettings()
    return TuneSettings(
        rate=tuning.learning_rate or usual.rate,
        epochs=tuning.epochs or usual.epochs,
        batch=tuning.batch_size or usual.batch,
        seed=job.seed,
    )


def encoded(subject: Subject, split: Split) -> Examples:
    """A split of the clean data as the subject's tensors."""
    return subject.encode(split.inputs, split.labels or None)


def new_tuner(job: PurifyJob, examples: Examples, *, final: bool = False) -> Tuner:
    """The job's tuner for one run; ``final`` replaces one that cannot merge by the vanilla one."""
    settings = settings_of(job)
    steps = settings.epochs * math.ceil(len(examples) / settings.batch)
    tuner = make_tuner(job.tuning.tuner, steps=steps)
    return make_tuner("vanilla", steps=steps) if final and not tuner.mergeable else tuner


def ratios_between(strongest: float, weakest: float, step: float) -> tuple[float, ...]:
    """From the strongest repair to the weakest, both ends included.

    Raises:
        PurifyFailed: the step is not within (0, 1].
    """
    if not 0 < step <= 1:
        raise PurifyFailed(f"The grid's step must be above 0 and at most 1, not {step}.")
    count = max(1, round(abs(weakest - strongest) / step))
    return tuple(round(strongest + (weakest - strongest) * k / count, 6) for k in range(count + 1))


def search(
    job: PurifyJob, treatment: Treatment, ratios: Sequence[float], state_at: Callable[[float], State], *, key: str
) -> Found:
    """Try the ratios in order, stop at the first that passes, and leave its tuned weights in the subject's model.

    A ratio passes when the accuracy on ``select`` after tuning on ``tune`` is at least the candidate's own minus
    ``job.tuning.max_accuracy_loss``. When none passes the most accurate is taken and ``reached`` is false.

    Args:
        job: Data, tuning, seed and work folder.
        treatment: The loaded subject.
        ratios: From the strongest repair to the weakest.
        state_at: The weights at a ratio, before tuning; names that it leaves out stay the candidate's.
        key: Names the search in the work folder: the same key must mean the same method and options.
    """
    subject, data = treatment.subject, job.require_data()
    tune_on, select_on = encoded(subject, data.tune), encoded(subject, data.select)
    if not len(tune_on) or not len(select_on):
        raise PurifyFailed("The clean samples are too few to tune on some and choose with others; give more of them.")
    start = state_of(subject.model)
    before = score(subject, select_on)
    threshold = before - job.tuning.max_accuracy_loss
    trials = _Trials(job.work / f"{key}.json")
    tuner = new_tuner(job, tune_on)
    last: tuple[float, Tuned] | None = None
    for number, ratio in enumerate(ratios):
        if trials.known(ratio) is None:
            job.progress.stage(f"{key}: ratio {ratio:g}, {number + 1} of {len(ratios)} at most")
            put(subject.model, start)
            put(subject.model, state_at(ratio))
            outcome = tune(subject, tune_on, settings_of(job), new_tuner(job, tune_on), heartbeat=job.progress.advance)
            last = ratio, outcome
            accuracy = score(replace(subject, model=outcome.model), select_on)
            trials.add(ratio, {"select_accuracy": accuracy, "last_loss": outcome.losses[-1]})
        if _accuracy(trials.known(ratio)) >= threshold:
            break
    tried = [ratio for ratio in ratios if trials.known(ratio) is not None]
    passing = [ratio for ratio in tried if _accuracy(trials.known(ratio)) >= threshold]
    chosen = passing[0] if passing else max(tried, key=lambda ratio: _accuracy(trials.known(ratio)))
    if last is not None and last[0] == chosen and tuner.mergeable:
        outcome = last[1]
    else:
        put(subject.model, start)
        put(subject.model, state_at(chosen))
        outcome = tune(
            subject, tune_on, settings_of(job), new_tuner(job, tune_on, final=True),
            checkpoint=job.work / f"{key}-final.safetensors", heartbeat=job.progress.advance,
        )  # fmt: skip
    log = {
        "select_before": before,
        "threshold": threshold,
        "select_size": len(select_on),
        "trials": [trials.known(ratio) for ratio in tried],
        "ratio": chosen,
        "reached": bool(passing),
        "losses": list(outcome.losses),
    }
    return Found(ratio=chosen, reached=bool(passing), log=log)


def _accuracy(trial: dict[str, Any] | None) -> float:
    return float(trial["select_accuracy"]) if trial is not None else -1.0


class _Trials:
    """Outcomes by ratio, in one JSON file that is replaced in one move."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def known(self, ratio: float) -> dict[str, Any] | None:
        return self._known.get(f"{ratio:g}")

    def add(self, ratio: float, outcome: dict[str, Any]) -> None:
        self._known[f"{ratio:g}"] = {"ratio": ratio, **outcome}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(f".{os.getpid()}.part")
        partial.write_text(json.dumps(self._known), encoding="utf-8")
        partial.replace(self._path)
