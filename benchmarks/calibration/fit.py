"""Thresholds from clean models, and error rates that were not fitted on the models they are quoted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from audit.evidence import Rule
from audit.readings import FAIL_SCORE, REVIEW_SCORE, score_of
from audit.rulebook import DETECTORS, all_rules

Observation = Mapping[str, Any]
Thresholds = Mapping[str, tuple[float, float]]
"""Rule → review and fail threshold."""

FLOORS: Mapping[str, float] = {
    # 5 % of tables whose rows follow an exponential tail exactly exceed 2.0-2.4 (400 simulated tables a size).
    "HA201": 2.5,
    # Below twice what is expected nothing is worth a person's time.
    **dict.fromkeys(("HA203", "HA301", "HA302", "HA305", "HA401", "HA402", "HA403", "HA501", "HA502"), log(2.0)),
    # A squared cosine of 0.86: directions that agree less are of no use to whoever removes one.
    "HA306": 2.0,
    # A tenth of Gaussian noise: what lies further below a training hides nothing of it.
    "HA404": 0.1,
}
"""Calibrated rules, and the least review threshold of each."""

REVIEW_RATE, FAIL_RATE = 1e-3, 1e-5
"""Share of clean models that the tail puts beyond a rule's threshold, per rule."""
_SLIGHT = frozenset(rule.id for detector in DETECTORS if not detector.bears_a_pass for rule in detector.rules)
"""Rules on which no pass can rest: a model that they alone could judge is inconclusive."""
_TAIL = 0.25
"""Share of the clean values that the tail is fitted to."""
_SHAPE_LEAST = 30
"""Excesses that tell a tail's shape with a standard error of about 0.25. It was 20 until the real bank reached 25: its
fail thresholds then rose two- to tenfold, an edited matrix was no longer named, and not one honest model fewer was
flagged, across folds (4 of 101 then) or frozen before the test (1 of 45)."""
_HEAVIEST = 0.5
"""A heavier tail than this has no variance; no bank tells its far quantiles."""
_LEAST_RATIO = 1.4
"""Fail over review, at least: so that the two words differ where the tail is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model under thresholds: its score, its outcome, and the rules that reached their review threshold."""

    score: float
    outcome: str
    rules: tuple[str, ...]


def fit(clean: Sequence[Observation]) -> dict[str, tuple[float, float]]:
    """Fit every calibrated rule: the tail above the upper quartile, at two exceedance rates."""
    fitted = {}
    for rule, floor in FLOORS.items():
        values = np.array([o["values"][rule] for o in clean if rule in o["values"]])
        review, fail = (tail_point(values, rate) for rate in (REVIEW_RATE, FAIL_RATE))
        review = max(review, floor)
        fitted[rule] = (round(review, 2), round(max(fail, _LEAST_RATIO * review), 2))
    return fitted


def tail_point(values: np.ndarray, rate: float) -> float:
    """The value exceeded with that probability; −∞ without values.

    Above q₇₅ a generalised Pareto law: q₇₅ + β·((¼/rate)^ξ − 1)/ξ, with shape ξ and scale β from probability-weighted
    moments of the excesses (Hosking & Wallis 1987), ξ between 0 and ``_HEAVIEST``. Where it is not above 0, or too few
    excesses tell it, the tail is exponential: q₇₅ + β·ln(¼/rate), β the mean excess.
    """
    if len(values) == 0:
        return -np.inf
    start = float(np.quantile(values, 1.0 - _TAIL))
    over = np.sort(values[values > start] - start)
    mean = float(over.mean()) if len(over) else 0.0
    if len(over) >= _SHAPE_LEAST:
        weighted = float((over * (1.0 - (np.arange(len(over)) + 0.65) / len(over))).mean())
        shape = min(2.0 - mean / (mean - 2.0 * weighted), _HEAVIEST)
        if shape > 0:
            # The scale that goes with a capped shape keeps the mean excess, β/(1 − ξ).
            times: float = ((_TAIL / rate) ** shape - 1.0) / shape
            return start + mean * (1.0 - shape) * times
    return start + mean * log(_TAIL / rate)


def judge(observation: Observation, thresholds: Thresholds, exact_scores: Mapping[str, float]) -> Judged:
    """Score one model as ``audit.policy`` would: the largest score over rules, facts included."""
    scores = {
        rule: score_of(value, review=thresholds[rule][0], fail=thresholds[rule][1])
        for rule, value in observation["values"].items()
        if rule in thresholds
    }
    scores |= {rule: exact_scores[rule] for rule in observation["exact"] if rule in exact_scores}
    score = max(scores.values(), default=0.0)
    outcome = "fail" if score >= FAIL_SCORE else "review" if score >= REVIEW_SCORE else "pass"
    if outcome == "pass" and not set(scores) - _SLIGHT:
        outcome = "not judged"
    reached = sorted((r for r, s in scores.items() if s >= REVIEW_SCORE), key=lambda r: -scores[r])
    return Judged(score=score, outcome=outcome, rules=tuple(reached))


def located(observation: Observation, rules: Sequence[str]) -> bool | None:
    """True when a rule that fired names an edited tensor or a trigger row first; None when no truth is known."""
    tensors, rows = set(observation["truth"]["tensors"]), set(observation["truth"]["rows"])
    if not tensors and not rows:
        return None
    firsts = [observation["places"][rule] for rule in rules if rule in observation["places"]]
    return any(p["tensor"] in tensors or (p["rows"] and p["rows"][0] in rows) for p in firsts)


def exact_rules() -> tuple[Rule, ...]:
    """Rules that weigh and have no statistic of their own here."""
    return tuple(rule for rule in all_rules() if rule.weighs and rule.id not in FLOORS)
