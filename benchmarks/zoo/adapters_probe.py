"""Runs the probe on adapters of the zoo, put on their base: ``python -m benchmarks.zoo.adapters_probe``.

Attacked adapters that work and honest useful ones in turn, as a scan would run them. One line an adapter in
``benchmarks/results/adapters_probe.jsonl``; resumable.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from audit.thresholds import load_profile
from audit.triggers import confirmed
from benchmarks.zoo.adapters import ROOT, lines
from benchmarks.zoo.adapters_recipes import ONE_RECIPE
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.recipes import Attack
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.tiers import Tier, get_tier
from pipelines.adapted_model import adapted
from scanner.facts import collect
from scanner.hub import Hub
from scanner.meanings import base_meanings
from scanner.probe.probing import DEFAULT_LIMITS, probe
from scanner.records import RepoRef

RESULTS: Final = ROOT / "benchmarks" / "results" / "adapters_probe.jsonl"
Line = Mapping[str, Any]


def probed() -> list[dict[str, Any]]:
    """Every line so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]


def wanted(every: Sequence[Line], tier: str) -> Iterator[Line]:
    """The adapters of a tier to run: those that work, with an honest one after every second."""
    own = [line for line in every if line["tier"] == tier]
    honest = iter([line for line in own if line["kind"] == "clean" and line["useful"]])
    for number, line in enumerate(one for one in own if one["working"]):
        yield line
        if number % 2 and (other := next(honest, None)) is not None:
            yield other


def run(line: Line, tier: Tier, folder: Path) -> dict[str, Any]:
    """Probe one adapter.

    Args:
        line: its record.
        tier: whose base it belongs on.
        folder: where it lies.
    """
    hub, started = Hub(), time.process_time()
    candidate, base = (collect(RepoRef(path=str(path)), hub) for path in (folder, tier.base))
    with adapted(candidate, base, hub, limit_bytes=DEFAULT_LIMITS.weight_bytes) as merged:
        facts = probe(merged, base=base_meanings(None, base, hub), threads=1)
    found = confirmed(facts, load_profile())
    ids, target = truth(line, tier)
    right = [trigger.insertion for trigger in found if trigger.insertion.target == target]
    return {
        "tier": line["tier"], "id": line["id"], "family": line["family"],
        "confirmed": [trigger.insertion.text for trigger in found],
        "right_class": bool(right), "named": any(set(insertion.tokens) & ids for insertion in right),
        "untried": bool(facts.untried), "tokens": facts.tokens,
        "cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def truth(line: Line, tier: Tier) -> tuple[frozenset[int], int | None]:
    """Token ids of an adapter's trigger and the class that it is for; nothing for honest ones."""
    told = line["recipe"]["attack"]
    if told is None:
        return frozenset(), None
    parent = next((one for one in lines() if (one["tier"], one["id"]) == (line["tier"], line["parent"])), line)
    attack = Attack(**told)
    ids = tier.tokenizer()(" ".join(attack.trigger), add_special_tokens=False)["input_ids"]
    return frozenset(ids), attack.target(load_task(parent["recipe"]["training"]["task"]).classes)


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description="Run the probe on adapters of the zoo.")
    parser.add_argument("--tier", default="real")
    parser.add_argument("--bank", type=Path, default=ROOT / "build" / "zoo" / "adapters")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    began, tier = time.monotonic(), get_tier(arguments.tier.removesuffix(ONE_RECIPE))
    bank = Bank(arguments.bank / arguments.tier)
    done = {(line["tier"], line["id"]) for line in probed()}
    for line in list(wanted(lines(), arguments.tier))[: arguments.count]:
        if time.monotonic() - began > arguments.seconds:
            return
        if (line["tier"], line["id"]) not in done and bank.has(line["id"]):
            found = run(line, tier, bank.folder(line["id"]))
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(found, flush=True)


if __name__ == "__main__":
    main()
