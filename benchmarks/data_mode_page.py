"""The tables of docs/benchmarks.md about scans with data, from what ``benchmarks.data_mode`` kept."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log, log10
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from audit.rates import upper_bound
from audit.siblings import kind_of
from audit.thresholds import load_profile
from benchmarks.calibration.rates import auroc, bootstrap
from benchmarks.pages import splice
from scanner.curvature.records import INDICATORS

PAGE: Final = Path("docs/benchmarks.md")
ROWS: Final = frozenset({"ep", "ep_datafree", "ripples", "neuron", "sos", "neuron_datafree"})
"""Attacks that write single rows."""
_SIBLINGS: Final = 3
_SPELT: Final = {"fitted": "δ²/H^γ", "delta2_over_H": "δ²/H", "delta2_over_sqrtH": "δ²/√H", "delta2": "δ²"}
_BEGIN, _END = "<!-- data-mode:begin -->", "<!-- data-mode:end -->"

Observation = Mapping[str, Any]

_HEAD: Final = """## Scans with data

Made by `python -m benchmarks.data_mode --write`: classifiers of the zoo (22.7 M parameters), each scanned with 64 clean
test texts of its own task; what was measured is in `benchmarks/results/data_mode.jsonl`. One thread, median
{seconds:.0f} CPU seconds a model for everything that the data add.

**The law.** r = δ²/H^γ over the law's own median, all tensors together, clean models alone. *Straight*: correlation of
log quantiles with those of the law. *Tail*: share of dimensions beyond the law's upper 1e-4 quantile over 1e-4 (1 where
the law holds). Medians over models; γ is the median of a model's tensors, with the least and the largest model.

"""


def value_of(one: Observation) -> float:
    """The statistic of rule HA405: −log10 of the least p-value of a tensor, after multiplying by those tested; ≥ 0."""
    p_values = [tensor["p"] for tensor in one["tensors"] if tensor["p"] is not None]
    return max(0.0, -log10(min(p_values)) - log10(len(p_values))) if p_values else 0.0


def located(one: Observation) -> bool | None:
    """Whether the most telling tensor is one that the attack wrote, or its first row a trigger's; None if unknown."""
    tensors, rows = set(one["truth"]["tensors"] or ()), one["truth"]["rows"] or {}
    triggers = set(one["truth"]["trigger_ids"] or ())
    tested = [tensor for tensor in one["tensors"] if tensor["p"] is not None]
    if not tested or not (tensors or rows or triggers):
        return None
    first = min(tested, key=lambda tensor: float(tensor["p"]))
    is_trigger = first["role"] == "embedding" and bool(first["rows"]) and first["rows"][0][0] in triggers
    return first["name"] in tensors or is_trigger


def section(kept: Sequence[Observation]) -> str:
    """The whole section, markers excluded."""
    clean = [one for one in kept if one["family"] is None]
    attacked = [one for one in kept if one["family"] is not None]
    head = _HEAD.format(seconds=median(one["cpu_seconds"] for one in kept))
    return "\n".join((head + _law(clean), _rows(clean, attacked), _apart(clean, attacked), _others(clean, attacked)))


