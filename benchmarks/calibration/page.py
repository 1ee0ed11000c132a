"""The section of docs/benchmarks.md about detection, from what the protocol returned alone."""

from collections.abc import Iterable, Mapping
from textwrap import fill
from typing import Any

from benchmarks.calibration.protocol import interval

BEGIN, END = "<!-- calibration:begin -->", "<!-- calibration:end -->"

Results = Mapping[str, Any]

_HEAD = """
Made by `python -m benchmarks.calibrate --write` from what was observed of every model of the bank
(`benchmarks/results/bank/`, one line a model: the thresholds, the profile and this section can be derived again from it
in a minute). Clean and attacked models draw their training from one distribution of recipes (`benchmarks/zoo`). The
thresholds come from clean models alone, so that no attack family has shaped them. Weights alone: no probe, no data.
**Three banks, never pooled**: rates on toys are not those of real models.
"""
_KNOWN = """
What was known when: the rules were designed while the first 55 models of the real bank were known, before the toys.
Two exact rules (HA303, HA304) and the fit of the tails were then changed after a look at the first 81 clean toy
encoders, of which they had flagged too many; these models are development, not a test, for both. HA202 was changed
after it had failed one honest toy encoder and two toy decoders that were rounded to 16 bits; their lines, and those
of 14 attacks that it had named, were then measured again (one of them is no longer named). Last, when 397 clean
models were known, of which twelve were flagged, HA304 was changed after two honest merges. (Thresholds at one clean
model in 10,000 a rule, not one in 1,000, were tried on these as well: six flagged, not ten, but an edited matrix then
needs seven times the change of its siblings, not four, to be seen; they were left.) **All models made since are a
test**, and each bank has a table of what the thresholds of the known models say of the later ones. Two looks at later
real models still changed something: HA201 had failed clean-0073, whose untouched rows float32 rounding had kept from
being taken for decayed, and HA304 had lost a written neuron that it used to find. Both were mended, all real models
observed again, and of the toys merges and the edits that HA304 can name; before, 2 of the 21 later clean real models
were flagged, and 13 of the 29 later attacks. No rule of the weights was changed after the 24 honest and 11 attacked
models that came last. One number of the fit was: how many excesses a tail's shape is taken from (30, not 20). With 25
of them the real thresholds rose two- to tenfold and flagged as many honest models as without. It has its price where
few models are known: frozen, the toys' thresholds flag 13 of 349 and 11 of 390 honest models, where they flagged 10
and 5.
"""
_COMMANDS = """
`python -m benchmarks.calibrate --reduced` makes up to 80 toys in at most eight minutes and runs everything below on
them (the toy base takes two more, the first time). `--full --results build/bank` first makes 1,600 models of each toy
tier (3 to 4 CPU seconds each, measured on a busy machine) and 400 of the real one (30 to 50 CPU seconds): eight to
nine hours on one core, and it goes on where it stopped. What stands here is what had been made so far; each table
says how many.
"""
_ATTACK_HEAD = (
    "family", "n", "failed", "reviewed", "nothing found", "AUROC (95 %)", "TPR at 1 % FPR", "located first",
    "rows named", "rules",
)  # fmt: skip
_NOT = "“Not judged”: too few layers moved for any rule; such a model is `inconclusive`, never a pass."


def section(tiers: Mapping[str, Results], transfer: Mapping[str, Results], titles: Mapping[str, str]) -> str:
    """The section as Markdown, between its markers."""
    parts = [BEGIN, "## Detection", "", *_paragraphs(_HEAD, _KNOWN, _COMMANDS), *_overview(tiers)]
    for name, results in tiers.items():
        parts += [f"### {titles[name]}", "", *_clean(results), *_frozen(results["frozen"])]
        parts += [*_left_out(results), *_attacks(results)]
    return "\n".join([*parts, *_outside(tiers), *_transfer(transfer), END, ""])


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """A Markdown table and an empty line."""
    head = list(head)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows), ""]


def _paragraphs(*texts: str) -> list[str]:
    return [line for text in texts for line in (*fill(" ".join(text.split()), 118).splitlines(), "")]


