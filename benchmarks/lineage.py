"""Measures the tests of descent on pairs whose descent is known: ``nice -n 19 python -m benchmarks.lineage``.

First ``python -m benchmarks.lineages.train`` trains the models. Every pair of one architecture has the same
configuration. Answers go line by line to ``build/lineages/pairs.jsonl`` (a repeated run skips what is there); the
statistics go to ``benchmarks/results/lineage.json``, the section on lineage of ``docs/benchmarks.md`` is written anew.

Classes of pairs (base, candidate):

related
    an ancestor and its descendant: fine-tune, instruct, continued pre-training, grandchild, and descendants that were
    cast, pruned, rounded to a grid, renamed, given tokens, permuted, or robbed of a layer.
unrelated
    models of one configuration with different starts, their descendants, and altered descendants of other families.
siblings
    two children of one parent: related, though neither is the other's base.
same start
    the same random start, other data: neither independent nor descended; shown, not counted.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lineages.derived import DERIVED, derive
from benchmarks.lineages.page import write_page
from benchmarks.lineages.plan import FAMILIES
from benchmarks.lineages.train import BANK, RECORD
from pipelines.purify import intervals
from scanner.alignment import align
from scanner.config_json import parse_object
from scanner.conversions import Canonical, canonicalise
from scanner.folder import list_folder
from scanner.lineage.candidates import rank_candidates
from scanner.lineage.direction import check_direction
from scanner.lineage.relation import FAR_DRIFT, measure_relation
from scanner.lineage.sampling import plan_samples, read_samples
from scanner.lineage.trace import trace
from scanner.records import RepoFacts, RepoRef
from scanner.weights.opening import open_source

RESULTS = Path("benchmarks/results/lineage.json")
ENCODERS = Path("build/zoo/real")
FAMILY = Path("build/family/v1/demo")
_TUNED = ("fine-tune", "instruct", "MiniLM and its fine-tunes")
MORE_STARTS = 3
"""Models from scratch without a family that altered descendants are held against as well."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two folders and what is known about them."""

    truth: str
    group: str
    base: Path
    candidate: Path

    @property
    def key(self) -> str:
        """What tells this pair from the others."""
        return f"{self.base.name} > {self.candidate.name}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tests of descent on pairs of known descent.")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--encoders", type=int, default=60, help="at most so many fine-tunes of the real encoder")
    parser.add_argument("--summarise", action="store_true", help="measure nothing; only count what was measured")
    arguments = parser.parse_args()
    log = arguments.bank / "pairs.jsonl"
    known = {r["key"]: r for r in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    with log.open("a") as out:
        for pair in () if arguments.summarise else pairs(arguments.bank, arguments.encoders):
            if pair.key not in known:
                known[pair.key] = measured = measure(pair)
                out.write(json.dumps(measured) + "\n")
                out.flush()
    statistics = summarise(list(known.values())) | {"parents": parents(arguments.bank)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(statistics, indent=1) + "\n")
    write_page(statistics, table(statistics))
    print(table(statistics))


def pairs(bank: Path, encoders: int) -> Iterator[Pair]:
    """Every pair, related ones first."""
    models = {path.parent.name: json.loads(path.read_text()) for path in sorted(bank.glob(f"*/{RECORD}"))}
    root = {name: _line(name, models)[-1] for name in models}
    for name, record in models.items():
        line = _line(name, models)
        for distance, ancestor in enumerate(line[1:], start=1):
            group = record["group"] if distance == 1 else f"{distance} generations apart"
            yield Pair("related", group, bank / ancestor, bank / name)
    folders = sorted(path.parent for path in ENCODERS.glob("*/recipe.json"))[:encoders]
    for folder in folders:
        if (FAMILY / "encoder").is_dir() and (folder / "model.safetensors").exists():
            yield Pair("related", "MiniLM and its fine-tunes", FAMILY / "encoder", folder)
            yield Pair("unrelated", "MiniLM trained anew, fine-tunes of MiniLM", FAMILY / "other-encoder", folder)
    names = sorted(models)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if models[one]["kind"] != models[other]["kind"] or root[one] == root[other]:
                if models[one]["parent"] == models[other]["parent"] and models[one]["parent"]:
                    yield Pair("siblings", "children of one base", bank / one, bank / other)
                continue
            same = models[root[one]]["start_seed"] == models[root[other]]["start_seed"]
            plain = root[one] == one and root[other] == other
            group = "both from scratch" if plain else "descendants of different starts"
            yield (
                Pair("same start", group, bank / one, bank / other)
                if same
                else Pair("unrelated", group, bank / one, bank / other)
            )
    yield from _altered(bank, models, root)


def _line(name: str, models: dict[str, Any]) -> list[str]:
    """The model, its parent, and so on to the root."""
    line = [name]
    while (parent := models[line[-1]]["parent"]) is not None:
        line.append(parent)
    return line


def _altered(bank: Path, models: dict[str, Any], root: dict[str, str]) -> Iterator[Pair]:
    """Altered descendants against their own base, and against models of other starts."""
    bases = [name for name in sorted(models) if models[name]["group"] == "from scratch"]
    bases = [name for name in bases if int(name[-2:]) < FAMILIES + MORE_STARTS]
    for name, change in DERIVED:
        for source in (source for source in models if models[source]["parent"]):
            made = derive(bank, source, name, change)
            yield Pair("related", f"altered: {name}", bank / root[source], made)
            for other in bases:
                if other != root[source] and models[other]["kind"] == models[source]["kind"]:
                    yield Pair("unrelated", "altered descendants of another start", bank / other, made)


def measure(pair: Pair) -> dict[str, Any]:
    """Run the checks on one pair as a scan does."""
    theirs, ours = _facts(pair.base), _facts(pair.candidate)
    with open_source(theirs, None) as base, open_source(ours, None) as candidate:
        alignment = align(
            candidate.table,
            base.table,
            candidate_config=ours.config,
            base_config=theirs.config,
            canonicalise=_in_process,
        )
        traced = trace(alignment, base, candidate, seed=1)
        numbers = {f"{c.name}.{m.name}": m.value for c in traced.checks for m in c.measurements}
        planned = plan_samples(traced.alignment.pairs, rows_per_tensor=64, seed=1)
        direction = check_direction(list(read_samples(planned, base, candidate)))
        relation = measure_relation(traced.checks, None).relation
    keep = ("row_cosine_median", "rows_nearest_to_their_own", "relative_drift_median", "delta_rank_over_rows")
    return {
        "key": pair.key,
        "truth": pair.truth,
        "group": pair.group,
        "status": traced.status,
        "checks": {c.name: c.outcome for c in traced.checks},
        "unit_order_log10_p": numbers.get("unit_order.log10_p"),
        "norm_log10_p": numbers.get("norm_vectors.log10_p"),
        "direction": direction.outcome,
        "relation": relation,
        **{name: numbers.get(f"sampled_rows.{name}") for name in keep},
    }


def parents(bank: Path) -> dict[str, Any]:
    """How often the nearest of a family and of strangers is the true parent.

    Every trained descendant is held against its ancestors, its siblings and their descendants, and the bases of the
    other families; its own descendants are left out.
    """
    models = {path.parent.name: json.loads(path.read_text()) for path in sorted(bank.glob(f"*/{RECORD}"))}
    named = wrong = denied = total = 0
    for name, record in models.items():
        if record["parent"] is None:
            continue
        family = [other for other in models if _line(other, models)[-1] == _line(name, models)[-1]]
        rivals = [other for other in family if name not in _line(other, models)]
        rivals += [f"{record['kind']}-{index:02d}" for index in range(FAMILIES)]
        others = [_facts(bank / other) for other in dict.fromkeys(rivals)]
        ranking = rank_candidates(_facts(bank / name), others, None, seed=1)
        total += 1
        decided = any(check.name == "nearest_base" and check.outcome == "passed" for check in ranking.checks)
        right = ranking.best is not None and Path(ranking.best.ref.name).name == record["parent"]
        named, wrong = named + (decided and right), wrong + (decided and not right)
        denied += record["parent"] in {Path(ref.name).name for ref in ranking.beaten}
    return {
        "parent_named": rate(named, total),
        "another_named": rate(wrong, total),
        "parent_called_beaten": rate(denied, total),
    }


def _in_process(checkpoints: Any) -> tuple[Canonical, ...]:
    """The library's own names without a child process for every pair: these configurations are ours."""
    return tuple(canonicalise(sorted(names), config) for names, config in checkpoints)


def _facts(folder: Path) -> RepoFacts:
    config = folder / "config.json"
    return RepoFacts(
        ref=RepoRef(path=str(folder)),
        files=list_folder(str(folder)),
        config=parse_object(config.read_text(encoding="utf-8")) if config.exists() else None,
    )


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by truth and group, error rates with intervals, and the extremes."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["truth"], record["group"]].append(record)
    rows = [
        {"truth": truth, "group": group, "pairs": len(found), **_statuses(found), **_extremes(found)}
        for (truth, group), found in sorted(groups.items())
    ]
    related = [r for r in records if r["truth"] == "related"]
    unrelated = [r for r in records if r["truth"] == "unrelated"]
    same = [r for r in unrelated if "MiniLM" not in r["group"]]
    return {
        "rows": rows,
        "true_positive_rate": rate(sum(r["status"] == "verified" for r in related), len(related)),
        "related_contradicted": rate(sum(r["status"] == "contradicted" for r in related), len(related)),
        "false_positive_rate": rate(sum(r["status"] == "verified" for r in unrelated), len(unrelated)),
        "unrelated_contradicted": rate(sum(r["status"] == "contradicted" for r in unrelated), len(unrelated)),
        "identical_configuration_confused": rate(sum(r["status"] == "verified" for r in same), len(same)),
        "unit_order_false_alarm_at_1e-2": rate(
            sum((r["unit_order_log10_p"] or 0.0) <= -2 for r in unrelated), len(unrelated)
        ),
        "norm_vectors_false_alarm_at_1e-2": rate(
            sum((r["norm_log10_p"] or 0.0) <= -2 for r in unrelated), len(unrelated)
        ),
        "continued_pre_training_went_far": _far([r for r in related if r["group"] == "continued pre-training"]),
        "fine-tunes_went_as_far": _far([r for r in related if r["group"] in _TUNED]),
        "relations": {
            f"{truth}: {group}": {n: sum(r["relation"] == n for r in found) for n in {r["relation"] for r in found}}
            for (truth, group), found in sorted(groups.items())
            if truth == "related"
        },
        "direction": {
            outcome: sum(r["direction"] == outcome for r in related) for outcome in ("passed", "failed", "not_run")
        },
    }


def _far(found: list[dict[str, Any]]) -> dict[str, float | int]:
    """How many moved by at least ``FAR_DRIFT`` of their size."""
    return rate(sum((r["relative_drift_median"] or 0.0) >= FAR_DRIFT for r in found), len(found))


def _statuses(found: list[dict[str, Any]]) -> dict[str, int]:
    return {s: sum(r["status"] == s for r in found) for s in ("verified", "unverified", "contradicted")}


def _extremes(found: list[dict[str, Any]]) -> dict[str, float | None]:
    cosines = [r["row_cosine_median"] for r in found if r["row_cosine_median"] is not None]
    drifts = [r["relative_drift_median"] for r in found if r["relative_drift_median"] is not None]
    return {
        "row_cosine_lowest": round(min(cosines), 3) if cosines else None,
        "row_cosine_highest": round(max(cosines), 3) if cosines else None,
        "relative_drift_highest": round(max(drifts), 3) if drifts else None,
    }


def rate(count: int, total: int) -> dict[str, float | int]:
    """A share with its Clopper-Pearson interval (exact, two-sided, 95 %)."""
    if total == 0:
        return {"count": 0, "of": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    found = intervals.rate(count, total)
    numbers = {"share": found.value, "low": found.low, "high": found.high}
    return {"count": count, "of": total, **{name: round(value, 5) for name, value in numbers.items()}}


def table(statistics: dict[str, Any]) -> str:
    """The Markdown of docs/benchmarks.md."""
    lines = [
        "| truth | pairs of | n | verified | unverified | contradicted | row cosine (median, least to most) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['truth']} | {r['group']} | {r['pairs']} | {r['verified']} | {r['unverified']} | {r['contradicted']} "
        f"| {r['row_cosine_lowest']} to {r['row_cosine_highest']} |"
        for r in statistics["rows"]
    ]
    lines.append("")
    rates = {**statistics, **statistics["parents"]}
    lines += [
        f"- {name.replace('_', ' ')}: {r['count']} of {r['of']} = {r['share']:.2%} "
        f"(95 % interval {r['low']:.2%} to {r['high']:.2%})"
        for name, r in rates.items()
        if isinstance(r, dict) and "low" in r
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
