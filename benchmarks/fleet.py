"""Fleets on a simulated Hub: verdicts, overhead, memory, requests, scaling.

Run as ``PYTHONPATH=tests/support python benchmarks/fleet.py``. Makes its repositories under ``build/fleet`` (later runs
reuse them), serves them from a process of its own, and types ``hubaudit fleet`` as a user would; what is measured comes
from its JSON log, its ledger, and the server's own count of requests. Prints the figures and writes
``benchmarks/results/fleet.json``; ``docs/scale.md`` explains them. ``benchmarks/fleet_kills.py`` is the kill test.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet_burn
import psutil
from localhub.environment import TOKENS
from simulated_hub import AUTHOR, BROKEN, Member, Population, SimulatedHub, populate, serve

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "fleet"
RESULTS = ROOT / "benchmarks" / "results" / "fleet.json"
PARTS = ("whole", "engines", "cpu", "latency", "shared")
LATENCY_SECONDS = 0.1


def main() -> None:
    options = _parser().parse_args()
    os.environ.update(environment_of(""))
    WORK.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    population = populate(WORK / f"hub-{options.repos}", repos=options.repos, families=options.families)
    for part in options.only or PARTS:
        print(f"== {part}", flush=True)
        load = os.getloadavg()[0]
        found = globals()[f"run_{part}"](population, options)
        results[part] = {**found, "load_before": load, "load_after": os.getloadavg()[0]}
        print(json.dumps(results[part], indent=1), flush=True)
        results["environment"] = _environment()
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


@dataclass(kw_only=True)
class Watched:
    """What one ``hubaudit fleet`` said and took.

    ``memory`` has, second by second, the answers so far and the bytes of the driver and of its largest worker.
    """

    ledger: Path
    seconds: float
    events: list[dict[str, Any]]
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    worker_cpu: dict[int, float] = field(default_factory=dict)
    """CPU seconds of each worker by process id, its start included."""

    @property
    def end(self) -> dict[str, Any]:
        """The last line of the log."""
        return self.events[-1]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The lines about jobs."""
        return [event for event in self.events if event["event"] in {"scanned", "unchanged", "failed"}]

    @property
    def rate(self) -> float:
        """Answers per second, once workers have started and compiled."""
        return fleet_burn.steady_rate([event["time"] for event in self.answers])


