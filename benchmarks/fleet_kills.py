"""The kill test at full size: SIGKILL of driver, worker and raylet at random moments, on real scans.

Run as ``PYTHONPATH=tests/support python benchmarks/fleet_kills.py --kills 200``. Half of the kills fall on the local
engine (driver, workers), half on Ray (driver, actors, raylet), each on a ledger of its own. After the last kill the
command is typed until it ends by itself. A job that two such kills hit while it ran alone has been given up by then,
with its reason; ``hubaudit fleet retry`` makes those due again, once. Then the ledger is held against the server's own
log: each repository must have exactly one final record, no attempt may begin after a result was kept, and the weights
of a repository may have been sent once, plus once for each attempt that was cut short. A run ends when the work does:
where that comes before the last kill, another run (``--seed``), or a slower Hub (``--latency``), adds the rest. Runs
are added to ``benchmarks/results/fleet_kills.json``.
"""

import argparse
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from fleet import ROOT, WORK, environment_of
from killing import Target, kill_and_resume
from simulated_hub import AUTHOR, BROKEN, Population, SimulatedHub, populate, serve

RESULTS = ROOT / "benchmarks" / "results" / "fleet_kills.json"
TARGETS: dict[str, dict[Target, float]] = {
    "local": {"driver": 1.0, "worker": 1.0},
    "ray": {"driver": 1.0, "worker": 1.0, "raylet": 1.0},
}
FLEET = (sys.executable, "-m", "pipelines", "fleet")
LATE = """
SELECT COUNT(*) FROM attempts AS late JOIN attempts AS kept
ON late.job_id = kept.job_id AND late.id > kept.id AND kept.outcome = 'scanned'
"""
CUT = """
SELECT jobs.repo_id, COUNT(*) FROM attempts JOIN jobs ON jobs.id = attempts.job_id
WHERE attempts.outcome IN ('died', 'interrupted', 'returned') GROUP BY jobs.id
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--repos", type=int, default=2000)
    parser.add_argument("--families", type=int, default=40)
    parser.add_argument("--engines", nargs="*", default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds that the Hub takes for an answer")
    options = parser.parse_args()
    os.environ.update(environment_of(""))
    WORK.mkdir(parents=True, exist_ok=True)
    whole = populate(WORK / f"hub-{options.repos}", repos=options.repos, families=options.families)
    healthy = [one for one in whole.members if one.kind not in BROKEN]
    population = Population(root=whole.root, members=healthy)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for engine in options.engines:
        kills = options.kills // len(options.engines)
        found = run(engine, population, kills, options.seed, options.latency)
        results.setdefault(engine, []).append(found)
        print(engine, json.dumps(found, indent=1), flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def run(engine: str, population: Population, kills: int, seed: int, latency: float) -> dict[str, Any]:
    """Kill so often, let it finish, and look."""
    import shutil

    path = WORK / f"kills-{engine}.sqlite"
    for old in WORK.glob(f"{path.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    command = [*FLEET, "--author", AUTHOR, "--engine", engine, "--fail-on", "never"]
    command += ["--workers", "2", "--threads", "2", "--retry-wait", "0.2", "--log", "none", "--ledger", str(path)]
    began = time.monotonic()
    with serve(population, latency_seconds=latency) as hub:
        killed = kill_and_resume(
            command,
            kills=kills,
            targets=TARGETS[engine],
            seed=seed,
            # A driver needs some seconds until its workers have loaded the numerics; most kills come after that.
            least_seconds=1.0,
            most_seconds=20.0 if engine == "local" else 40.0,
            environment=environment_of(hub.endpoint),
            heard=lambda text: print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True),
            limit_seconds=6 * 3600,
            given_up=(*FLEET, "retry", "--cause", "WorkerDied", "--ledger", str(path)),
        )
        found = look(path, hub, population)
    return {
        "killed": dict(killed),
        "seed": seed,
        "latency_seconds": latency,
        "seconds": time.monotonic() - began,
        **found,
    }


def look(path: Path, hub: SimulatedHub, population: Population) -> dict[str, Any]:
    """Hold the ledger against what was killed and what the server has sent."""
    with closing(sqlite3.connect(path)) as db:
        states = dict(db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        outcomes = dict(db.execute("SELECT outcome, COUNT(*) FROM attempts GROUP BY outcome"))
        results, distinct = db.execute("SELECT COUNT(*), COUNT(DISTINCT repo_id || revision) FROM results").fetchone()
        late = db.execute(LATE).fetchone()[0]
        cut = Counter(dict(db.execute(CUT)))
    sent = hub.ask("log", path="/model.safetensors")["repos"]
    beyond = {name: n for name, n in sent.items() if name.startswith(f"{AUTHOR}/") and n > 1 + cut[name]}
    repos = len(population.members)
    return {
        "repos": repos,
        "states": states,
        "attempts": outcomes,
        "results": results,
        "distinct_results": distinct,
        "attempts_after_a_result": late,
        "weights_sent_more_often_than_cut_short": beyond,
        "passed": states == {"done": repos} and results == distinct == repos and late == 0 and not beyond,
    }


if __name__ == "__main__":
    main()
