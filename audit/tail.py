"""How far the largest of many values stand out from the tail that the others form.

Honest training leaves a long upper tail in row drift: the key words of a narrow task drift far, and how far depends on
the task. So the tail is taken from the model itself. Beyond a high quantile, values of many distributions fall off
exponentially (the generalised Pareto law with shape 0; Pickands 1975); the rate comes from two quantiles, which a few
outliers cannot move. That many values lie beyond a point is then a Poisson count.
"""

from dataclasses import dataclass
from math import exp, lgamma, log, log10

import numpy as np

from scanner.records import F64

TAIL_SHARE = 0.01
"""Where the tail begins: the largest hundredth."""
TAIL_LEAST = 20
"""Values that the tail must hold; in small tables it begins earlier."""
_RATE_SPAN = 10.0
"""The rate is measured between the tail's beginning and the point that so many times more values exceed."""
MOST = 20
"""Outliers looked for; more of them would be the tail itself."""
_FLOOR = -300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TailEvidence:
    """The most telling count of outliers.

    ``evidence`` is −log10 of the probability of ``count`` or more values as large as the ``count``-th largest, given
    ``expected`` of them; the largest over counts from 1 to ``MOST``.
    """

    evidence: float
    count: int
    expected: float


def tail_evidence(values: F64) -> TailEvidence:
    """Judge the largest of at least ``3 * TAIL_LEAST`` finite values; no evidence when the values do not spread."""
    ranked = np.sort(values)[::-1]
    start, rate, beyond = tail_line(values)
    best = TailEvidence(evidence=0.0, count=1, expected=beyond)
    if rate <= 0:
        return best
    for count, value in enumerate(ranked[:MOST].tolist(), start=1):
        expected = beyond * exp(-max(value - start, 0.0) / rate)
        evidence = -log10_at_least(count, expected)
        if evidence > best.evidence:
            best = TailEvidence(evidence=evidence, count=count, expected=expected)
    return best


def tail_line(values: F64) -> tuple[float, float, float]:
    """Where the tail begins, its rate, and how many values it holds: b · exp(−(v − start)/rate) of them exceed v.

    The rate is 0 when the values do not spread. At least ``3 * TAIL_LEAST`` finite values.
    """
    share = max(TAIL_SHARE, TAIL_LEAST / len(values))
    wider = min(_RATE_SPAN * share, 0.5)
    start, before = (float(np.quantile(values, 1.0 - s)) for s in (share, wider))
    rate = (start - before) / log(wider / share) if wider > share else 0.0
    return start, rate, len(values) * share


def log10_at_least(count: int, expected: float) -> float:
    """log10 P(N ≥ count) for N Poisson with that mean, not below −300."""
    if count <= 0:
        return 0.0
    if expected <= 0:
        return _FLOOR
    if expected >= count:
        below = sum(exp(_log_poisson(k, expected)) for k in range(count))
        return log10(max(1.0 - below, 1e-15))
    first = _log_poisson(count, expected)
    total, term, k = 1.0, 1.0, count
    while term > total * 1e-12:
        k += 1
        term *= expected / k
        total += term
    return max((first + log(total)) / log(10.0), _FLOOR)


def _log_poisson(k: int, mean: float) -> float:
    return -mean + k * log(mean) - lgamma(k + 1)