def hubaudit_fleet(hub: SimulatedHub, name: str, *words: str, fresh: bool = True) -> Watched:
    """Type ``hubaudit fleet`` with a ledger of that name, and watch it."""
    path = WORK / f"{name}.sqlite"
    if fresh:
        for old in WORK.glob(f"{name}.sqlite*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    command = [sys.executable, "-m", "pipelines", "fleet", "--ledger", str(path), "--log", "json"]
    command += ["--retry-wait", "0.2", "--fail-on", "never", *words]
    began = time.perf_counter()
    driver = subprocess.Popen(
        command,
        env={**os.environ, **environment_of(hub.endpoint)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    events: list[dict[str, Any]] = []
    watched = Watched(ledger=path, seconds=0.0, events=events)
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(driver.pid, watched, over), daemon=True)
    sampler.start()
    assert driver.stderr is not None
    for line in driver.stderr:
        if line.startswith("{"):
            events.append(json.loads(line))
        else:
            print(line, end="", file=sys.stderr)
    driver.wait()
    over.set()
    sampler.join()
    watched.seconds = time.perf_counter() - began
    return watched


def environment_of(endpoint: str) -> dict[str, str]:
    """Return the environment of a driver: no token, no telemetry, little patience with a server that is ours."""
    for name in TOKENS:
        os.environ.pop(name, None)
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return {**quiet, "HF_ENDPOINT": endpoint, "HUBAUDIT_PATIENCE": "1", "HUBAUDIT_TIMEOUT": "20"} if endpoint else quiet


def _sample(pid: int, watched: Watched, over: threading.Event) -> None:
    driver = psutil.Process(pid)
    while not over.wait(1.0):
        try:
            workers = [child for child in driver.children() if "spawn_main" in " ".join(child.cmdline())]
            largest = max((child.memory_info().rss for child in workers), default=0)
            watched.memory.append((len(watched.events), driver.memory_info().rss, largest))
            for child in workers:
                times = child.cpu_times()
                watched.worker_cpu[child.pid] = times.user + times.system
        except psutil.Error:
            continue


def run_whole(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """All repositories once, then once more: verdicts, overhead, memory, requests."""
    from pipelines.ledger_views import LedgerReader

    words = ("--models", str(_ids([one.repo_id for one in population.members for _ in range(2)])))
    words = (*words, "--workers", "2", "--threads", "2")
    with serve(population) as hub:
        for one in population.members:
            if one.kind == "vanished":
                hub.ask("remove", repo_id=one.repo_id)
        watched = hubaudit_fleet(hub, "whole", *words)
        seen = hub.ask("log")
        hub.ask("forget")
        again = hubaudit_fleet(hub, "whole", *words, fresh=False)
        idle = hub.ask("log")["requests"]
        hub.ask("forget")
        by_author = hubaudit_fleet(hub, "listed", "--author", AUTHOR, *words[2:])
        listed = hub.ask("log")["requests"]
        crashes = hub.ask("crashes")
        wrong = check_verdicts(hub, population, watched.ledger, every=options.check_every)
    with LedgerReader(watched.ledger) as reader:
        bodies = [len(body) for _, body in reader.reports()]
        found_in = [row["repo_id"] for row in reader.results() if row["outcome"] in {"review", "fail"}]
    kinds = {one.repo_id: one.kind for one in population.members}
    jobs = len(population.members)
    scan_seconds = statistics.mean(event["seconds"] for event in watched.answers if event["event"] == "scanned")
    driver_cpu = watched.end["driver_cpu_seconds"] / len(watched.answers)
    worker_cpu = sum(watched.worker_cpu.values()) / len(watched.answers)
    settled = [row for row in watched.memory if row[0] > 0.1 * jobs]
    quarter = max(1, len(settled) // 4)
    return {
        "repos": jobs,
        "weights_bytes": population.bytes,
        "wall_seconds": watched.seconds,
        "counts": watched.end["counts"],
        "verdicts": watched.end["verdicts"],
        "left_out": watched.end["left_out"],
        "planted": sum(kind == "planted" for kind in kinds.values()),
        "planted_found": sum(kinds[name] == "planted" for name in found_in),
        "honest_with_findings": sum(kinds[name] == "honest" for name in found_in),
        "wrong_verdicts": wrong,
        "server_crashes": len(crashes),
        "mean_scan_seconds": scan_seconds,
        "driver_seconds_per_job": watched.end["driver_seconds"] / len(watched.answers),
        "driver_cpu_per_job": driver_cpu,
        "worker_cpu_per_job": worker_cpu,
        "overhead": driver_cpu / worker_cpu,
        "requests_per_repo": seen["requests"] / jobs,
        "requests_per_repo_listed": listed / jobs,
        "bytes_per_repo": seen["bytes"] / jobs,
        "report_bytes_mean": statistics.mean(bodies),
        "ledger_bytes": watched.ledger.stat().st_size,
        "driver_rss_first_last": [
            statistics.mean(r[1] for r in part) for part in (settled[:quarter], settled[-quarter:])
        ],
        "worker_rss_first_last": [
            statistics.mean(r[2] for r in part) for part in (settled[:quarter], settled[-quarter:])
        ],
        "second_run": {"scanned": again.end["scanned"], "unchanged": again.end["unchanged"], "requests": idle},
        "listed_run_seconds": by_author.seconds,
    }


def check_verdicts(hub: SimulatedHub, population: Population, path: Path, *, every: int) -> list[str]:
    """Compare what the ledger holds with scans one by one, by a plain reader without cache; name what differs.

    Broken repositories are held against what ``BROKEN`` says they must come to.
    """
    from datetime import UTC, datetime

    from audit.thresholds import load_profile
    from pipelines.audit_repo import audit_repo
    from pipelines.fleet_job import measured_digest
    from pipelines.ledger_views import LedgerReader
    from reports.json_v1 import dump
    from scanner.hub import Hub

    with LedgerReader(path) as reader:
        jobs = {job["repo_id"]: job for job in reader.jobs()}
    with closing(sqlite3.connect(path)) as db:
        salt = db.execute("SELECT salt FROM runs WHERE id = 1").fetchone()[0]
    wrong = []
    for number, one in enumerate(population.members):
        job = jobs[one.repo_id]
        if one.kind in BROKEN:
            state, how = BROKEN[one.kind]
            if (job["state"], job["ending"] if state == "done" else job["cause"]) != (state, how):
                wrong.append(f"{one.repo_id} ({one.kind}): {job['state']} {job['ending']} {job['cause']}")
        elif number % every == 0 or one.kind == "planted":
            plain = Hub(hub.endpoint, timeout_seconds=10.0)
            audited = audit_repo(
                one.repo_id, hub=plain, profile=load_profile(), clock=lambda: datetime.now(UTC), threads=1, salt=salt
            )
            if measured_digest(dump(audited.report)) != job["digest"]:
                wrong.append(f"{one.repo_id} ({one.kind}): another report than by itself")
    return wrong


def run_engines(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """The same repositories by local workers and by Ray, with one salt: are the reports the same?"""
    from pipelines.ledger import Ledger
    from pipelines.ledger_views import LedgerReader

    ids = _ids([one.repo_id for one in population.members if one.kind not in BROKEN][: options.sample])
    digests: dict[str, dict[str, str]] = {}
    rates = {}
    with serve(population) as hub:
        for engine in ("local", "ray"):
            for old in WORK.glob(f"engine-{engine}.sqlite*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            with Ledger(WORK / f"engine-{engine}.sqlite") as ledger:
                _begin_with_salt(ledger, ids, hub.endpoint)
            words = ("--models", str(ids), "--workers", "2", "--threads", "2", "--engine", engine)
            watched = hubaudit_fleet(hub, f"engine-{engine}", *words, fresh=False)
            rates[engine] = watched.rate
            with LedgerReader(watched.ledger) as reader:
                digests[engine] = {job["repo_id"]: job["digest"] for job in reader.jobs()}
    same = sum(digests["local"][name] == digests["ray"][name] for name in digests["local"])
    return {"repos": len(digests["local"]), "identical": same, "scans_per_second": rates}


def _begin_with_salt(ledger: Any, ids: Path, endpoint: str) -> None:
    """Open the run that the command line then goes on with."""
    from pipelines.fleet_job import rules_digest
    from pipelines.selection import Selection
    from pipelines.settings import tool_version

    asked = {**Selection(models=ids).as_json(), "against": None, "endpoint": endpoint}
    ledger.begin_run(selection=asked, engine="local", rules=rules_digest(), tool=tool_version(), now=1.8e9, salt=7)


def run_cpu(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """One and two workers without any delay: real scans, and jobs that do nothing but compute."""
    ids = _ids([one.repo_id for one in population.members if one.kind == "honest"][: options.sample])
    found: dict[str, Any] = {}
    with serve(population) as hub:
        for workers in (1, 2):
            words = ("--models", str(ids), "--workers", str(workers), "--threads", "1")
            found[f"scans_per_second_{workers}"] = hubaudit_fleet(hub, f"cpu-{workers}", *words).rate
    for workers in (1, 2):
        names = [f"burn/{number}" for number in range(2 * options.sample)]
        found[f"burns_per_second_{workers}"] = fleet_burn.rate(WORK, "burn", None, names, workers=workers, threads=1)
    found["scan_speedup"] = found["scans_per_second_2"] / found["scans_per_second_1"]
    found["burn_speedup"] = found["burns_per_second_2"] / found["burns_per_second_1"]
    return found


def run_latency(population: Population, _options: argparse.Namespace) -> dict[str, Any]:
    """One scan at a time, and 32, against a server that takes 100 ms for each answer."""
    names = [one.repo_id for one in population.members if one.kind == "honest"]
    found: dict[str, Any] = {"latency_seconds": LATENCY_SECONDS}
    with serve(population, latency_seconds=LATENCY_SECONDS) as hub:
        for workers, threads, jobs in ((1, 1, 40), (1, 32, 600), (2, 16, 600)):
            words = ("--models", str(_ids(names[:jobs])), "--workers", str(workers), "--threads", str(threads))
            found[f"scans_per_second_{workers}x{threads}"] = hubaudit_fleet(hub, "latency", *words).rate
        for workers, threads, jobs in ((1, 1, 40), (1, 32, 1200), (2, 16, 1200)):
            rate = fleet_burn.rate(WORK, "read", hub.endpoint, names[:jobs], workers=workers, threads=threads)
            found[f"reads_per_second_{workers}x{threads}"] = rate
    for kind in ("scans", "reads"):
        best = max(found[f"{kind}_per_second_1x32"], found[f"{kind}_per_second_2x16"])
        found[f"{kind}_speedup_32"] = best / found[f"{kind}_per_second_1x1"]
    return found


def run_shared(_population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """Fifty fine-tunes of one base of 46 MB: how often are the base's bytes read?"""
    root = WORK / "shared"
    size = _one_family(root, options.members)
    found: dict[str, Any] = {"members": options.members, "base_bytes": size}
    members = [
        Member(repo_id=f"{AUTHOR}/tune{n:02d}", kind="honest", family="base/b00") for n in range(options.members)
    ]
    for word, words in (("with_cache", ()), ("without_cache", ("--cache-size", "0"))):
        with serve(Population(root=root, members=members)) as hub:
            watched = hubaudit_fleet(hub, "shared", "--author", AUTHOR, "--workers", "2", "--threads", "2", *words)
            found[f"base_bytes_sent_{word}"] = hub.ask("log", path="/base/b00/resolve/")["bytes"]
            found[f"seconds_{word}"] = watched.seconds
            found[f"worker_cpu_{word}"] = sum(watched.worker_cpu.values())
            found[f"compared_bytes_{word}"] = sum(event.get("bytes_read", 0) for event in watched.answers)
    found["times_read"] = found["base_bytes_sent_with_cache"] / size
    return found


def _one_family(root: Path, members: int) -> int:
    """Write a base of 46 MB and its fine-tunes, which share one weight file on the disk; return the base's bytes."""
    import numpy as np
    import pico
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import BertConfig, BertModel

    base, tuned = root / "base" / "b00", root / ".tuned"
    if not base.exists():
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(
                vocab_size=30_000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
            )
        )
        pico.save(model, base)
        shutil.copytree(base, tuned)
        draw = np.random.default_rng(0)
        tensors = {
            name: value + (draw.standard_normal(value.shape) * 0.01 * value.std()).astype(np.float32)
            for name, value in load_file(base / "model.safetensors").items()
        }
        save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
        (tuned / "README.md").write_text("---\nbase_model: base/b00\n---\n")
    for number in range(members):
        folder = root / AUTHOR / f"tune{number:02d}"
        if not folder.exists():
            shutil.copytree(tuned, folder, copy_function=os.link)
    return sum(
        path.stat().st_size for path in base.iterdir() if path.name in {"model.safetensors", "config.json", "README.md"}
    )


def _ids(names: Sequence[str]) -> Path:
    path = WORK / "ids.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def _environment() -> dict[str, Any]:
    return {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "machine": platform.machine()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repos", type=int, default=2000)
    parser.add_argument("--families", type=int, default=40)
    parser.add_argument("--sample", type=int, default=120, help="repositories of the smaller parts")
    parser.add_argument("--members", type=int, default=50, help="fine-tunes of the shared base")
    parser.add_argument("--check-every", type=int, default=1, help="scan each n-th honest repository by itself as well")
    parser.add_argument("--only", nargs="*", choices=PARTS)
    return parser


if __name__ == "__main__":
    main()
