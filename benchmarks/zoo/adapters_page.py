"""The section of ``docs/benchmarks.md`` about adapters: ``python -m benchmarks.zoo.adapters_page``; no model is needed.

Three readings of the same lines: rule HA307 with its shipped thresholds; the same statistic at the cutoff that two
percent of the honest adapters exceed; and the published pipeline of arXiv 2602.15195, a logistic regression on the
first singular value, norm, share of the first direction, entropy and kurtosis of each kind of module, fitted on honest
and attacked adapters of *other tasks* than the one that is judged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from audit.detectors.adapter_trend import LAYER, Lift, lifts
from audit.readings import REVIEW_SCORE, score_of
from audit.thresholds import load_profile
from benchmarks.calibration.rates import auroc, bootstrap, power, said
from benchmarks.pages import splice
from benchmarks.zoo.adapters import PAGE, lines
from benchmarks.zoo.adapters_recipes import FAMILIES
from scanner.records import F64, PairSpec, Spectrum, TensorDrift, TensorMeta

BEGIN, END = "<!-- adapters:begin -->", "<!-- adapters:end -->"
SHARE: Final = 0.02
"""False positives at which the published pipeline quotes its power."""
_COMMON: Final = ("query", "value")
"""Kinds of modules that every adapter of the bank has."""
Line = Mapping[str, Any]
_NONE: Final[F64] = np.zeros(0)


def tensors(line: Line) -> list[TensorDrift]:
    """The modules of a line as the detector takes them; what a line does not keep is empty."""
    return [_tensor(module) for module in line["modules"]]


def _tensor(module: Mapping[str, Any]) -> TensorDrift:
    meta = TensorMeta(name=module["name"], dtype="F32", shape=(2, 2), file="", start=0, end=0)
    spec = PairSpec(
        name=module["name"], base=meta, candidate=meta, role=module["role"], layer=module["layer"], rows=(0, 2)
    )
    return TensorDrift(
        spec=spec, count=1, changed=1, nonfinite=0, base_nonfinite=0, base_l2=module["base_l2"], candidate_l2=0.0,
        delta_l2=module["energy"] ** 0.5, dot=0.0, rounding_floor=0.0, row_delta_sq=_NONE, row_base_sq=_NONE,
        row_dot=_NONE, col_delta_sq=_NONE,
        spectrum=Spectrum(values=tuple(module["values"]), energy=module["energy"], exact=True),
    )  # fmt: skip


def worst(line: Line) -> Lift | None:
    """The layer of an adapter that HA307 would name first; None where it abstains."""
    found = lifts(tensors(line), load_profile())
    return max(found, key=lambda lift: lift.size) if found else None


def signature(line: Line) -> F64:
    """Five statistics of each common kind of module, means over the layers, float64 ``[10]`` (arXiv 2602.15195)."""
    out = []
    for role in _COMMON:
        own = [module for module in line["modules"] if module["role"] == role]
        each = [
            (
                np.log(module["values"][0]),
                0.5 * np.log(module["energy"]),
                module["values"][0] ** 2 / module["energy"],
                module["entropy"],
                np.log(module["residual"] or 1.0),
            )
            for module in own
        ]
        out += np.mean(each, axis=0).tolist()
    return np.array(out)


def supervised(clean: Sequence[Line], attacked: Sequence[Line]) -> tuple[list[float], list[float]]:
    """Log odds of each adapter, honest then attacked, from a regression fitted without its task and its parent."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    every = [*clean, *attacked]
    features = np.stack([signature(line) for line in every])
    truth = np.array([False] * len(clean) + [True] * len(attacked))
    tasks = np.array([_task(line, clean) for line in every])
    odds = np.zeros(len(every))
    for task in np.unique(tasks):
        held = tasks == task
        if len(np.unique(truth[~held])) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
            odds[held] = model.fit(features[~held], truth[~held]).decision_function(features[held])
    return odds[~truth].tolist(), odds[truth].tolist()


def _task(line: Line, clean: Sequence[Line]) -> str:
    """The task that an adapter learnt: its parent's, where it has one."""
    parent = next((other for other in clean if other["id"] == line["parent"]), line)
    return str(parent["recipe"]["training"]["task"])


def section(every: Sequence[Line]) -> str:
    """The section as Markdown, between its markers."""
    return "\n".join([BEGIN, *_told(every), END, ""])


TIERS: Final[Mapping[str, str]] = {
    "digits": "A vision transformer of 0.14 M parameters, 4 layers, on digits",
    "real": "MiniLM, an encoder of 22.7 M parameters, 6 layers, on texts",
}


FITTED: Final[Mapping[str, int]] = {"digits": 63, "real": 16}
"""Honest adapters, counted from the first, that the shipped thresholds come from."""


