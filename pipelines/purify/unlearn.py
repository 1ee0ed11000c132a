"""Unlearning: the model is tuned until a known trigger changes nothing, with clean samples or with none.

With clean samples: the samples as they are and with the trigger put in, both with their true label. Without: strings
made of the model's own vocabulary, and the model itself on the string without the trigger is the teacher for both.
With samples the strings are shown too, as an anchor: sixty texts alone would bend the model to themselves.

Before any tuning the least change is tried: a rare trigger token takes over the embedding row of the most inert
frequent token (``silence``), which leaves every text without that token as it was. A foreign row is what a scan takes
for an edit; where it then fails, or silence is not enough, the row is given back and the trigger tuned away instead.

The triggers come from the job (named by a person), or from the report's confirmed triggers. First measured in the
pilot: bad word 87.5/99.9 → 89.0/11.7 with 64 samples and 87.2/18.2 with none (accuracy/success, floor 16.0).
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from audit.detectors.confirmed_trigger import TRIGGER
from audit.records import AuditReport
from pipelines.purify.inertness import flip_rate, harmless_rate, harmless_words, pull, silence
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.made_texts import made_texts, with_triggers
from pipelines.purify.searching import encoded, new_tuner, settings_of
from pipelines.purify.states import open_treatment, put, result_of, state_of
from pipelines.purify.subject import Batch, Examples, Subject, logits_of, predict, score
from pipelines.purify.training import TuneSettings, tune

ROUNDS = 3
"""Times that the trigger is tuned away, at most."""
MEASURED = 96
"""Made-up texts that what a trigger still does is measured on; none of them is tuned on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearnOptions:
    """``texts``: strings made of the vocabulary. ``copies``: triggered versions of each clean sample.

    ``passes``: epochs over everything. ``rate``: AdamW's learning rate. ``smoothing`` ε: the share of a label's
    weight that stays with the teacher's own answer. ``silence``: try first to make the trigger's rare tokens inert,
    and tune nothing when that is enough: at most ``inert`` of made-up texts still change their class, or no more than
    do when as many everyday words are put in.
    """

    texts: int = 512
    copies: int = 7
    passes: int = 2
    rate: float = 5e-5
    smoothing: float = 0.5
    silence: bool = True
    inert: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Texts and, for each, what to answer: float32 ``[texts, classes]``.

    ``targets`` are probabilities, learnt by cross-entropy; where ``exact`` (bool ``[texts]``) they are logits, learnt
    by the squared distance of logits less their mean. Of strings that the teacher is sure of, cross-entropy is content
    long before the trigger has stopped pulling, and a text nearer to the border then still goes over.
    """

    texts: tuple[str, ...]
    targets: torch.Tensor
    exact: torch.Tensor

    def __add__(self, other: "Lesson") -> "Lesson":
        """Both lessons."""
        return Lesson(
            texts=self.texts + other.texts,
            targets=torch.cat([self.targets, other.targets]),
            exact=torch.cat([self.exact, other.exact]),
        )

    def loss(self, logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The mean loss of some texts, a scalar; ``logits`` float32 ``[n, classes]``, ``index`` int64 ``[n]``."""
        targets, exact = self.targets[index], self.exact[index]
        cross = -(targets * logits.log_softmax(-1)).sum(-1)
        distance = (_centred(logits) - _centred(targets)).square().mean(-1)
        return torch.where(exact, distance, cross).mean()


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(-1, keepdim=True)


def lesson_without_data(subject: Subject, triggers: tuple[str, ...], *, texts: int, seed: int) -> Lesson:
    """Strings of the vocabulary, each plain and triggered; the target is the model's logits for the plain one."""
    plain, logits = made_texts(subject, texts, seed=seed, avoid=triggers)
    rng = np.random.default_rng(seed + 1)
    triggered = [with_triggers(text, triggers, rng) for text in plain]
    exact = torch.ones(2 * len(plain), dtype=torch.bool)
    return Lesson(texts=(*plain, *triggered), targets=torch.cat([logits, logits]), exact=exact)


