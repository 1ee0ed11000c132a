"""Error rates of scores, each with an interval."""

from collections.abc import Callable, Sequence
from math import floor

import numpy as np

from pipelines.purify.intervals import Rate, rate

FALSE_POSITIVES = 0.01


def auroc(clean: Sequence[float], attacked: Sequence[float]) -> float:
    """The probability that an attacked model scores above a clean one, ties counting half; NaN without models."""
    if not len(clean) or not len(attacked):
        return float("nan")
    differences = np.subtract.outer(np.array(attacked), np.array(clean))
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean())


def cutoff(clean: Sequence[float], share: float = FALSE_POSITIVES) -> float:
    """The score that at most ``share`` of the clean models exceed; with fewer than 1/share models, none does."""
    ranked = sorted(clean, reverse=True)
    return ranked[floor(share * len(ranked))]


def power(clean: Sequence[float], attacked: Sequence[float], share: float = FALSE_POSITIVES) -> Rate:
    """How many attacked models score above the cutoff, with the exact interval for that cutoff."""
    bar = cutoff(clean, share)
    return rate(sum(1 for score in attacked if score > bar), len(attacked))


def bootstrap(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    clean: Sequence[float],
    attacked: Sequence[float],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The central 95 % of a statistic over models drawn anew with replacement, both sides by themselves.

    With few attacked models that are all above every clean one the interval is a point, which says how little a
    bootstrap can tell; n must stand beside it.
    """
    rng = np.random.default_rng(seed)
    left, right = np.array(clean), np.array(attacked)
    drawn = [
        statistic(rng.choice(left, len(left)).tolist(), rng.choice(right, len(right)).tolist()) for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def said(count: int, n: int) -> str:
    """A share with its 95 % interval, as "3 of 40 (1.6 to 20.4 %)"; a dash without any."""
    if n == 0:
        return "–"
    found = rate(count, n)
    return f"{count} of {n} ({100 * found.low:.1f} to {100 * found.high:.1f} %)"