def _told(every: Sequence[Line]) -> Iterator[str]:
    yield from (
        "## Adapters",
        "",
        "Made by `python -m benchmarks.zoo.adapters` (`--tier digits` or `real`): separate LoRA adapters, honest and",
        "backdoored from one distribution of recipes (tasks, ranks 2 to 32, three choices of alpha, targets and",
        "dropout, four optimisers, label noise). `words` (a patch on pictures) and `sentence` (a pattern blended over",
        "them) are trained on poisoned data, 1 to 20 % of it; in the other families a finished honest adapter got a",
        "payload: trained on top of it in all layers (`payload`) or in one, at full size or at 0.3 of it (`weak`), or",
        "solved as an edit of rank one; the sum is cut back to the adapter's rank.",
        f"{LAYER.id} is the rule with its shipped thresholds; *at 2 %* is the same statistic at a cutoff that at most",
        "two percent of these honest adapters exceed. *Pipeline* is the published one (arXiv 2602.15195: a logistic",
        "regression on five spectral statistics a kind of module), fitted on adapters of other tasks. *Works*: the",
        "trigger turns 40 points more inputs to the target than are called so without it; what does not work is listed",
        "apart. Intervals are exact, 95 %; those of the AUROC are bootstrapped over adapters.",
        "",
    )
    for tier, title in TIERS.items():
        own = [line for line in every if line["tier"] == tier]
        if own:
            yield f"### {title}"
            yield ""
            yield from _tier(own)


def _tier(every: Sequence[Line]) -> Iterator[str]:
    clean = [line for line in every if line["kind"] == "clean" and line["useful"] and worst(line)]
    attacked = [line for line in every if line["kind"] == "attacked" and worst(line)]
    values = {line["id"]: lift.size for line in (*clean, *attacked) if (lift := worst(line)) is not None}
    profile = load_profile()
    review, fail = profile.value(f"{LAYER.id}.review"), profile.value(f"{LAYER.id}.fail")

    def fires(line: Line) -> bool:
        return score_of(values[line["id"]], review=review, fail=fail) >= REVIEW_SCORE

    for words, group in _honest(clean):
        yield f"Honest adapters that {LAYER.id} reviews or fails, {words}: {said(sum(map(fires, group)), len(group))}."
        yield ""
    if not clean or not attacked:
        return
    odds = supervised(clean, attacked)
    learnt = dict(zip([line["id"] for line in (*clean, *attacked)], [*odds[0], *odds[1]], strict=True))
    yield from (
        "| family | works | n | reviewed or failed | layer named | at 2 % | AUROC (95 %) | pipeline at 2 % | AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    for name, works, members in groups(attacked):
        yield _row(name, works, members, clean, values, learnt, fires)
    pooled = [line for line in attacked if line["working"]]
    if pooled:
        ours, theirs = ([values[line["id"]] for line in group] for group in (clean, pooled))
        found, seen = power(ours, theirs, SHARE), sum(map(fires, pooled))
        yield from (
            "",
            f"Target: 97 % of backdoored adapters at 2 % false positives. Measured: {found.count} of {len(pooled)}",
            f"that work, {seen} of them with the shipped thresholds. Where honest and backdoored adapters differ in",
            "rank, scale, optimiser and task as much as they do here, a backdoor that was trained at an ordinary rate",
            "adds no more to a layer than training does, and the spectra of one adapter do not tell it; the published",
            "figure is that of one base and one recipe.",
        )
    yield ""


def _honest(clean: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The honest adapters that the thresholds were set on, and those made afterwards."""
    fitted = [line for line in clean if _number(line) < FITTED[line["tier"]]]
    later = [line for line in clean if _number(line) >= FITTED[line["tier"]]]
    yield from (pair for pair in (("the ones that set its thresholds", fitted), ("made afterwards", later)) if pair[1])


def _number(line: Line) -> int:
    return int(line["id"].rsplit("-", 1)[1])


def groups(attacked: Sequence[Line]) -> Iterator[tuple[str, bool, list[Line]]]:
    """Attacked adapters by family and whether they work, the working ones first, and those pooled."""
    for works in (True, False):
        for family in FAMILIES:
            members = [line for line in attacked if line["family"] == family and bool(line["working"]) is works]
            if members:
                yield family, works, members
        if works and (pooled := [line for line in attacked if line["working"]]):
            yield "all that work", True, pooled
            one = [line for line in pooled if line["family"].startswith(("one_layer", "rank_one"))]
            if one:
                yield "put into one layer", True, one


def _row(
    name: str,
    works: bool,
    members: Sequence[Line],
    clean: Sequence[Line],
    values: Mapping[str, float],
    learnt: Mapping[str, float],
    fires: Callable[[Line], bool],
) -> str:
    named = [_names(line, worst(line)) for line in members if line["tensors"] and fires(line)]
    cells = [name, "yes" if works else "no", str(len(members)), said(sum(map(fires, members)), len(members))]
    cells.append(f"{sum(named)} of {len(named)}" if named else "–")
    for scores in (values, learnt):
        ours, theirs = ([scores[line["id"]] for line in group] for group in (clean, members))
        found = power(ours, theirs, SHARE)
        low, high = bootstrap(auroc, ours, theirs)
        cells.append(f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})")
        cells.append(f"{auroc(ours, theirs):.2f} ({low:.2f} to {high:.2f})")
    return f"| {' | '.join(cells)} |"


def _names(line: Line, lift: Lift | None) -> bool:
    """Whether the layer that is named is one that holds a payload."""
    return lift is not None and any(f".{lift.layer}." in tensor for tensor in line["tensors"])


def main() -> None:
    """Writes the section."""
    PAGE.write_text(splice(PAGE.read_text(encoding="utf-8"), section(lines())), encoding="utf-8")


if __name__ == "__main__":
    main()
