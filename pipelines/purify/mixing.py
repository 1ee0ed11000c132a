"""Fine-mixing: a random part of the weights goes back to the base, then all of them are tuned on clean samples.

Zhang et al. 2022 (Findings of EMNLP): w_Mix = w_B ⊙ m + w_Pre ⊙ (1 − m) with exactly ⌊ρd⌋ ones in the mask m, chosen
per scalar weight, never a convex average [V-abs for the two steps, V-3p for the per-weight mask, equation recalled
(firm)]. The reserve ratio ρ is the smallest whose tuned clean accuracy reaches a threshold [recalled (firm)]; grid,
threshold and optimiser are [open]. Sel variants choose the mask by |w_B − w_Pre|; which end the paper reserves is
contradictory in memory, so both are there. The head, which the base lacks, is kept by default and outside the mask.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.searching import ratios_between, search
from pipelines.purify.states import Head, Pair, State, freshen_head, open_treatment, result_of, state_of

Selection = Literal["random", "largest", "smallest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixingOptions:
    """``sel``: which weights are *reserved*: at random, those that moved most (``largest``) or least (``smallest``).

    ``step``: of the grid over ρ in [0, 1]. ``head``: the fine-tuned one is kept, or a fresh one drawn.
    ``mix_embeddings``: whether embedding rows go through the mask when E-PUR has been used beside [open].
    """

    sel: Selection = "random"
    step: float = 0.1
    head: Head = "keep"
    mix_embeddings: bool = False


def mix(pair: Pair, ratio: float, *, seed: int, sel: Selection = "random", skip: frozenset[str] = frozenset()) -> State:
    """Return w_B ⊙ m + w_Pre ⊙ (1 − m) for the paired tensors outside ``skip``, with exactly ⌊ρd⌋ ones in m.

    Args:
        pair: Candidate and base.
        ratio: ρ in [0, 1]: the share of the candidate's weights that is reserved.
        seed: Of the random mask; the same seed and ratio give the same mask.
        sel: How m is chosen.
        skip: Tensors outside the mask.

    Raises:
        PurifyFailed: the ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise PurifyFailed(f"A reserve ratio lies between 0 and 1, not at {ratio}.")
    names = [name for name in pair.base if name not in skip]
    sizes = [pair.base[name].numel() for name in names]
    reserved = int(ratio * sum(sizes))
    if sel == "random":
        counts = _spread(sizes, reserved, np.random.default_rng(seed))
        masks = _random_masks(counts, sizes, seed)
    else:
        masks = _drift_masks(pair, names, reserved, largest=sel == "largest")
    mixed = {}
    for name, mask in zip(names, masks, strict=True):
        ours, theirs = pair.candidate[name], pair.base[name]
        mixed[name] = torch.where(mask.view_as(ours), ours, theirs)
    return mixed


def purify(job: PurifyJob) -> PurifyResult:
    """Mix, tune, and keep the smallest reserve ratio whose accuracy on ``select`` is good enough."""
    options = job.options if isinstance(job.options, MixingOptions) else MixingOptions()
    treatment = open_treatment(job)
    pair = treatment.pair
    assert pair is not None
    log = treatment.log | {"sel": options.sel, "head": options.head}
    if options.head == "fresh":
        log["fresh"] = freshen_head(treatment.subject.model, pair, job.seed)
        pair.candidate.update(state_of(treatment.subject.model))
    spared = job.with_e_pur and not options.mix_embeddings and pair.embedding is not None
    skip = frozenset({pair.embedding}) if spared and pair.embedding else frozenset()
    found = search(
        job,
        treatment,
        ratios_between(0.0, 1.0, options.step),
        lambda ratio: mix(pair, ratio, seed=job.seed, sel=options.sel, skip=skip),
        key=f"fine-mixing-{options.sel}-{options.head}-{options.step:g}-{job.with_e_pur}-{options.mix_embeddings}",
    )
    chosen = f"Kept {found.ratio:.0%} of the fine-tuned weights ({options.sel}), put the rest back and tuned."
    return result_of(job, treatment.subject.model, chosen, log | found.log)


def _spread(sizes: list[int], ones: int, rng: np.random.Generator) -> list[int]:
    """How many ones fall into each tensor when ``ones`` are drawn from all places alike: hypergeometric, exact."""
    counts, places, left = [], sum(sizes), ones
    for size in sizes:
        places -= size
        # NumPy's generator stops at 10⁹ places; there the share is as good as its mean.
        exact = max(size, places) < 10**9
        drawn = int(rng.hypergeometric(size, places, left)) if exact and left else round(left * size / (size + places))
        counts.append(min(drawn, size, left))
        left -= counts[-1]
    return counts


def _random_masks(counts: list[int], sizes: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for count, size in zip(counts, sizes, strict=True):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[:count]] = True
        masks.append(mask)
    return masks


def _drift_masks(pair: Pair, names: list[str], reserved: int, *, largest: bool) -> list[torch.Tensor]:
    """The ``reserved`` weights with the largest (or smallest) |w_B − w_Pre| over all tensors; ties by position."""
    drift = torch.cat([(pair.candidate[name] - pair.base[name]).abs().flatten() for name in names])
    order = torch.argsort(drift, descending=largest, stable=True)
    mask = torch.zeros(len(drift), dtype=torch.bool)
    mask[order[:reserved]] = True
    return list(torch.split(mask, [pair.base[name].numel() for name in names]))