def _overview(tiers: Mapping[str, Results]) -> list[str]:
    rows = []
    for name, results in tiers.items():
        clean, pooled, edits = results["clean"], results["groups"].get("pooled"), results["groups"].get("edits")
        unseen = results["left_out"]["recipe"]["pooled"]
        rows.append(
            (
                name,
                clean["n"],
                _false(clean),
                _false(unseen),
                *(_area(g) for g in (edits, pooled)),
                *_powers(edits, pooled),
            )
        )
    head = (
        "bank", "clean", "false positives (upper bound)", "of unseen recipes", "AUROC edits", "AUROC all", "TPR edits",
        "TPR all",
    )  # fmt: skip
    return table(head, rows) + _paragraphs(
        "False positives: clean models that would be reviewed or failed, with the one-sided 95 % upper bound. AUROC "
        "with its 95 % interval (bootstrap over models), TPR at 1 % false positives with its 95 % interval (the wider "
        "of Clopper-Pearson's and of a bootstrap over both sides); working attacks alone. With fewer than 100 clean "
        "models 1 % means above all of them."
    )


def _powers(*groups: Results | None) -> list[str]:
    return [_power(group) for group in groups]


def _false(found: Results) -> str:
    return f"{found['false']} of {found['n']} (≤ {100 * found['upper']:.1f} %)"


def _area(group: Results | None) -> str:
    if group is None:
        return "–"
    low, high = group["auroc_interval"]
    return f"{group['auroc']:.3f} ({low:.3f} to {high:.3f}), n = {group['n']}"


def _power(group: Results | None) -> str:
    if group is None:
        return "–"
    low, high = group["power_interval"]
    return f"{100 * group['power']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _clean(results: Results) -> list[str]:
    clean = results["clean"]
    theory = clean["theory"]
    silent = clean["outcomes"].get("not judged", 0)
    return _paragraphs(
        f"**Clean fine-tunes: n = {clean['n']}.** Each is judged by thresholds that neither it nor its kin (merges and "
        f"what they are made of) had a part in, five folds. {clean['false']} would be reviewed or failed: "
        f"{interval(clean['false'], clean['n'])}, one-sided 95 % upper bound {100 * clean['upper']:.2f} %"
        + (f" (by rule: {_counts(clean['rules'])})" if clean["rules"] else "")
        + f". {silent} could not be judged. {_NOT if silent else ''}",
        f"Textbook nulls at 1 %, for comparison: the edge of independent noise is exceeded in "
        f"{100 * theory['spike']:.0f} % of the moved matrices of clean models, even rows are rejected in "
        f"{100 * theory['rows']:.0f} %; {100 * theory['models']:.0f} % of the clean models have such a matrix.",
    )


def _frozen(found: Results | None) -> list[str]:
    if found is None:
        return []
    clean = found["clean"]
    lines = _paragraphs(
        f"**Frozen before the test.** Thresholds of the {found['known']} clean models that were known when rules and "
        f"thresholds were last changed, on the {clean['n']} clean ones made since: "
        f"{interval(clean['false'], clean['n'])} reviewed or failed, one-sided 95 % upper bound "
        f"{100 * clean['upper']:.2f} %" + (f" (by rule: {_counts(clean['rules'])})" if clean["rules"] else "") + ". "
        "Attacks made since that work, against these clean ones:"
    )
    return lines + table(_ATTACK_HEAD, [_attack(*item) for item in found["groups"].items()])


def _left_out(results: Results) -> list[str]:
    lines = []
    for name, found in results["left_out"].items():
        pooled, inside, outside = (found[k] for k in ("pooled", "inside", "outside"))
        lines += _paragraphs(
            f"**Whole {name}s left out** ({len(found['values'])} of them, one at a time; thresholds and bank know the "
            f"others): {interval(pooled['false'], pooled['n'])} reviewed or failed, upper bound "
            f"{100 * pooled['upper']:.1f} %. Inside the bank by the test below: "
            f"{interval(inside['false'], inside['n'])}; outside, where no rate is quoted: "
            f"{interval(outside['false'], outside['n'])}."
        )
        if name == "recipe":
            rows = [(value, f["n"], f["false"], f["outside"]) for value, f in found["values"].items()]
            lines += table(("recipe left out", "n", "reviewed or failed", "outside the bank"), rows)
    return lines


