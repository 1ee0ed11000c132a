"""Fleets on a simulated Hub: verdicts, overhead, memory, requests, scaling: ``python benchmarks/fleet.py``.

Makes its repositories under ``build/fleet`` (later runs reuse them), serves them from a process of its own, and drives
them with the code that ``hubaudit fleet`` runs. Prints a table and writes ``benchmarks/results/fleet.json``;
``docs/scale.md`` explains the figures. ``benchmarks/fleet_kills.py`` is the kill test.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)]

from localhub.environment import TOKENS
from simulated_hub import AUTHOR, BROKEN, Population, SimulatedHub, populate, serve

WORK = ROOT / "build" / "fleet"
RESULTS = ROOT / "benchmarks" / "results" / "fleet.json"
PARTS = ("whole", "engines", "cpu", "latency", "shared")
LATENCY_SECONDS = 0.1
SALT = 20261120
QUICK = {"wait_seconds": 0.2, "tries": 3, "outage": 1_000_000}
"""Patience of the runs: one repository of the hundred broken ones answers 503 for ever, and nobody waits for it."""


def main() -> None:
    options = _parser().parse_args()
    _set_environment()
    WORK.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    population = populate(WORK / f"hub-{options.repos}", repos=options.repos, families=options.families)
    for part in options.only or PARTS:
        print(f"== {part}", flush=True)
        results[part] = globals()[f"run_{part}"](population, options)
        results["environment"] = _environment()
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


class Watch:
    """An observer that notes when each job was answered, and how large the processes were meanwhile."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.seconds: list[float] = []
        self.memory: list[tuple[int, int, int]] = []
        self.notes: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        self._thread.start()

    def ended(self, job: Any, answer: Any, *, again: bool) -> None:
        self.times.append(time.perf_counter())
        if hasattr(answer, "seconds"):
            self.seconds.append(answer.seconds)

    def note(self, event: str, text: str) -> None:
        self.notes[event] += 1

    def close(self) -> None:
        self._over.set()

    def rate(self, skip: int) -> float:
        """Jobs per second from the ``skip``-th answer to the last: workers have started and compiled by then."""
        return (len(self.times) - 1 - skip) / (self.times[-1] - self.times[skip])

    def _sample(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._over.wait(1.0):
            children = []
            for child in me.children(recursive=True):
                with _gone():
                    if "spawn_main" in " ".join(child.cmdline()):
                        children.append(child.memory_info().rss)
            self.memory.append((len(self.times), me.memory_info().rss, max(children, default=0)))


def run_fleet_on(
    hub: SimulatedHub,
    name: str,
    *,
    models: Path | None = None,
    engine: str = "local",
    workers: int = 2,
    threads: int = 2,
    fresh: bool = True,
    cache: bool = True,
) -> tuple[Any, Watch, Path]:
    """Drive one run; return its report, what was watched, and the ledger."""
    from pipelines.fleet import FleetPatience
    from pipelines.fleet_run import Resources, run_fleet
    from pipelines.ledger import Ledger
    from pipelines.selection import Selection
    from pipelines.settings import Settings

    path = WORK / f"{name}.sqlite"
    if fresh:
        for old in WORK.glob(f"{name}.sqlite*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    watch = Watch()
    with Ledger(path) as ledger:
        report = run_fleet(
            ledger,
            Selection(models=models) if models else Selection(author=AUTHOR),
            Settings(endpoint=hub.endpoint, timeout_seconds=10.0, patience_seconds=1.0),
            Resources(
                engine=engine,  # type: ignore[arg-type]
                workers=workers,
                threads=threads,
                cache_folder=path.with_name(f"{path.name}.cache") if cache else None,
                patience=FleetPatience(**QUICK),  # type: ignore[arg-type]
            ),
            watch,
            clock=lambda: 1_800_000_000.0 + time.monotonic(),
            salt=SALT,
        )
    watch.close()
    return report, watch, path


def run_whole(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """All repositories once, then once more: verdicts, overhead, memory, requests."""
    from pipelines.ledger_views import LedgerReader

    with serve(population) as hub:
        gone = [one.repo_id for one in population.members if one.kind == "vanished"]
        ids = WORK / "ids.txt"
        ids.write_text("".join(f"{one.repo_id}\n{one.repo_id}\n" for one in population.members))
        for repo_id in gone:
            hub.ask("remove", repo_id=repo_id)
        began = time.perf_counter()
        report, watch, path = run_fleet_on(hub, "whole", models=ids)
        wall = time.perf_counter() - began
        seen = hub.ask("log")
        hub.ask("forget")
        again, _, _ = run_fleet_on(hub, "whole", models=ids, fresh=False)
        idle = hub.ask("log")["requests"]
        crashes = hub.ask("crashes")
        wrong = check_verdicts(hub, population, path, every=options.check_every)
    with LedgerReader(path) as reader:
        bodies = [len(body) for _, body in reader.reports()]
    jobs = len(population.members)
    busy = statistics.mean(watch.seconds)
    overhead = report.summary.driver_seconds / len(watch.times)
    early = [row for row in watch.memory if row[0] > 0.1 * jobs]
    quarter = max(1, len(early) // 4)
    found = {
        "repos": jobs,
        "weights_bytes": population.bytes,
        "wall_seconds": wall,
        "verdicts": report.verdicts,
        "counts": {"done": report.counts.done, "failed": report.counts.failed, "pending": report.counts.pending},
        "left_out": report.problems.counts,
        "wrong_verdicts": wrong,
        "server_crashes": len(crashes),
        "mean_scan_seconds": busy,
        "driver_seconds_per_job": overhead,
        "overhead": overhead / busy,
        "requests_per_repo": seen["requests"] / jobs,
        "bytes_per_repo": seen["bytes"] / jobs,
        "report_bytes_mean": statistics.mean(bodies),
        "ledger_bytes": path.stat().st_size,
        "driver_rss_first_last": [statistics.mean(r[1] for r in part) for part in (early[:quarter], early[-quarter:])],
        "worker_rss_first_last": [statistics.mean(r[2] for r in part) for part in (early[:quarter], early[-quarter:])],
        "second_run": {"scanned": again.summary.scanned, "unchanged": again.summary.unchanged, "requests": idle},
    }
    print(json.dumps(found, indent=1))
    return found


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
                one.repo_id, hub=plain, profile=load_profile(), clock=lambda: datetime.now(UTC), threads=1, salt=SALT
            )
            if measured_digest(dump(audited.report)) != job["digest"]:
                wrong.append(f"{one.repo_id} ({one.kind}): another report than by itself")
    return wrong


def run_engines(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """The same repositories by local workers and by Ray: are the reports the same?"""
    from pipelines.ledger_views import LedgerReader

    ids = _ids([one.repo_id for one in population.members if one.kind not in BROKEN][: options.sample])
    digests: dict[str, dict[str, str]] = {}
    rates = {}
    with serve(population) as hub:
        for engine in ("local", "ray"):
            _, watch, path = run_fleet_on(hub, f"engine-{engine}", models=ids, engine=engine)
            rates[engine] = watch.rate(len(watch.times) // 3)
            with LedgerReader(path) as reader:
                digests[engine] = {job["repo_id"]: job["digest"] for job in reader.jobs()}
    same = sum(digests["local"][name] == digests["ray"][name] for name in digests["local"])
    found = {"repos": len(digests["local"]), "identical": same, "jobs_per_second": rates}
    print(json.dumps(found, indent=1))
    return found


def run_cpu(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """One and two workers without any delay: real scans, and jobs that do nothing but compute."""
    import fleet_burn

    ids = _ids([one.repo_id for one in population.members if one.kind == "honest"][: options.sample])
    found: dict[str, Any] = {}
    with serve(population) as hub:
        for workers in (1, 2):
            _, watch, _ = run_fleet_on(hub, f"cpu-{workers}", models=ids, workers=workers, threads=1)
            found[f"scans_per_second_{workers}"] = watch.rate(len(watch.times) // 3)
    for workers in (1, 2):
        found[f"burns_per_second_{workers}"] = fleet_burn.rate(WORK, workers=workers, jobs=options.sample)
    found["scan_speedup"] = found["scans_per_second_2"] / found["scans_per_second_1"]
    found["burn_speedup"] = found["burns_per_second_2"] / found["burns_per_second_1"]
    found["load_average"] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))
    return found


def run_latency(population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """One scan at a time, and 32, against a server that takes 100 ms for each answer."""
    names = [one.repo_id for one in population.members if one.kind == "honest"]
    found: dict[str, Any] = {"latency_seconds": LATENCY_SECONDS}
    with serve(population, latency_seconds=LATENCY_SECONDS) as hub:
        for workers, threads, jobs in ((1, 1, 40), (1, 32, 400), (2, 16, 600)):
            _, watch, _ = run_fleet_on(
                hub, f"latency-{workers}x{threads}", models=_ids(names[:jobs]), workers=workers, threads=threads
            )
            found[f"scans_per_second_{workers}x{threads}"] = watch.rate(len(watch.times) // 3)
    one = found["scans_per_second_1x1"]
    found["speedup_32"] = max(found["scans_per_second_1x32"], found["scans_per_second_2x16"]) / one
    found["load_average"] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))
    return found


def run_shared(_population: Population, options: argparse.Namespace) -> dict[str, Any]:
    """Fifty fine-tunes of one base of 46 MB: how often are the base's bytes read?"""
    root = WORK / "shared"
    size = _one_family(root, options.members)
    found: dict[str, Any] = {"members": options.members, "base_bytes": size}
    from simulated_hub import Member

    members = [
        Member(repo_id=f"{AUTHOR}/tune{n:02d}", kind="honest", family="base/b00") for n in range(options.members)
    ]
    for cache in (True, False):
        with serve(Population(root=root, members=members)) as hub:
            began = time.perf_counter()
            run_fleet_on(hub, f"shared-{cache}", cache=cache)
            word = "with_cache" if cache else "without_cache"
            found[f"base_bytes_sent_{word}"] = hub.ask("log", path="/base/b00/resolve/")["bytes"]
            found[f"seconds_{word}"] = time.perf_counter() - began
    found["times_read"] = found["base_bytes_sent_with_cache"] / size
    print(json.dumps(found, indent=1))
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
        tensors = load_file(base / "model.safetensors")
        for value in tensors.values():
            value += (draw.standard_normal(value.shape) * 0.01 * value.std()).astype(np.float32)
        save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
        (tuned / "README.md").write_text("---\nbase_model: base/b00\n---\n")
    for number in range(members):
        folder = root / AUTHOR / f"tune{number:02d}"
        if not folder.exists():
            shutil.copytree(tuned, folder, copy_function=os.link)
    return sum(
        path.stat().st_size for path in base.iterdir() if path.name in {"model.safetensors", "config.json", "README.md"}
    )


def _ids(names: list[str]) -> Path:
    path = WORK / "some.txt"
    path.write_text("\n".join(names) + "\n")
    return path


def _set_environment() -> None:
    """No token, no telemetry: as in the tests, but no server of this process."""
    for name in TOKENS:
        os.environ.pop(name, None)
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")


def _environment() -> dict[str, Any]:
    return {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "machine": platform.machine()}


@contextmanager
def _gone() -> Iterator[None]:
    import psutil

    try:
        yield
    except psutil.Error:
        return


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