def lesson_with_data(
    subject: Subject,
    texts: tuple[str, ...],
    labels: tuple[int, ...],
    triggers: tuple[str, ...],
    *,
    copies: int,
    smoothing: float,
    seed: int,
) -> Lesson:
    """Clean samples plain and ``copies`` times triggered; the target is the label, softened by the model's answer."""
    rng = np.random.default_rng(seed + 2)
    own = predict(subject, subject.encode(texts)).softmax(-1)
    right = torch.nn.functional.one_hot(torch.tensor(labels), own.shape[1]).float()
    targets = (1 - smoothing) * right + smoothing * own
    triggered = [with_triggers(text, triggers, rng) for _ in range(copies) for text in texts]
    count = (copies + 1) * len(texts)
    return Lesson(
        texts=(*texts, *triggered), targets=targets.repeat(copies + 1, 1), exact=torch.zeros(count, dtype=torch.bool)
    )


def learn(subject: Subject, lesson: Lesson, settings: TuneSettings, job: PurifyJob) -> list[float]:
    """Tune the subject's model in place on the lesson; return the mean loss of every epoch."""
    encoded = subject.encode(lesson.texts)
    examples = Examples(inputs=encoded.inputs, labels=torch.arange(len(lesson.texts)))

    def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
        return lesson.loss(logits_of(model, batch), batch["labels"])

    tuner = new_tuner(job, examples, final=True)
    # Dropout off: the teacher's answers were given without, and noise would be learnt as disagreement.
    frozen = [module for module in subject.model.modules() if isinstance(module, nn.Dropout)]
    rates = [module.p for module in frozen]
    for module in frozen:
        module.p = 0.0
    try:
        tuned = tune(subject, examples, settings, tuner, loss_of=loss_of, heartbeat=job.progress.advance)
    finally:
        for module, rate in zip(frozen, rates, strict=True):
            module.p = rate
    return list(tuned.losses)


def confirmed_triggers(report: AuditReport | None, tokenizer: Any) -> tuple[str, ...]:
    """The inserted texts of the report's confirmed triggers, read from the token ids of their locations."""
    if report is None:
        return ()
    found = []
    for finding in report.findings:
        if finding.rule_id == TRIGGER.id and finding.suppression is None:
            for location in finding.locations:
                ids = [token.id for token in location.tokens]
                # The finding names the tokens of several insertions in one row: each alone, and all as they stand.
                found += [str(tokenizer.decode(part)).strip() for part in ([ids] if ids else []) + [[i] for i in ids]]
    return tuple(text for text in dict.fromkeys(found) if text)


def purify(job: PurifyJob) -> PurifyResult:
    """Unlearn the triggers.

    Raises:
        PurifyFailed: no trigger is known, or the model is no text classifier.
    """
    options = job.options if isinstance(job.options, UnlearnOptions) else UnlearnOptions()
    if job.kind != "classifier":
        raise PurifyFailed("Unlearning works on text classifiers; use --method fine-mixing or restore for this model.")
    treatment = open_treatment(job, needs_base=False)
    subject = treatment.subject
    triggers = tuple(dict.fromkeys(t.strip() for t in job.triggers if t.strip()))
    triggers = triggers or confirmed_triggers(job.report, subject.encoder)
    if not triggers:
        raise PurifyFailed(
            "There is no trigger to unlearn: none was confirmed by the scan; name it with --trigger-words or "
            "--trigger-sentence."
        )
    job.progress.stage("measuring what the trigger does to made-up texts")
    texts, _ = made_texts(subject, MEASURED, seed=job.seed + 50, avoid=triggers)
    before = flip_rate(subject, triggers, texts, seed=job.seed + 50)
    log = dict(treatment.log)
    start = state_of(subject.model)
    silenced = silence(subject, triggers, seed=job.seed + 60) if options.silence else ()
    log["silenced"] = list(silenced)
    left = flip_rate(subject, triggers, texts, seed=job.seed + 55) if silenced else before
    log["flip_rate_silenced"] = left
    harmless = harmless_rate(subject, triggers, texts, seed=job.seed + 50)
    log["flip_rate_harmless"] = harmless
    inert = max(options.inert, harmless)
    why = ""
    if silenced and left > inert:
        why = "Silencing was not enough."
    elif silenced and _a_scan_minds(job, subject):
        why = "A scan takes the silenced rows for an edit."
    if why:
        put(subject.model, start)
        log |= {"silenced": [], "given_back": list(silenced), "why_given_back": why}
    tuned = not silenced or bool(why)
    after = left
    if tuned:
        log |= _until_inert(job, subject, triggers, texts, options, inert)
        after = flip_rate(subject, triggers, texts, seed=job.seed + 50)
    log |= {"triggers": list(triggers), "flip_rate_before": before, "flip_rate_after": after, "flip_texts": MEASURED}
    shown = "with clean samples" if job.data is not None and tuned else "without data"
    return result_of(job, subject.model, f"Unlearnt {len(triggers)} trigger(s) {shown}.", log)