def _attacks(results: Results) -> list[str]:
    lines = _paragraphs(
        "**Attacks that work** (success at least 40 points above its floor). *Located first*: of those that any rule "
        "flagged, the first tensor or token row that a rule names is one that the attack wrote or used. *Rows named*: "
        "where a rule for token rows fired, trigger rows among the first ten that a rule names."
    )
    lines += table(
        _ATTACK_HEAD, [_attack(name, f) for name, f in (*results["groups"].items(), *results["families"].items())]
    )
    if results["not_working"]:
        lines += _paragraphs("**Attacks that do not work**, listed apart and counted nowhere:")
        rows = [(name, f["n"], f["outcomes"].get("fail", 0), f["outcomes"].get("review", 0), _counts(f["rules"]))
                for name, f in results["not_working"].items()]  # fmt: skip
        lines += table(("family", "n", "failed", "reviewed", "rules"), rows)
    return lines


def _attack(name: str, found: Results) -> tuple[Any, ...]:
    outcomes = found["outcomes"]
    low, high = found["auroc_interval"]
    return (
        name, found["n"], outcomes.get("fail", 0), outcomes.get("review", 0),
        outcomes.get("pass", 0) + outcomes.get("not judged", 0),
        f"{found['auroc']:.2f} ({low:.2f} to {high:.2f})", _power(found),
        f"{found['located']} of {found['located_of']}" if found["located_of"] else "–",
        f"{found['rows_named']} of {found['rows_of']}" if found["rows_of"] else "–", _counts(found["rules"]),
    )  # fmt: skip


def _outside(tiers: Mapping[str, Results]) -> list[str]:
    lines = ["### Recipes outside the bank", ""]
    lines += _paragraphs(
        "A fine-tune is described by 17 numbers that the diff gives anyway (`audit/traits.py`: size of the drift, its "
        "spread over depth and roles, embeddings and vectors against matrices, what stayed unchanged, rank, tails); a "
        "conformal test on the mean distance to the three nearest clean models (`audit/likeness.py`) says whether it "
        "could have been in the bank. If not, no false-positive rate is quoted; exact facts and confirmed triggers "
        "count as ever, and the thresholds are carried over. Below, each model against all other clean ones, and whole "
        "recipes against the others."
    )
    rows = []
    for name, results in tiers.items():
        found, unseen = results["outside"], results["left_out"]["recipe"]
        rows.append(
            (
                name,
                "clean, one at a time",
                found["clean"]["n"],
                interval(found["clean"]["outside"], found["clean"]["n"]),
            )
        )
        total = unseen["outside"]["n"] + unseen["inside"]["n"]
        rows.append((name, "clean, recipe left out", total, interval(unseen["outside"]["n"], total)))
        attacked = list(found["families"].values())
        n, out = sum(f["n"] for f in attacked), sum(f["outside"] for f in attacked)
        rows.append((name, "working attacks", n, interval(out, n)))
        far = [
            f"{family} {f['outside']} of {f['n']}"
            for family, f in found["families"].items()
            if 2 * f["outside"] > f["n"]
        ]
        rows += [(name, "attacks mostly outside", "", ", ".join(far))] if far else []
    return lines + table(("bank", "models", "n", "outside"), rows)


def _transfer(transfer: Mapping[str, Results]) -> list[str]:
    if not transfer:
        return []
    rows = [
        (name, interval(f["false"], f["clean"]), interval(f["flagged"], f["working"])) for name, f in transfer.items()
    ]
    return [
        "### Thresholds carried from one bank to another", "",
        *_paragraphs(
            "A model without a bank is judged by the first bank's thresholds; what that costs, as far as banks can "
            "tell: expect several times the false positives of a bank's own models, and no rate is quoted."
        ),
        *table(("thresholds of → models of", "clean reviewed or failed", "working attacks reviewed or failed"), rows),
    ]  # fmt: skip


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in sorted(found.items(), key=lambda item: -item[1]))
