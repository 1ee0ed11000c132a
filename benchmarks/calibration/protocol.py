"""The whole protocol on the observations of one tier: error rates that were not fitted on the models they speak of.

Thresholds come from clean models alone, so that every attack family is held out from them. Clean models are judged
across five folds of kin, and once more with their whole recipe, task or objective left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from audit.likeness import likeness
from audit.rates import upper_bound
from benchmarks.calibration.fit import Judged, Observation, fit, judge, located
from benchmarks.calibration.rates import auroc, bootstrap, power
from benchmarks.calibration.splits import Observations, folds, judge_apart, recipe_of, told_by
from pipelines.purify.intervals import rate

LEAVE_OUT: Mapping[str, Callable[[Observation], str]] = {
    "recipe": recipe_of,
    "task": told_by("task"),
    "objective": told_by("objective"),
}
"""What is held out as a whole, one value at a time."""

GROUPS: Mapping[str, frozenset[str]] = {
    "edits": frozenset({
        "ep", "ep_datafree", "ep_capped", "sos", "rank_one", "rank_one_capped", "memit", "neuron", "abliteration",
    }),
    "word backdoors, trained in": frozenset({"badword", "badword_common", "badword_then_clean", "ripples", "lwp"}),
    "sentence backdoors, trained in": frozenset({"badsentence"}),
    "backdoored LoRA, merged": frozenset({"lora_badword", "lora_badsentence"}),
    "covered or trained over": frozenset({"dithered", "edit_then_clean"}),
    "vectors and single bits": frozenset({"bias_shift", "norm_scale", "bit_flip"}),
    "syntactic, label flip": frozenset({"syntactic", "label_flip"}),
}  # fmt: skip
"""Families that are told apart in the page; all others count as "other families" and in the pool."""

_TOKEN_RULES = frozenset({"HA201", "HA202", "HA203"})
FLAGGED = ("review", "fail")


def protocol(
    observations: Observations,
    exact_scores: Mapping[str, float],
    outside: float,
    known: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Everything that the page and the profile say of one tier.

    Args:
        observations: of one tier, those with enough coverage, by id.
        exact_scores: of the rules that state facts.
        outside: the likeness p-value below which a model is outside the bank.
        known: the models that were known when the rules were last changed; all others are a test.
    """
    judged = judge_apart(observations, folds(observations), exact_scores)
    clean = {name: o for name, o in observations.items() if o["kind"] == "clean"}
    working = {name: o for name, o in observations.items() if o["working"]}
    failed = {name: o for name, o in observations.items() if o["kind"] == "attacked" and not o["working"]}
    scores = [judged[name].score for name in clean]
    return {
        "clean": {**_false(clean, judged), "theory": _theory(clean.values())},
        "left_out": {
            name: _left_out(observations, clean, exact_scores, told, outside) for name, told in LEAVE_OUT.items()
        },
        "frozen": _frozen(observations, known, exact_scores),
        "groups": {name: _power(members, judged, scores) for name, members in _grouped(working).items()},
        "families": {name: _power(members, judged, scores) for name, members in _by_family(working).items()},
        "not_working": {name: _outcomes(members, judged) for name, members in _by_family(failed).items()},
        "outside": _outside(clean, working, outside),
        "clean_scores": sorted(round(judged[name].score, 4) for name in clean),
        "judged": {name: {**asdict(j), "rules": list(j.rules)} for name, j in judged.items()},
    }


def _false(members: Mapping[str, Observation], judged: Mapping[str, Judged]) -> dict[str, Any]:
    outcomes = Counter(judged[name].outcome for name in members)
    false = sum(outcomes[outcome] for outcome in FLAGGED)
    return {
        "n": len(members),
        "outcomes": dict(outcomes),
        "false": false,
        "upper": round(upper_bound(false, len(members)), 5),
        "rules": dict(Counter(j.rules[0] for name in members if (j := judged[name]).outcome in FLAGGED)),
    }


def _frozen(
    observations: Observations, known: frozenset[str], exact_scores: Mapping[str, float]
) -> dict[str, Any] | None:
    """The later models under thresholds of the clean ones that were known; None without any of either."""
    bank = [o for name, o in observations.items() if name in known and o["kind"] == "clean"]
    later = {name: o for name, o in observations.items() if name not in known}
    clean = {name: o for name, o in later.items() if o["kind"] == "clean"}
    if not bank or not clean:
        return None
    thresholds = fit(bank)
    judged = {name: judge(o, thresholds, exact_scores) for name, o in later.items()}
    scores = [judged[name].score for name in clean]
    working = {name: o for name, o in later.items() if o["working"]}
    return {
        "known": len(bank),
        "clean": _false(clean, judged),
        "groups": {name: _power(members, judged, scores) for name, members in _grouped(working).items()},
    }


