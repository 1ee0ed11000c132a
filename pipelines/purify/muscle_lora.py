"""MuScleLoRA: training from the base that is slow to learn what a backdoor needs, steered by a few clean samples.

Wu et al. 2024 (ACL), read in the official code [V-code]. (1) LoRA on the attention, backbone frozen (r = 8, α = 32);
the classifier stays frozen. (2) A multi-scale low-rank branch beside one dense layer (BERT: the pooler's, RoBERTa: the
classifier's): y = W₀x + b₀ + (α/s)·R·diag(K)·L·x with radial scalings K, inner rank s = 1, α = 6, L and R both
Kaiming-uniform. (3) Gradient alignment with one batch of clean reference samples a step: per tensor
g_al = |‖g‖cos(g, g_ref)/‖g_ref‖|·g_ref while the reference is not learnt yet (loss > 0.4, mean norm > 5e-7), later
(1 − q)g_al + qg with q = 0.1·(epoch − 1)/(epochs − 1); in epoch 0 otherwise g. (4) AdamW, clipped at 1.

The defender trains, on a set that may be poisoned: ``untrusted`` names it (a file as ``--data`` takes them). Without
one the clean *tune* samples are that set. *select* is the clean reference. Both branches are linear, so the outcome is
folded into the plain weights. The head: the candidate's instead of a random one [ours], which the base lacks.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipelines.purify.data import DataSpec, load_samples
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.searching import encoded, settings_of
from pipelines.purify.states import open_treatment, put, result_of
from pipelines.purify.subject import Batch, Examples, Subject
from pipelines.purify.training import LossOf, TuneSettings, plain_backward, tune

SCALES = {
    "bert": (1.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0),
    "roberta": (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0),
    "large": tuple(float(k) for k in range(1, 10)),
}
"""K by family [V-code]; ``large`` is for hidden sizes of 1,024 and more."""

_TARGETS = ("query", "value", "q_lin", "v_lin")
_DENSE = ("pooler.dense", "classifier.dense", "pre_classifier")
_LEARNT_LOSS, _LEAST_NORM, _MOST_MIX = 0.4, 5e-7, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MuscleLoraOptions:
    """``untrusted``: the training set that may be poisoned, a file as ``--data`` takes them.

    ``rank`` and ``alpha``: of LoRA. ``scale_alpha`` α of the multi-scale branch, ``inner`` its inner rank s.
    ``epochs`` over the untrusted set. ``align``: use gradient alignment.
    """

    untrusted: str = ""
    rank: int = 8
    alpha: int = 32
    scale_alpha: float = 6.0
    inner: int = 1
    epochs: int = 10
    align: bool = True


class MultiScale(nn.Module):
    """A frozen dense layer with the branch (α/s)·R·diag(K)·L beside it."""

    def __init__(self, dense: nn.Linear, scales: tuple[float, ...], *, alpha: float = 6.0, inner: int = 1) -> None:
        super().__init__()
        self.dense = dense.requires_grad_(False)
        self.left = nn.Parameter(torch.empty(len(scales) * inner, dense.in_features))
        self.right = nn.Parameter(torch.empty(dense.out_features, len(scales) * inner))
        self.scales: torch.Tensor
        self.register_buffer("scales", torch.tensor(scales).repeat_interleave(inner), persistent=False)
        self.factor = alpha / inner
        for parameter in (self.left, self.right):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        branch = (x @ self.left.T) * self.scales
        out: torch.Tensor = self.dense(x) + self.factor * branch @ self.right.T
        return out

    def merged(self) -> nn.Linear:
        """The dense layer with the branch folded into its weight."""
        with torch.no_grad():
            self.dense.weight += self.factor * (self.right * self.scales) @ self.left
        return self.dense


class Aligned:
    """The tuner of the method: wraps, aligns and folds."""

    mergeable = True

    def __init__(self, subject: Subject, reference: Examples, options: MuscleLoraOptions, *, seed: int) -> None:
        self._subject, self._examples, self._options = subject, reference, options
        self._draws = torch.Generator().manual_seed(seed + 17)
        self._grad: list[tuple[nn.Parameter, bool]] = []

    def prepare(self, model: nn.Module, reference: object, loss_of: LossOf) -> nn.Module:
        """Freeze the model, put the low-rank factors and the multi-scale branch in.

        Raises:
            PurifyFailed: none of the layers that the method names is there.
        """
        del reference, loss_of
        from peft import LoraConfig, inject_adapter_in_model

        modules = dict(model.named_modules())
        dense = next((n for n in modules if n.endswith(_DENSE) and isinstance(modules[n], nn.Linear)), None)
        targets = [t for t in _TARGETS if any(name.endswith(f".{t}") for name in modules)]
        if dense is None or not targets:
            raise PurifyFailed("MuScleLoRA knows BERT, RoBERTa and DistilBERT shapes; choose another method.")
        self._grad = [(p, p.requires_grad) for p in model.parameters()]
        model.requires_grad_(False)
        config = LoraConfig(r=self._options.rank, lora_alpha=self._options.alpha, target_modules=targets)
        wrapped: nn.Module = inject_adapter_in_model(config, model)
        parent, _, name = dense.rpartition(".")
        layer = modules[dense]
        assert isinstance(layer, nn.Linear)
        scaled = MultiScale(layer, scales_of(model.config), alpha=self._options.scale_alpha, inner=self._options.inner)
        setattr(wrapped.get_submodule(parent), name, scaled)
        return wrapped

    def backward(self, model: nn.Module, batch: Batch, loss_of: LossOf, progress: float) -> float:
        """One step's gradients, aligned with one batch of the clean reference."""
        if not self._options.align:
            return plain_backward(model, batch, loss_of)
        size = min(len(batch["labels"]), len(self._examples))
        index = torch.randint(len(self._examples), (size,), generator=self._draws).tolist()
        reference_loss = plain_backward(model, self._subject.collate(self._examples, index), loss_of)
        trained = [p for p in model.parameters() if p.grad is not None]
        references = [p.grad for p in trained]
        for p in trained:
            p.grad = None
        loss = plain_backward(model, batch, loss_of)
        norms = [float(r.norm()) for r in references if r is not None]
        unlearnt = sum(norms) / max(1, len(norms)) > _LEAST_NORM and reference_loss > _LEARNT_LOSS
        keep = own_share(progress, self._options.epochs, unlearnt=unlearnt)
        with torch.no_grad():
            for p, reference in zip(trained, references, strict=True):
                if p.grad is not None and reference is not None:
                    p.grad = keep * p.grad + (1 - keep) * projected(p.grad, reference)
        return loss

    def finish(self, model: nn.Module) -> nn.Module:
        """Fold both kinds of factors into the plain weights, in place."""
        from peft.tuners.lora import LoraLayer

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                layer: Any = child
                if isinstance(child, MultiScale):
                    setattr(parent, name, child.merged())
                elif isinstance(child, LoraLayer):
                    layer.merge()
                    setattr(parent, name, layer.get_base_layer())
        for parameter, wanted in self._grad:
            parameter.requires_grad_(wanted)
        return model