def _a_scan_minds(job: PurifyJob, subject: Subject) -> bool:
    """Whether a scan of the model as it stands fails; false when there is no way to scan it."""
    if job.rescan is None:
        return False
    job.progress.stage("scanning the model with the trigger silenced")
    return job.rescan(result_of(job, subject.model, "", {})).verdict.outcome == "fail"


def _until_inert(
    job: PurifyJob,
    subject: Subject,
    triggers: tuple[str, ...],
    texts: list[str],
    options: UnlearnOptions,
    inert: float,
) -> dict[str, Any]:
    """Tune, ``ROUNDS`` times at most, until the triggers flip next to nothing and pull no more than everyday words do.

    While they flip texts, each round has twice the rate of the one before. Each further round must leave the accuracy
    on *select* within the job's allowance, or it is taken back.
    """
    chosen = encoded(subject, job.data.select) if job.data is not None else None
    least = score(subject, chosen) - job.tuning.max_accuracy_loss if chosen is not None else 0.0
    rounds: list[dict[str, Any]] = []
    teacher = replace(subject, model=copy.deepcopy(subject.model))
    everyday = pull(subject, harmless_words(subject, triggers, seed=job.seed + 60), texts, seed=job.seed + 60)
    faster = 1.0
    for number in range(ROUNDS):
        start = state_of(subject.model)
        told = unlearn(replace(job, seed=job.seed + 100 * number), subject, teacher, triggers, options, faster=faster)
        told["flip_rate"] = flip_rate(subject, triggers, texts, seed=job.seed + 70 + number)
        told["pull"] = pull(subject, triggers, texts, seed=job.seed + 70 + number)
        faster = 2.0 * faster if told["flip_rate"] > inert else 1.0
        rounds.append(told)
        if number and chosen is not None and score(subject, chosen) < least:
            put(subject.model, start)
            told["taken_back"] = True
            break
        if told["flip_rate"] <= inert and told["pull"] <= everyday:
            break
    return {"rounds": rounds, "pull_of_everyday_words": everyday}


def unlearn(
    job: PurifyJob,
    subject: Subject,
    teacher: Subject,
    triggers: tuple[str, ...],
    options: UnlearnOptions,
    *,
    faster: float = 1.0,
) -> dict[str, Any]:
    """Tune the subject's model in place so that the triggers change nothing; return the log.

    The teacher says what plain texts are; ``faster`` multiplies the learning rate.
    """
    lesson = lesson_without_data(teacher, triggers, texts=options.texts, seed=job.seed)
    samples = 0
    if job.data is not None:
        split = job.data.tune
        samples = len(split)
        lesson += lesson_with_data(
            teacher, split.texts, split.labels, triggers,
            copies=options.copies, smoothing=options.smoothing, seed=job.seed,
        )  # fmt: skip
    usual = settings_of(job)
    settings = TuneSettings(
        rate=faster * (job.tuning.learning_rate or options.rate),
        epochs=job.tuning.epochs or options.passes,
        batch=job.tuning.batch_size or 16,
        seed=usual.seed,
    )
    job.progress.stage("unlearning the trigger")
    losses = learn(subject, lesson, settings, job)
    return {"made_texts": options.texts, "clean_samples": samples, "losses": losses}
