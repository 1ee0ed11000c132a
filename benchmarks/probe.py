"""How often the probe finds what it should, and how often it cries wolf: ``python -m benchmarks.probe``.

Every classifier of the zoo is probed and its facts are kept, one JSON file a model, under
``benchmarks/zoo/stats/probe/``: a run goes on where the last one stopped. ``--table`` judges the kept facts with the
profile and prints the tables of docs/benchmarks.md. From the repository's root; one thread.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks.zoo.bank import Bank
from benchmarks.zoo.measure import measure_folders
from benchmarks.zoo.tiers import get_tier
from scanner.probe.probing import ProbeLimits, probe
from scanner.probe.records import ProbeFacts
from scanner.probe.staging import CannotProbe

UNHURRIED = ProbeLimits(seconds=1e6)
"""What is measured here is how much work a probe is, not how busy the computer was."""
OUT = Path(__file__).parent / "zoo" / "stats" / "probe"


def probe_model(folder: Path, record: dict[str, Any], base: Path) -> dict[str, Any]:
    """Probe one model as a scan does: suspects from the weights first, then the whole vocabulary."""
    from audit.suspects import suspects
    from scanner.facts import collect
    from scanner.hub import Hub
    from scanner.records import RepoRef
    from scanner.tokens import read_tokens

    started = time.process_time()
    hub = Hub()
    tokens = read_tokens(collect(RepoRef(path=str(folder)), hub), hub)
    suspected = suspects(measure_folders(base, folder), tokens)
    weighed = time.process_time()
    found: dict[str, Any] = {
        "id": record["id"],
        "family": record["family"],
        "group": record["group"],
        "working": record["working"],
        "useful": record["useful"],
        "task": record["recipe"]["training"]["task"],
        "method": record["recipe"]["training"]["method"],
        "target": record.get("target"),
        "trigger": (record["recipe"]["attack"] or {}).get("trigger"),
        "trigger_ids": record["truth"].get("trigger_ids"),
        "suspects": list(suspected),
    }
    try:
        facts = probe(folder, suspects=suspected, limits=UNHURRIED)
    except CannotProbe as error:
        return {**found, "skipped": str(error), "cpu_seconds": round(time.process_time() - weighed, 2)}
    return {
        **found,
        "cpu_seconds": round(time.process_time() - weighed, 2),
        "weigh_seconds": round(weighed - started, 2),
        "facts": asdict(facts),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Probe what has not been probed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, default=Path("build/zoo"))
    parser.add_argument("--tier", default="real")
    parser.add_argument("--folder", help="of the bank, when not the tier's own: hard (benchmarks.probe_attacks)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", help="ids; all models that are there when absent")
    parser.add_argument("--table", action="store_true", help="judge what was kept, and probe nothing")
    chosen = parser.parse_args(arguments)
    if chosen.table:
        print(table(chosen.out))
        return
    tier, bank = get_tier(chosen.tier), Bank(chosen.bank / (chosen.folder or chosen.tier))
    out = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    for model_id in chosen.only or bank.ids():
        record = bank.record(model_id)
        if (out / f"{model_id}.json").exists() or record["recipe"]["training"]["objective"] != "classify":
            continue
        result = probe_model(bank.folder(model_id), record, tier.base)
        text = json.dumps(result, separators=(",", ":"), default=_plain)
        (out / f"{model_id}.json").write_text(text + "\n", encoding="utf-8")
        print(model_id, result["family"], result["working"], f"{result['cpu_seconds']:.0f} s", flush=True)


def table(out: Path) -> str:
    """The measured rates as Markdown: by attack family among working attacks, and on clean models."""
    from audit.rates import upper_bound
    from audit.thresholds import load_profile
    from audit.triggers import confirmed

    profile = load_profile()
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    rows: dict[str, list[tuple[bool, ...]]] = {}
    false, seconds, skipped = [], [], 0
    for one in kept:
        if "facts" not in one:
            skipped += 1
            continue
        seconds.append(one["cpu_seconds"])
        found = confirmed(TypeAdapter(ProbeFacts).validate_python(one["facts"]), profile)
        if one["family"] is None:
            false.append(bool(found))
        elif one["working"] and one["group"] == "backdoor":
            trigger = set(one["trigger_ids"] or ())
            right = [t for t in found if t.insertion.target == one["target"]]
            first = bool(right) and bool(set(right[0].insertion.tokens) & trigger)
            by_weights = (bool(set(one["suspects"][:most]) & trigger) for most in (1, 10))
            rows.setdefault(one["family"], []).append((bool(right), first, *by_weights))
    heads = ("attack (working ones)", "n", "confirmed", "named first", "weights alone: first", "among the first ten")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    pooled = [hit for hits in rows.values() for hit in hits]
    for family, hits in [*sorted(rows.items()), ("**all**", pooled)]:
        counts = " | ".join(str(sum(column)) for column in zip(*hits, strict=True))
        lines.append(f"| {family} | {len(hits)} | {counts} |")
    bound = upper_bound(sum(false), len(false))
    lines.append("")
    lines.append(
        f"Clean classifiers: {sum(false)} of {len(false)} with a confirmed trigger (95 % upper bound {bound:.1%}). "
        f"CPU seconds a model, whole vocabulary: median {np.median(seconds):.0f}, largest {max(seconds):.0f}. "
        f"Not probed: {skipped}."
    )
    return "\n".join(lines)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    main()
