"""The section of ``docs/benchmarks.md`` about adapters: ``python -m benchmarks.zoo.adapters_page``; no model is needed.

Readings of the same lines: rules HA307 and HA308 with their shipped thresholds; the statistic of HA307 at the cutoff
that two percent of the honest adapters exceed; and two of published statistics (``adapters_scores``), a fitted one and
one that knows honest adapters alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from audit.detectors.adapter_factors import REWRITTEN
from audit.detectors.adapter_trend import LAYER
from audit.readings import REVIEW_SCORE, score_of
from audit.thresholds import load_profile
from benchmarks.calibration.rates import auroc, bootstrap, power, said
from benchmarks.pages import splice
from benchmarks.zoo.adapters import PAGE, lines
from benchmarks.zoo.adapters_probe import probed
from benchmarks.zoo.adapters_recipes import CONTROL, FAMILIES, LATER, ONE_LAYER
from benchmarks.zoo.adapters_scores import Line, computed, distances, number, supervised, worst

BEGIN, END = "<!-- adapters:begin -->", "<!-- adapters:end -->"
SHARE: Final = 0.02
"""False positives at which the published pipeline quotes its power."""
TIERS: Final[Mapping[str, str]] = {
    "digits": "A vision transformer of 0.14 M parameters, 4 layers, on digits",
    "digits-one": "The same with one recipe and one task",
    "real": "MiniLM, an encoder of 22.7 M parameters, 6 layers, on texts",
    "real-one": "MiniLM with one recipe and one task",
}
FITTED: Final[Mapping[str, int]] = {"digits": 92, "real": 36}
"""Honest adapters, counted from the first, that the shipped thresholds of HA307 come from."""
_TOLD: Final = f"""## Adapters

Made by `python -m benchmarks.zoo.adapters` (`--tier digits` or `real`): separate LoRA adapters, honest and
backdoored from one distribution of recipes (tasks, ranks 2 to 32, three choices of alpha, targets and
dropout, four optimisers, label noise). `words` (a patch on pictures) and `sentence` (a pattern blended over
them) are trained on poisoned data, 1 to 20 % of it; in the other families a finished honest adapter got a
payload. Its own factors were trained on (`continued`, `continued_one` in one layer); or factors of a payload's own,
trained in all layers (`payload`) or in one (`one_layer`), at full size or at 0.3 of it (`weak`), or solved as
an edit of rank one, were joined with the adapter's and cut back to its rank by a singular value decomposition.
In the tiers of one recipe, all adapters learn one task at rank 16 in all attention matrices with AdamW, and
5 to 20 % of the data is poisoned: the set-up in which published figures were measured. There, `{CONTROL}`
is no attack: an honest adapter that was trained on for as long as `continued`, without a trigger.

{LAYER.id} and {REWRITTEN.id} are the rules with their shipped thresholds; of {REWRITTEN.id}, *some* modules that
were computed ask for a review, *all* only inform. *Size* is the statistic of {LAYER.id}, at a cutoff that at
most two percent of these honest adapters exceed. *Distance* is that of five spectral statistics a kind of
module from those of the honest adapters alone (an honest one's from the others'); *pipeline* is the published
one (arXiv 2602.15195), a logistic regression on these five, fitted on adapters of other tasks, or of other
draws where there is one task.
*Works*: the trigger turns 40 points more inputs to the target than are called so without it; what does not work is
listed apart. Intervals are exact, 95 %; those of the AUROC are bootstrapped over adapters.
"""
_SEEN: Final = f"""
**What this says.** The aim, 97 % of backdoored adapters at 2 % false positives, is missed by every statistic here
that looks at what an adapter adds, in mixed recipes and in one. A trigger that was in the data from the start
leaves spectra like those of honest training, also where all adapters share base, task and recipe (few adapters
and small models: the published figures are of language models of 2 to 3 billion parameters). One that was
trained on top in a second run does not, but neither does that second run without a trigger (`{CONTROL}`):
what is seen there is the longer training. {REWRITTEN.id} sees payloads that were joined by a decomposition, because
that is how these were written and not for what they do; whoever trains them in, or mixes the factors afterwards,
leaves no such trace, so its counts say nothing of attackers who know of it. What helps is to run the adapter on
its base, which a scan does for classifiers.

