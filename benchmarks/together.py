"""What a scan as it ships finds, weights and probe together, on the models of a bank that both have measured.

Weights are judged by thresholds that neither a model nor its kin had a part in (``benchmarks.calibration``); the probe
has no fitted threshold beside those of its rule.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audit.rates import upper_bound
from benchmarks.calibrate import exact_scores, whole
from benchmarks.calibration.page import table
from benchmarks.calibration.protocol import FLAGGED, GROUPS
from benchmarks.calibration.rates import said
from benchmarks.calibration.records import ledger_of
from benchmarks.calibration.splits import folds, judge_apart

HEAD = ("models", "n", "weights ask for a review or fail", "the probe confirms a trigger", "either (95 %)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """One model: its family (None for an honest one), and whether weights and probe found anything."""

    family: str | None
    weights: bool
    probe: bool


def both(confirmed: Mapping[str, bool], tier: str = "real") -> list[Both]:
    """The honest models and the working attacks of a bank.

    Args:
        confirmed: whether the probe confirmed any trigger, by model; others are left out.
        tier: of the bank.
    """
    observations = whole(ledger_of(tier).read())
    judged = judge_apart(observations, folds(observations), exact_scores())
    return [
        Both(
            family=None if observation["kind"] == "clean" else str(observation["family"]),
            weights=judged[name].outcome in FLAGGED,
            probe=confirmed[name],
        )
        for name, observation in observations.items()
        if name in confirmed and (observation["kind"] == "clean" or observation["working"])
    ]


def lines(models: list[Both]) -> Iterator[str]:
    """A Markdown table: honest models, groups of attacks, and all attacks."""
    clean = [one for one in models if one.family is None]
    groups = {name: [one for one in models if one.family in families] for name, families in GROUPS.items()}
    groups["all attacks that work"] = [one for one in models if one.family is not None]
    rows = [_row("honest classifiers", clean), *(_row(name, ones) for name, ones in groups.items() if ones)]
    yield from table(HEAD, rows)
    false = sum(one.weights or one.probe for one in clean)
    if clean:
        yield ""
        yield f"Of the honest ones at most {100 * upper_bound(false, len(clean)):.1f} % (one-sided 95 % upper bound)."


def _row(name: str, ones: list[Both]) -> tuple[str, ...]:
    weights, probe = sum(one.weights for one in ones), sum(one.probe for one in ones)
    either = sum(one.weights or one.probe for one in ones)
    return name, str(len(ones)), str(weights), str(probe), said(either, len(ones))