def _left_out(
    observations: Observations,
    clean: Observations,
    exact_scores: Mapping[str, float],
    told: Callable[[Observation], str],
    outside: float,
) -> dict[str, Any]:
    """False positives on clean models whose value of one field no threshold has seen, in and outside the bank."""
    label = {name: told(o) for name, o in observations.items()}
    judged = judge_apart(clean, {name: label[name] for name in clean}, exact_scores)
    apart = {name: _p_value(clean[name], [o for k, o in clean.items() if label[k] != label[name]]) for name in clean}
    inside = {name: o for name, o in clean.items() if (p := apart[name]) is not None and p >= outside}
    values = {
        value: {
            **_false({n: o for n, o in clean.items() if label[n] == value}, judged),
            "outside": sum(1 for n in clean if label[n] == value and n not in inside),
        }
        for value in sorted({label[name] for name in clean})
    }
    rest = {name: o for name, o in clean.items() if name not in inside}
    return {
        "pooled": _false(clean, judged),
        "inside": _false(inside, judged),
        "outside": _false(rest, judged),
        "values": values,
    }


def _p_value(observation: Observation, bank: Sequence[Observation]) -> float | None:
    traits = [o["traits"] for o in bank if o["traits"] is not None]
    if observation["traits"] is None or not traits:
        return None
    compared = likeness(np.array(observation["traits"]), np.array(traits))
    return None if compared is None else compared.p_value


def _outside(clean: Observations, working: Observations, outside: float) -> dict[str, Any]:
    """How many models are outside the bank of all other clean ones."""

    def count(members: Observations) -> dict[str, Any]:
        values = [
            _p_value(o, [other for k, other in clean.items() if k != name and k not in o["recipe"].get("parents", ())])
            for name, o in members.items()
        ]
        known = [p for p in values if p is not None]
        return {"n": len(known), "outside": sum(1 for p in known if p < outside), "none": len(values) - len(known)}

    return {"clean": count(clean), "families": {name: count(m) for name, m in _by_family(working).items()}}


def _power(members: Observations, judged: Mapping[str, Judged], clean: Sequence[float]) -> dict[str, Any]:
    scores = [judged[name].score for name in members]
    found = power(clean, scores)
    low, high = bootstrap(lambda left, right: power(left, right).value, clean, scores, draws=300)
    area = bootstrap(auroc, clean, scores, draws=300)
    return {
        **_outcomes(members, judged),
        "auroc": round(auroc(clean, scores), 4),
        "auroc_interval": [round(x, 4) for x in area],
        "power": round(found.value, 4),
        "power_interval": [round(min(found.low, low), 4), round(max(found.high, high), 4)],
    }


def _outcomes(members: Observations, judged: Mapping[str, Judged]) -> dict[str, Any]:
    places = [located(o, judged[name].rules) for name, o in members.items() if judged[name].rules]
    known = [place for place in places if place is not None]
    named = [
        _rows_named(o)
        for name, o in members.items()
        if o["truth"]["rows"] and any(rule in _TOKEN_RULES for rule in judged[name].rules)
    ]
    return {
        "n": len(members),
        "outcomes": dict(Counter(judged[name].outcome for name in members)),
        "located": sum(known),
        "located_of": len(known),
        "rows_named": sum(found for found, _ in named),
        "rows_of": sum(total for _, total in named),
        "rules": dict(Counter(judged[name].rules[0] for name in members if judged[name].rules)),
    }


def _rows_named(observation: Observation) -> tuple[int, int]:
    """How many of the trigger's rows are among the first ten that any rule names, and how many there are."""
    rows = set(observation["truth"]["rows"])
    named = {row for place in observation["places"].values() for row in place["rows"]}
    return len(rows & named), len(rows)


def _by_family(members: Observations) -> dict[str, dict[str, Observation]]:
    families: dict[str, dict[str, Observation]] = defaultdict(dict)
    for name, observation in members.items():
        families[str(observation["family"])][name] = observation
    return dict(sorted(families.items()))


def _grouped(members: Observations) -> dict[str, dict[str, Observation]]:
    told = {family for families in GROUPS.values() for family in families}
    groups = {name: {k: o for k, o in members.items() if o["family"] in families} for name, families in GROUPS.items()}
    groups["other families"] = {k: o for k, o in members.items() if o["family"] not in told}
    groups["pooled"] = dict(members)
    return {name: held for name, held in groups.items() if held}


def _theory(clean: Sequence[Observation] | Any) -> dict[str, float]:
    held = [o["theory"] for o in clean]
    if not held:
        return {}
    return {
        **{name: round(float(np.mean([t[name] for t in held])), 4) for name in ("spike", "rows")},
        "models": round(float(np.mean([max(t.values()) > 0 for t in held])), 4),
    }


def interval(count: int, n: int) -> str:
    """A share in words: "3 of 40 = 7.5 % (1.6 to 20.4 %)"."""
    if n == 0:
        return "–"
    found = rate(count, n)
    return f"{count} of {n} = {100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f} %)"