**Changed after the fact.** The thresholds of {LAYER.id} that 79 honest adapters had given failed 1 of the 73 made
afterwards (MiniLM, SGD, one layer ten times as large as the others), reviewed another of those that set them, and
had seen no attack that works. They were set anew on all 128 of mixed recipes, which no longer test them. {REWRITTEN.id}
was made after a look at the digits of mixed recipes, before any other adapter was looked at.
"""


def section(every: Sequence[Line], runs: Sequence[Line] = ()) -> str:
    """The section as Markdown, between its markers.

    Args:
        every: lines of adapters.
        runs: lines of probed adapters.
    """
    return "\n".join([BEGIN, _TOLD, *_tiers(every), *([_SEEN] if every else []), *_probes(runs, every), END, ""])


def _tiers(every: Sequence[Line]) -> Iterator[str]:
    for tier, title in TIERS.items():
        own = [line for line in every if line["tier"] == tier]
        if own:
            yield f"### {title}"
            yield ""
            yield from _tier(own)


class _Judged:
    """The adapters of a tier with what each reading says of them."""

    def __init__(self, every: Sequence[Line]) -> None:
        profile = load_profile()
        self.clean = [line for line in every if line["kind"] == "clean" and line["useful"] and worst(line)]
        self.attacked = [line for line in every if line["kind"] == "attacked" and worst(line)]
        self.controls = [line for line in every if line["kind"] == "control" and worst(line)]
        both = [*self.clean, *self.attacked, *self.controls]
        self._sizes = {line["id"]: lift.size for line in both if (lift := worst(line)) is not None}
        self._limits = profile.value(f"{LAYER.id}.review"), profile.value(f"{LAYER.id}.fail")
        self._bar = profile.value(f"{REWRITTEN.id}.log_tail")
        self.scores = {"size": self._sizes}
        if self.clean and self.attacked:
            far = distances(self.clean, [*self.attacked, *self.controls])
            odds = supervised(self.clean, self.attacked, self.controls)
            for name, parts in (("distance", far), ("pipeline", odds)):
                values = [value for part in parts for value in part]
                self.scores[name] = dict(zip([line["id"] for line in both], values, strict=True))

    def fires(self, line: Line) -> bool:
        """Whether HA307 asks for a review."""
        review, fail = self._limits
        return score_of(self._sizes[line["id"]], review=review, fail=fail) >= REVIEW_SCORE

    def some(self, line: Line) -> bool:
        """Whether HA308 asks for a review."""
        found = computed(line, self._bar)
        return found is not None and 0 < found[0] < found[1]

    def whole(self, line: Line) -> bool:
        """Whether HA308 informs that all modules were computed."""
        found = computed(line, self._bar)
        return found is not None and found[0] == found[1]


def _tier(every: Sequence[Line]) -> Iterator[str]:
    judged = _Judged(every)
    for words, group in _honest(judged.clean):
        counts = (said(sum(map(judge, group)), len(group)) for judge in (judged.fires, judged.some, judged.whole))
        fires, some, whole = counts
        yield f"Honest adapters{words}: {LAYER.id} {fires}; {REWRITTEN.id} some {some}, all {whole}."
        yield ""
    if len(judged.clean) < 3 or not judged.attacked:
        return
    yield (
        "| family | works | n | "
        + " | ".join(
            [LAYER.id, f"{REWRITTEN.id} some", "all", *(f"{name} at 2 % | AUROC (95 %)" for name in judged.scores)]
        )
        + " |"
    )
    yield "|" + "---|" * (6 + 2 * len(judged.scores))
    for name, works, members in groups(judged.attacked):
        yield _row(name, "yes" if works else "no", members, judged)
    if judged.controls:
        yield _row(CONTROL, "–", judged.controls, judged)
    yield ""


def _honest(clean: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The honest adapters that the thresholds were set on, and those made afterwards."""
    first = FITTED.get(clean[0]["tier"], 0) if clean else 0
    fitted = [line for line in clean if number(line) < first]
    later = [line for line in clean if number(line) >= first]
    named = (f" (the ones that set the thresholds of {LAYER.id})", fitted), (" made afterwards" if first else "", later)
    yield from (pair for pair in named if pair[1])


def groups(attacked: Sequence[Line]) -> Iterator[tuple[str, bool, list[Line]]]:
    """Attacked adapters by family and whether they work, the working ones first, and those pooled."""
    for works in (True, False):
        for family in (*FAMILIES, *LATER):
            members = [line for line in attacked if line["family"] == family and bool(line["working"]) is works]
            if members:
                yield family, works, members
        if works and (pooled := [line for line in attacked if line["working"]]):
            yield "all that work", True, pooled
            one = [line for line in pooled if line["family"] in ONE_LAYER]
            if one:
                yield "put into one layer", True, one


def _row(name: str, works: str, members: Sequence[Line], judged: _Judged) -> str:
    cells = [name, works, str(len(members))]
    cells += [said(sum(map(judge, members)), len(members)) for judge in (judged.fires, judged.some)]
    cells.append(str(sum(map(judged.whole, members))))
    for scores in judged.scores.values():
        ours, theirs = ([scores[line["id"]] for line in group] for group in (judged.clean, members))
        found = power(ours, theirs, SHARE)
        low, high = bootstrap(auroc, ours, theirs)
        cells.append(f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})")
        cells.append(f"{auroc(ours, theirs):.2f} ({low:.2f} to {high:.2f})")
    return f"| {' | '.join(cells)} |"


def _probes(runs: Sequence[Line], every: Sequence[Line]) -> Iterator[str]:
    if not runs:
        return
    known = {(line["tier"], line["id"]): line for line in every}
    yield from (
        "### Adapters that were run",
        "",
        "Made by `python -m benchmarks.zoo.adapters_probe`: adapters of texts that work, and honest ones, put on",
        "their base and probed as a scan does. *Confirmed*: some insertion towards the attack's class (honest: any",
        "class). *Named*: one of these holds a token of the trigger.",
        "",
        "| family | n | confirmed | named |",
        "|---|---|---|---|",
    )
    attacked = [run for run in runs if run["family"] is not None and known.get((run["tier"], run["id"]))]
    for family in dict.fromkeys((*FAMILIES, *LATER)):
        yield from _probe_row(family, [run for run in attacked if run["family"] == family])
    yield from _probe_row("all of them", attacked)
    honest = [run for run in runs if run["family"] is None]
    yield f"| honest | {len(honest)} | {said(sum(bool(run['confirmed']) for run in honest), len(honest))} | – |"
    yield ""


def _probe_row(name: str, runs: Sequence[Line]) -> Iterator[str]:
    if runs:
        found = said(sum(run["right_class"] for run in runs), len(runs))
        yield f"| {name} | {len(runs)} | {found} | {sum(run['named'] for run in runs)} |"


def main() -> None:
    """Writes the section."""
    made = section(lines(), probed())
    PAGE.write_text(splice(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
