"""Drives a fleet of light jobs, as a process that can be killed: ``python -m lightfleet LEDGER IDS JOURNAL``."""

import argparse
from pathlib import Path

import lightjobs

from pipelines.fleet import FleetPatience
from pipelines.fleet_progress import Silent
from pipelines.fleet_run import Resources, run_fleet
from pipelines.ledger import Ledger
from pipelines.selection import Selection
from pipelines.settings import Settings


def main() -> None:
    """Run until nothing is due."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with Ledger(options.ledger) as ledger:
        report = run_fleet(
            ledger,
            Selection(models=options.ids),
            Settings(endpoint="http://127.0.0.1:9"),
            Resources(
                engine=options.engine,
                workers=options.workers,
                threads=options.threads,
                # Innocent jobs are killed again and again here.
                patience=FleetPatience(deaths=1000),
            ),
            Silent(),
            entry=lambda _setup: lightjobs.entry(journal=options.journal, pause=options.pause),
        )
    print(report.counts, report.summary, flush=True)


if __name__ == "__main__":
    main()
