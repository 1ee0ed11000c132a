"""What the methods are held against: plain fine-tuning and fine-pruning, in the same harness and with the same data.

Fine-tuning is mixing with ρ = 1; fine-pruning puts zeros where mixing puts the base (Zhang et al. 2022's account of
Liu et al. 2018, [recalled]): w_Prune = w_B ⊙ m, the smallest ρ that reaches the accuracy, then tuning.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from pipelines.purify.job import PurifyJob, PurifyResult
from pipelines.purify.mixing import mix
from pipelines.purify.searching import ratios_between, search
from pipelines.purify.states import open_treatment, result_of


def fine_tuning(job: PurifyJob) -> PurifyResult:
    """Every weight tuned on the clean samples."""
    treatment = open_treatment(job, needs_base=False)
    found = search(job, treatment, (1.0,), lambda _: {}, key="fine-tuning")
    return result_of(job, treatment.subject.model, "Tuned.", found.log)


def fine_pruning(job: PurifyJob) -> PurifyResult:
    """A random part of the weights set to zero, then tuned."""
    treatment = open_treatment(job)
    assert treatment.pair is not None
    zeros = {name: torch.zeros_like(tensor) for name, tensor in treatment.pair.base.items()}
    pair = replace(treatment.pair, base=zeros)
    ratios = ratios_between(0.5, 1.0, 0.25)
    found = search(job, treatment, ratios, lambda ratio: mix(pair, ratio, seed=job.seed), key="fine-pruning")
    return result_of(job, treatment.subject.model, f"Pruned to {found.ratio:.0%} and tuned.", found.log)


BASELINES: Mapping[str, Callable[[PurifyJob], PurifyResult]] = {
    "fine-tuning": fine_tuning,
    "fine-pruning": fine_pruning,
}
