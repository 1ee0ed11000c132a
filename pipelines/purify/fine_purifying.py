"""Fine-purifying: the dimensions whose drift the clean data do not explain go back to the base, then all are tuned.

Zhang et al. 2023 (Findings of ACL), "Diffusion Theory as a Scalpel" [V-abs for the idea]. Under SGD the drift of a
clean dimension is δ_i ~ N(0, k·H_i), so r_i = δ_i²/Ĥ_i follows Γ(shape ½, scale 2k), and a poisonous one's is larger
by H_i(poison)/H_i(clean) ≫ 1 [recalled (firm)]; one global threshold on r is then optimal [derived]. Adam cancels H
[derived], so δ² and δ²/√Ĥ are there too. Evaluation point of Ĥ (the fine-tuned weights), ε, grid and threshold are
[open]. Rows of tokens that the clean samples lack have Ĥ = ε and are reset first; the log says how many.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pipelines.purify.fisher import EPSILON, diagonal_fisher
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.searching import encoded, ratios_between, search
from pipelines.purify.states import Head, Pair, State, freshen_head, open_treatment, result_of, state_of

Indicator = Literal["delta2_over_H", "delta2", "delta2_over_sqrtH"]

QUANTILES = 99
"""Points of the QQ data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurifyingOptions:
    """``indicator``: how suspicion is measured. ``step``: of the grid over ρ, the share of dimensions reset.

    ``changed_only`` counts ρ over the dimensions that moved at all. ``head``: kept, or drawn fresh.
    """

    indicator: Indicator = "delta2_over_H"
    step: float = 0.1
    changed_only: bool = False
    head: Head = "keep"


def indicators(pair: Pair, fisher: State, kind: Indicator) -> State:
    """Return r of every paired scalar that has a Fisher entry, float32, in the tensors' shapes.

    r = δ²/Ĥ (the paper), δ² (the null under Adam [derived]), or δ²/√Ĥ.
    """
    scores = {}
    for name, theirs in pair.base.items():
        if name not in fisher:
            continue
        square = (pair.candidate[name] - theirs).square()
        match kind:
            case "delta2_over_H":
                scores[name] = square / fisher[name]
            case "delta2":
                scores[name] = square
            case "delta2_over_sqrtH":
                scores[name] = square / fisher[name].sqrt()
    return scores


def reset_top(pair: Pair, scores: State, ratio: float, *, changed_only: bool = False) -> State:
    """Return the tensors with the ⌊ρd⌋ highest scores of all put back to the base; ties go by position.

    Raises:
        PurifyFailed: the ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise PurifyFailed(f"A reset ratio lies between 0 and 1, not at {ratio}.")
    ranked = torch.cat([scores[name].flatten() for name in scores])
    places = int((ranked > 0).sum()) if changed_only else len(ranked)
    count = int(ratio * places)
    chosen = torch.zeros(len(ranked), dtype=torch.bool)
    if count:
        threshold = torch.kthvalue(ranked, len(ranked) - count + 1).values
        chosen = ranked > threshold
        ties = (ranked == threshold).nonzero().flatten()[: count - int(chosen.sum())]
        chosen[ties] = True
    masks = torch.split(chosen, [scores[name].numel() for name in scores])
    return {
        name: torch.where(mask.view_as(pair.base[name]), pair.base[name], pair.candidate[name])
        for name, mask in zip(scores, masks, strict=True)
    }


def gamma_quantiles(values: npt.NDArray[np.float64], *, points: int = QUANTILES) -> dict[str, Any]:
    """QQ data of r against Γ(½, scale 2k), with k from the median: median(r) = 0.455 k [derived].

    Only values above zero count (a dimension that never moved has no drift to explain). ``empirical`` and ``gamma``
    are quantiles at j/(points + 1), j = 1 … points, of r and of the law; ``straightness`` is the correlation of their
    logarithms, 1 when the law holds.
    """
    from scipy.stats import gamma

    moved = values[values > 0]
    if len(moved) < 2 * points:
        return {"moved": len(moved), "why_none": "too few dimensions moved"}
    levels = np.arange(1, points + 1) / (points + 1)
    k = float(np.median(moved)) / float(gamma.ppf(0.5, 0.5, scale=2.0))
    empirical, law = np.quantile(moved, levels), gamma.ppf(levels, 0.5, scale=2.0 * k)
    straight = float(np.corrcoef(np.log(empirical), np.log(law))[0, 1])
    dispersion = float(moved.var() / moved.mean() ** 2)
    return {
        "moved": len(moved),
        "k": k,
        "levels": levels.tolist(),
        "empirical": empirical.tolist(),
        "gamma": law.tolist(),
        "straightness": straight if math.isfinite(straight) else None,
        "variance_over_squared_mean": dispersion,
        "variance_over_squared_mean_of_the_law": 2.0,
    }


def purify(job: PurifyJob) -> PurifyResult:
    """Rank the dimensions, reset, tune, and keep the largest reset ratio whose accuracy on ``select`` holds."""
    options = job.options if isinstance(job.options, PurifyingOptions) else PurifyingOptions()
    treatment = open_treatment(job)
    subject, pair = treatment.subject, treatment.pair
    assert pair is not None
    log = treatment.log | {"indicator": options.indicator, "head": options.head}
    if options.head == "fresh":
        log["fresh"] = freshen_head(subject.model, pair, job.seed)
        pair.candidate.update(state_of(subject.model))
    job.progress.stage("measuring the Fisher information, one example at a time")
    fisher = diagonal_fisher(subject, encoded(subject, job.require_data().tune), heartbeat=job.progress.advance)
    scores = indicators(pair, fisher, options.indicator)
    log |= _describe(pair, fisher, scores)
    found = search(
        job,
        treatment,
        ratios_between(1.0, 0.0, options.step),
        lambda ratio: reset_top(pair, scores, ratio, changed_only=options.changed_only),
        key=f"fine-purifying-{options.indicator}-{options.head}-{options.step:g}-{options.changed_only}-{job.with_e_pur}",
    )
    chosen = f"Put the {found.ratio:.0%} most suspicious dimensions ({options.indicator}) back and tuned."
    return result_of(job, subject.model, chosen, log | found.log)


def _describe(pair: Pair, fisher: State, scores: State) -> dict[str, Any]:
    """QQ data of a sample of r, medians by tensor, and how many dimensions the clean samples say nothing about."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    sample = flat[:: max(1, len(flat) // 200_000)].double().numpy()
    return {
        "qq": gamma_quantiles(sample),
        "median_r": {name: float(score.median()) for name, score in scores.items()},
        "unseen_dimensions": sum(int((fisher[name] <= 1.5 * EPSILON).sum()) for name in scores),
        "dimensions": pair.size,
    }
