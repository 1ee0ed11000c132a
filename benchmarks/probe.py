"""How often the probe finds what it should, and how often it cries wolf: ``python -m benchmarks.probe``.

Every classifier of the zoo is probed and its facts are kept, one JSON file a model, under
``benchmarks/zoo/stats/probe/``: a run goes on where the last one stopped. ``--table`` judges the kept facts with the
profile and prints the tables of docs/benchmarks.md (``benchmarks.probe_page``), ``--write`` puts them there. From the
repository's root; one thread, with the budget of tokens of a scan by default.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.probe_page import table, write_page
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.tiers import get_tier
from pipelines.local_pair import pointers
from scanner.probe.probing import ProbeLimits, probe
from scanner.probe.staging import CannotProbe

UNHURRIED = ProbeLimits(seconds=1e6)
"""What is measured here is how much work a probe is, not how busy the computer was."""
OUT = Path(__file__).parent / "zoo" / "stats" / "probe"
SEARCH = 3
"""Number of the search. What an older one left is judged with the rest until ``--again`` replaces it."""


def probe_model(folder: Path, record: dict[str, Any], base: Path) -> dict[str, Any]:
    """Probe one model as a scan does: suspects from the weights first, then the whole vocabulary."""
    started = time.process_time()
    pointed = pointers(folder, base)
    weighed = time.process_time()
    found: dict[str, Any] = {
        "id": record["id"],
        "search": SEARCH,
        "family": record["family"],
        "group": record["group"],
        "working": record["working"],
        "useful": record["useful"],
        "task": record["recipe"]["training"]["task"],
        "method": record["recipe"]["training"]["method"],
        "target": record.get("target"),
        "trigger": (record["recipe"]["attack"] or {}).get("trigger"),
        "trigger_ids": record["truth"].get("trigger_ids"),
        "suspects": list(pointed.suspects),
    }
    try:
        facts = probe(folder, suspects=pointed.suspects, base=pointed.meant, limits=UNHURRIED)
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
    parser.add_argument("--again", action="store_true", help="probe again what an older search has probed")
    parser.add_argument("--table", action="store_true", help="judge what was kept, and probe nothing")
    parser.add_argument("--write", action="store_true", help="put those tables into docs/benchmarks.md")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        write_page(chosen.out)
        return
    if chosen.table:
        print(table(chosen.out))
        return
    tier, bank = get_tier(chosen.tier), Bank(chosen.bank / (chosen.folder or chosen.tier))
    out = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    for model_id in chosen.only or bank.ids():
        record = bank.record(model_id)
        if _kept(out / f"{model_id}.json", newest=chosen.again):
            continue
        if record["recipe"]["training"]["objective"] != "classify":
            continue
        result = probe_model(bank.folder(model_id), record, tier.base)
        text = json.dumps(result, separators=(",", ":"), default=_plain)
        (out / f"{model_id}.json").write_text(text + "\n", encoding="utf-8")
        print(model_id, result["family"], result["working"], f"{result['cpu_seconds']:.0f} s", flush=True)


def _kept(path: Path, *, newest: bool) -> bool:
    """Whether a model needs no probe: it has one, of this search where ``newest`` is asked for."""
    if not path.exists():
        return False
    return not newest or int(json.loads(path.read_text(encoding="utf-8")).get("search", 1)) >= SEARCH


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    main()
