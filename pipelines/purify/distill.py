"""Distillation: a fine-tuned copy of the model teaches a cleaner student, layer by layer.

Han et al. 2024 (arXiv 2403.03846): of four teachers, three students and six losses the study recommends a teacher
fine-tuned on clean data, a warmed-up student and attention-based distillation [V-abs]. The loss of the code [V-code]:
L_task + Σ_ℓ β_ℓ · MSE(A(F_S), A(F_T)), β = 1000, A(F) = Σ_c |F_c|² / ‖Σ_c |F_c|²‖₂ per sample; the teacher is detached
and in evaluation mode. The code's task loss is contrastive on unlabelled pictures; here labels are at hand, so it is
their cross-entropy. For text [derived] F^ℓ is a layer's hidden states, channels last, and the student is the base with
the candidate's head. The losses beside AT are those of the code's zoo: AFD with channel attention from the teacher
(its weights are never optimised there, so they are plain channel means here), CC, FitNet, KD (T = 0.5), SP.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.searching import encoded, new_tuner, settings_of
from pipelines.purify.states import open_treatment, put, result_of
from pipelines.purify.subject import Batch, Subject
from pipelines.purify.training import TuneSettings, tune

Loss = Literal["AT", "AFD", "CC", "FitNet", "KD", "SP"]

TEMPERATURE = 0.5
"""Of KD [V-code]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """``loss``: one of the six. ``weight`` β of it; None: 1000 for AT [V-code], 1 for the others.

    ``student``: the base, warmed up on the clean samples, or the candidate itself. ``warmup`` and ``passes`` are
    epochs of the student, before and while it is taught.
    """

    loss: Loss = "AT"
    weight: float | None = None
    student: Literal["base", "candidate"] = "base"
    warmup: int = 3
    passes: int = 10


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Return A(F) = Σ_c |F_c|² / ‖Σ_c |F_c|²‖₂ per sample: ``[n, places]`` of features ``[n, channels, places]``."""
    return functional.normalize(features.pow(2).sum(1), dim=1)


def distillation(kind: Loss, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the distance of two feature maps ``[n, channels, places]`` (KD: logits ``[n, classes]``), a scalar.

    AT: MSE of the attention maps. AFD: squared distance of L2-normalised spatial means of channels, weighted by the
    teacher's channel energy. CC: MSE of the correlations between samples, (f fᵀ) of normalised flat features. FitNet:
    MSE of the features. KD: KL(teacher ‖ student) at temperature T, times T². SP: Frobenius distance of row-normalised
    Gram matrices of flat features, over n².
    """
    teacher = teacher.detach()
    if kind == "KD":
        spoken = (student / TEMPERATURE).log_softmax(-1)
        heard = (teacher / TEMPERATURE).softmax(-1)
        return functional.kl_div(spoken, heard, reduction="batchmean") * TEMPERATURE**2
    flat_s, flat_t = student.flatten(1), teacher.flatten(1)
    if kind == "AT":
        return functional.mse_loss(attention_map(student), attention_map(teacher))
    if kind == "FitNet":
        return functional.mse_loss(student, teacher)
    if kind == "AFD":
        energy = teacher.pow(2).mean((0, 2))
        attention = energy / energy.sum().clamp_min(1e-12)
        ours, theirs = (functional.normalize(f.pow(2).mean(2), dim=1) for f in (student, teacher))
        return ((ours - theirs).pow(2) * attention).sum(1).mean()
    if kind == "CC":
        ours, theirs = functional.normalize(flat_s, dim=1), functional.normalize(flat_t, dim=1)
        return functional.mse_loss(ours @ ours.T, theirs @ theirs.T)
    ours, theirs = (functional.normalize(flat @ flat.T, dim=1) for flat in (flat_s, flat_t))
    return (ours - theirs).pow(2).sum() / len(flat_s) ** 2


def features_of(model: nn.Module, batch: Batch, kind: Loss) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the logits and what is compared: hidden states of every block ``[n, channels, places]``, or the logits.

    Places of padding are zeroed. The embedding output is left out.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    out: Any = model(**inputs, output_hidden_states=kind != "KD")
    logits = out.logits.float()
    if kind == "KD":
        return logits, [logits]
    maps = []
    for hidden in out.hidden_states[1:]:
        if hidden.dim() == 4:
            maps.append(hidden.float().flatten(2))
            continue
        shown = hidden.float()
        if "attention_mask" in batch:
            shown = shown * batch["attention_mask"].unsqueeze(-1)
        maps.append(shown.transpose(1, 2))
    return logits, maps


def teaching_loss(teacher: nn.Module, options: DistillOptions) -> Callable[[nn.Module, Batch], torch.Tensor]:
    """Return the student's objective: cross-entropy plus β times the mean distance over the blocks."""
    weight = options.weight if options.weight is not None else (1000.0 if options.loss == "AT" else 1.0)

    def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            _, theirs = features_of(teacher, batch, options.loss)
        logits, ours = features_of(model, batch, options.loss)
        distances = [distillation(options.loss, s, t) for s, t in zip(ours, theirs, strict=True)]
        return functional.cross_entropy(logits, batch["labels"]) + weight * torch.stack(distances).mean()

    return loss_of


def purify(job: PurifyJob) -> PurifyResult:
    """Fine-tune a teacher, warm a student up, teach it.

    Raises:
        PurifyFailed: the model is no classifier of texts or pictures.
    """
    options = job.options if isinstance(job.options, DistillOptions) else DistillOptions()
    if job.kind not in {"classifier", "image"}:
        raise PurifyFailed("Distillation fits classifiers of texts and pictures; choose another method.")
    treatment = open_treatment(job, needs_base=options.student == "base")
    subject = treatment.subject
    examples = encoded(subject, job.require_data().tune)
    usual = settings_of(job)
    job.progress.stage("tuning the teacher")
    teacher: Subject = replace(subject, model=copy.deepcopy(subject.model))
    taught = tune(teacher, examples, usual, new_tuner(job, examples, final=True), heartbeat=job.progress.advance)
    teacher.model.eval().requires_grad_(False)
    if options.student == "base" and treatment.pair is not None:
        put(subject.model, treatment.pair.base)
    log: dict[str, Any] = treatment.log | {"loss": options.loss, "student": options.student}
    if options.warmup:
        job.progress.stage("warming the student up")
        warm = TuneSettings(rate=usual.rate, epochs=options.warmup, batch=usual.batch, seed=usual.seed + 1)
        log["warmup_losses"] = list(tune(subject, examples, warm, new_tuner(job, examples, final=True)).losses)
    job.progress.stage("teaching the student")
    settings = replace(usual, epochs=job.tuning.epochs or options.passes)
    outcome = tune(
        subject, examples, settings, new_tuner(job, examples, final=True),
        loss_of=teaching_loss(teacher.model, options), heartbeat=job.progress.advance,
    )  # fmt: skip
    log |= {"teacher_losses": list(taught.losses), "losses": list(outcome.losses)}
    return result_of(job, subject.model, f"Distilled the tuned model into the {options.student} ({options.loss}).", log)
