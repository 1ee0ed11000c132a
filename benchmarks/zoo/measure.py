"""Measures the zoo with the scanner: ``python -m benchmarks.zoo.measure --tier real`` from the repository's root.

Every complete model of the bank that has no statistics yet is compared with its base. The statistics and the record
of each model go to ``benchmarks/zoo/stats/<tier>/`` and are committed; the models are not.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.zoo.bank import Bank
from benchmarks.zoo.stats import BASE_FILE, pack, pack_base, save
from benchmarks.zoo.tiers import get_tier
from pipelines.local_pair import drift_between
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import DriftFacts, RepoRef

STATS = Path(__file__).parent / "stats"


LEAST_COVERAGE = 0.97
"""Share of the parameters that must have been compared; the heads that the base lacks are less than the rest."""


def measure_folders(base: Path, candidate: Path, *, threads: int = 1) -> DriftFacts:
    """The drift between two folders written by transformers."""
    # Folders need no network: the reader makes no request until it is asked for one.
    ours, theirs = (collect(RepoRef(path=str(folder)), Hub()) for folder in (candidate, base))
    return drift_between(ours, theirs, threads=threads)


def main() -> None:
    """Measures what has not been measured, or everything with ``--again``."""
    parser = argparse.ArgumentParser(description="Measure the drift of every model of the zoo.")
    parser.add_argument("--tier", default="real")
    parser.add_argument("--bank", type=Path, default=Path("build/zoo"))
    parser.add_argument("--out", type=Path, default=STATS)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    tier, bank = get_tier(arguments.tier), Bank(arguments.bank / arguments.tier)
    out = arguments.out / tier.name
    out.mkdir(parents=True, exist_ok=True)
    if arguments.again or not (out / BASE_FILE).exists():
        save(out / BASE_FILE, pack_base(measure_folders(tier.base, tier.base)))
    for model_id in bank.ids():
        if (out / f"{model_id}.json").exists() and not arguments.again:
            continue
        started = time.perf_counter()
        facts = measure_folders(tier.base, bank.folder(model_id), threads=arguments.threads)
        if facts.coverage.fraction < LEAST_COVERAGE:
            why = "; ".join(f"{skip.what}: {skip.why}" for skip in facts.coverage.skipped[:5])
            print(f"{model_id} left out, only {facts.coverage.fraction:.0%} compared: {why}", flush=True)
            continue
        save(out / f"{model_id}.npz", pack(facts))
        (out / f"{model_id}.json").write_text(json.dumps(bank.record(model_id)) + "\n", encoding="utf-8")
        size = (out / f"{model_id}.npz").stat().st_size
        print(f"{model_id} {size / 1e3:.0f} kB {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