def _law(clean: Iterable[Observation]) -> str:
    by_recipe: dict[str, list[Observation]] = defaultdict(list)
    for one in clean:
        by_recipe["LoRA, merged" if one["method"] == "lora" else one["optimiser"]].append(one)
    heads = ["recipe", "n", "γ", *(f"{_SPELT[kind]}: straight, tail" for kind in INDICATORS)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for recipe, models in sorted(by_recipe.items()):
        gammas = [median(t["exponent"] for t in one["tensors"] if t["exponent"] is not None) for one in models]
        cells = [recipe, str(len(models)), f"{median(gammas):.2f} ({min(gammas):.2f} to {max(gammas):.2f})"]
        for kind in INDICATORS:
            plots = [plot for one in models for plot in one["plots"] if plot[0] == kind]
            cells.append(f"{median(plot[2] for plot in plots):.3f}, {median(plot[3] for plot in plots):.3g}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rows(clean: Sequence[Observation], attacked: Sequence[Observation]) -> str:
    profile = load_profile()
    review, fail = profile.value("HA405.review"), profile.value("HA405.fail")
    values = sorted(value_of(one) for one in clean)
    over = sum(value >= review for value in values)
    discovered = sum(one["by_e_bh"] > 0 for one in clean)
    by_bh = sum(one["by_bh"] > 0 for one in clean)
    bound = 100 * upper_bound(over, len(clean))
    largest = ", ".join(f"{value:.1f}" for value in values[-3:])
    text = (
        f"**Rows that stand out (HA405).** Clean models: n = {len(clean)}, median {median(values):.1f}, the three\n"
        f"largest {largest}; {over} reach {review:g} (95 % upper bound {bound:.1f} %), "
        f"{sum(v >= fail for v in values)} reach {fail:g}.\nWith a discovery among the tensors at a false-discovery "
        f"rate of 5 %: {discovered} by e-BH, {by_bh} by BH.\n\n"
    )
    heads = ("attack", "works", "n", "HA405, least to most", f"reach {review:g}", "e-BH", "located")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    families: dict[tuple[str, bool], list[Observation]] = defaultdict(list)
    for one in attacked:
        families[one["family"], bool(one["working"])].append(one)
    for (family, works), models in sorted(families.items(), key=lambda item: (not item[0][1], item[0][0])):
        found = sorted(value_of(one) for one in models)
        known = [place for one in models if (place := located(one)) is not None]
        cells = (
            family,
            "yes" if works else "no",
            str(len(models)),
            f"{found[0]:.1f} to {found[-1]:.1f}",
            str(sum(value >= review for value in found)),
            str(sum(one["by_e_bh"] > 0 for one in models)),
            f"{sum(known)} of {len(known)}" if known else "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return text + "\n".join(lines) + "\n"


def _apart(clean: Sequence[Observation], attacked: Sequence[Observation]) -> str:
    working = [one for one in attacked if one["working"]]
    groups = {
        "single rows written (embedding rows, a hidden unit)": [o for o in working if o["family"] in ROWS],
        "all other working attacks": [o for o in working if o["family"] not in ROWS],
        "all working attacks": working,
    }
    heads = ("attacks", "n", "clean n", "AUROC", "95 % interval")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    null = [value_of(one) for one in clean]
    for name, models in groups.items():
        if not models:
            continue
        found = [value_of(one) for one in models]
        low, high = bootstrap(auroc, null, found)
        lines.append(f"| {name} | {len(found)} | {len(null)} | {auroc(null, found):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines) + "\n"


def contrast_of(one: Observation, power: float) -> float:
    """How far a matrix's change stands out among its siblings: the largest log of mean δ² / (mean H)^power, in nats.

    Held against the upper quartile of the same matrix of the other layers; 0 where none has three siblings that moved.
    """
    kinds: dict[str, list[float]] = defaultdict(list)
    for tensor in one["tensors"]:
        if tensor["layer"] is not None and tensor["mean_square"] > 0 and tensor["mean_curvature"] > 0:
            value = log(tensor["mean_square"]) - power * log(tensor["mean_curvature"])
            kinds[kind_of(tensor["name"])].append(value)
    found = [0.0]
    for values in kinds.values():
        if len(values) > _SIBLINGS:
            others = (values[:i] + values[i + 1 :] for i in range(len(values)))
            found += [value - float(np.quantile(rest, 0.75)) for value, rest in zip(values, others, strict=True)]
    return max(found)


def _others(clean: Sequence[Observation], attacked: Sequence[Observation]) -> str:
    """Other statistics of the same observations, none of which became a rule."""
    working = [one for one in attacked if one["working"]]
    statistics: dict[str, Callable[[Observation], float]] = {
        "mean δ² of a matrix over its siblings": lambda one: contrast_of(one, 0.0),
        "mean δ² / √(mean H) over its siblings": lambda one: contrast_of(one, 0.5),
        "mean δ² / mean H over its siblings": lambda one: contrast_of(one, 1.0),
        "tail of the fitted law, all tensors": lambda one: float(one["plots"][0][3]),
        "distance of the fitted law from a straight line": lambda one: -float(one["plots"][0][2]),
    }
    lines = [
        "| other statistics of the same observations, all working attacks | AUROC | 95 % interval |",
        "|---|---|---|",
    ]
    for name, statistic in statistics.items():
        null, found = [statistic(one) for one in clean], [statistic(one) for one in working]
        low, high = bootstrap(auroc, null, found)
        lines.append(f"| {name} | {auroc(null, found):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines) + "\n"


def write_page(kept: Sequence[Observation], page: Path = PAGE) -> None:
    """Put the section into the page, in place of the one before; the words after it stay."""
    made = f"{_BEGIN}\n{section(kept)}{_END}\n"
    page.write_text(splice(page.read_text(encoding="utf-8"), made), encoding="utf-8")