def projected(gradient: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return |‖g‖cos(g, g_ref)/‖g_ref‖|·g_ref, shaped as both; zero where the reference is."""
    square = float((reference * reference).sum())
    return reference * (abs(float((gradient * reference).sum())) / square) if square else torch.zeros_like(reference)


def own_share(progress: float, epochs: int, *, unlearnt: bool) -> float:
    """Return the share of the batch's own gradient in [0, 1]; ``progress`` through the run in [0, 1)."""
    if unlearnt:
        return 0.0
    epoch = int(progress * epochs)
    if epoch == 0:
        return 1.0
    return _MOST_MIX * (epoch - 1) / max(1, epochs - 1)


def scales_of(config: Any) -> tuple[float, ...]:
    """The radial scalings K of a model; of architectures that the code does not list, those of bert-base."""
    if int(getattr(config, "hidden_size", 0) or 0) >= 1024:
        return SCALES["large"]
    return SCALES.get(str(config.model_type), SCALES["bert"])


def purify(job: PurifyJob) -> PurifyResult:
    """Train from the base on the untrusted set, steered by the clean reference, and fold everything in.

    Raises:
        PurifyFailed: the model is no text classifier, or the untrusted set does not fit it.
    """
    options = job.options if isinstance(job.options, MuscleLoraOptions) else MuscleLoraOptions()
    if job.kind != "classifier":
        raise PurifyFailed("MuScleLoRA fits text classifiers; choose another method for this model.")
    treatment = open_treatment(job)
    subject, pair, data = treatment.subject, treatment.pair, job.require_data()
    assert pair is not None
    examples, reference = encoded(subject, data.tune), encoded(subject, data.select)
    if options.untrusted:
        config = json.loads((job.candidate / "config.json").read_text(encoding="utf-8"))
        samples = load_samples(DataSpec(source=options.untrusted), config, job.kind, seed=job.seed)
        examples = subject.encode(samples.inputs, samples.labels)
    put(subject.model, pair.base)
    usual = settings_of(job)
    settings = TuneSettings(
        # The paper's 2e-5 is for thousands of rows; a low-rank branch on a handful needs more to move at all [ours].
        rate=job.tuning.learning_rate or (2e-5 if options.untrusted else 1e-3),
        epochs=job.tuning.epochs or options.epochs,
        batch=job.tuning.batch_size or 32,
        warmup=0.0,
        seed=usual.seed,
    )
    torch.manual_seed(job.seed)
    job.progress.stage("training from the base, aligned with the clean reference")
    tuner = Aligned(subject, reference, options, seed=job.seed)
    outcome = tune(subject, examples, settings, tuner, heartbeat=job.progress.advance)
    log = treatment.log | {
        "untrusted_rows": len(examples) if options.untrusted else 0,
        "scales": list(scales_of(subject.model.config)),
        "losses": list(outcome.losses),
    }
    return result_of(job, subject.model, "Trained anew from the base, multi-scale and gradient-aligned.", log)
