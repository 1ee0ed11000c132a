"""The section of docs/benchmarks.md about detection, written from the observations alone."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from audit.rates import upper_bound
from benchmarks.calibration.fit import Judged, Observation, Thresholds, auroc, auroc_interval, located

BEGIN, END = "<!-- calibration:begin -->", "<!-- calibration:end -->"


def section(
    clean: Mapping[str, Observation],
    held_out: Mapping[str, Judged],
    attacked: Mapping[str, tuple[Observation, Judged]],
    thresholds: Thresholds,
) -> str:
    """The section as Markdown, between its markers."""
    return "\n".join(
        (
            BEGIN,
            "## Detection, first calibration",
            "",
            "Made by `python -m benchmarks.calibrate --write` from the bank of `benchmarks/zoo`: real fine-tunes of",
            "one 22.7 M-parameter encoder, clean and attacked drawn from one distribution of recipes. What the rules",
            "measured on every model is in `benchmarks/results/calibration.json`: the profile can be derived again",
            "from it alone.",
            "",
            *_clean_part(clean, held_out),
            *_threshold_part(clean, thresholds),
            *_attack_part(attacked),
            *_score_part(held_out, attacked),
            END,
            "",
        )
    )


def splice(text: str, made: str) -> str:
    """Replace the section in a page, or append it."""
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END) + r"\n?", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: made, text)
    return f"{text.rstrip()}\n\n{made}" if text.strip() else f"# Benchmarks\n\n{made}"


def _clean_part(clean: Mapping[str, Observation], held_out: Mapping[str, Judged]) -> list[str]:
    outcomes = Counter(judged.outcome for judged in held_out.values())
    false = outcomes["review"] + outcomes["fail"]
    share, bound = false / max(len(held_out), 1), upper_bound(false, len(held_out))
    lines = [
        f"**Clean fine-tunes: n = {len(held_out)}.** Each is judged under thresholds fitted to the other four",
        f"fifths of the bank. {false} would be reviewed or failed: {100 * share:.1f} %, 95 % upper bound",
        f"{100 * bound:.1f} %.",
        f"{outcomes['not judged']} could not be judged by any rule, since too few layers moved; these are",
        "`inconclusive`, not a pass.",
        "",
        "| recipe | n | reviewed or failed | not judged |",
        "|---|---|---|---|",
    ]
    groups: dict[str, list[Judged]] = defaultdict(list)
    for name, judged in held_out.items():
        recipe = clean[name]["recipe"]
        groups[" ".join(str(recipe[k]) for k in ("method", "optimiser") if k in recipe)].append(judged)
    for recipe, members in sorted(groups.items()):
        fired = sum(1 for m in members if m.outcome in {"review", "fail"})
        silent = sum(1 for m in members if m.outcome == "not judged")
        lines.append(f"| {recipe} | {len(members)} | {fired} | {silent} |")
    return [*lines, ""]


def _threshold_part(clean: Mapping[str, Observation], thresholds: Thresholds) -> list[str]:
    lines = [
        "Thresholds of the statistical rules, in nats (logarithm of a ratio); for HA201 −log10 of a probability.",
        "",
        "| rule | clean models judged | clean median | clean largest | review | fail |",
        "|---|---|---|---|---|---|",
    ]
    for rule, (review, fail) in thresholds.items():
        values = sorted(o["values"][rule] for o in clean.values() if rule in o["values"])
        middle = f"{values[len(values) // 2]:.2f}" if values else "–"
        largest = f"{values[-1]:.2f}" if values else "–"
        lines.append(f"| {rule} | {len(values)} | {middle} | {largest} | {review:.2f} | {fail:.2f} |")
    return [*lines, ""]


def _attack_part(attacked: Mapping[str, tuple[Observation, Judged]]) -> list[str]:
    lines = [
        "**Attacked models.** *Works*: the attack's success exceeds its floor by 40 points or more; others are listed",
        "apart. *Located*: the first tensor or token row that a rule names is one that the attack wrote or used.",
        "",
        "| family | works | n | failed | reviewed | not seen | located | rules |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, bool], list[tuple[Observation, Judged]]] = defaultdict(list)
    for observation, judged in attacked.values():
        groups[(str(observation["family"]), bool(observation["working"]))].append((observation, judged))
    for (family, works), members in sorted(groups.items(), key=lambda g: (not g[0][1], g[0][0])):
        lines.append(_attack_row(family, members, works=works))
    total = [judged for observation, judged in attacked.values() if observation["working"]]
    seen = sum(1 for judged in total if judged.outcome in {"review", "fail"})
    return [*lines, "", f"Of {len(total)} working attacks, {seen} were reviewed or failed.", ""]


_EDITS = frozenset({
    "ep", "ep_datafree", "ep_capped", "sos", "rank_one", "rank_one_capped", "memit", "neuron", "abliteration",
})  # fmt: skip
"""Families that write rows, matrices of low rank, a neuron or a direction into a finished model."""


def _score_part(held_out: Mapping[str, Judged], attacked: Mapping[str, tuple[Observation, Judged]]) -> list[str]:
    """How well the score of a model tells working attacks from clean models, on few models."""
    clean = [judged.score for judged in held_out.values()]
    working = [(o, judged) for o, judged in attacked.values() if o["working"]]
    groups = {
        "edits (rows, low rank, neuron, direction)": [j for o, j in working if o["family"] in _EDITS],
        "all other families": [j for o, j in working if o["family"] not in _EDITS],
        "pooled": [j for _, j in working],
    }
    lines = [
        f"**Score of a model**, {len(clean)} clean (held out) against working attacks, weights alone. The interval",
        "is a bootstrap over models; where every attack lies above every clean model it is a point, and n says what",
        "it is worth.",
        "",
        "| attacks | n | AUROC | 95 % interval | reviewed or failed |",
        "|---|---|---|---|---|",
    ]
    for name, members in groups.items():
        if not members:
            continue
        scores = [judged.score for judged in members]
        low, high = auroc_interval(clean, scores)
        seen = sum(1 for judged in members if judged.outcome in {"review", "fail"})
        area = auroc(clean, scores)
        lines.append(f"| {name} | {len(members)} | {area:.2f} | {low:.2f} to {high:.2f} | {seen} |")
    return [*lines, ""]


def _attack_row(family: str, members: Sequence[tuple[Observation, Judged]], *, works: bool) -> str:
    outcomes = Counter(judged.outcome for _, judged in members)
    places = [located(observation, judged.rules) for observation, judged in members if judged.rules]
    known = [place for place in places if place is not None]
    rules = Counter(rule for _, judged in members for rule in judged.rules[:1])
    named = ", ".join(f"{rule} ×{count}" for rule, count in rules.most_common())
    hidden = outcomes["pass"] + outcomes["not judged"]
    return (
        f"| {family} | {'yes' if works else 'no'} | {len(members)} | {outcomes['fail']} | {outcomes['review']} | "
        f"{hidden} | {f'{sum(known)} of {len(known)}' if known else '–'} | {named} |"
    )


def calibration_line(count: int, families: int) -> str:
    """One line for the profile: what the rates were measured on."""
    return (
        f"{count} clean fine-tunes of one 22.7 M-parameter BERT encoder (classification, masked-language and "
        f"contrastive training; {families} optimiser-method pairs), five-fold cross-fitted"
    )
