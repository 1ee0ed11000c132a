"""What all models of the Hub would take: a simulation from measured costs and published limits.

Run as ``python benchmarks/fleet_scale.py`` after ``fleet.py`` (cost of a scan) and ``diff.py`` (cost of a byte). Draws
the sizes of two million repositories, lets them through window by window (300 s, as the Hub counts), and in each window
stops at whatever is used up first: API requests, file requests, bytes of the network, or seconds of the cores.
Prints a table and writes
``benchmarks/results/fleet_scale.json``. What is assumed, not measured, stands in ``ASSUMED``; quotas and prices are
the Hub's published ones.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanner.weights.ranges import CHUNK_BYTES

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "benchmarks" / "results" / "fleet.json"
DIFF = ROOT / "benchmarks" / "results" / "diff.json"
RESULTS = ROOT / "benchmarks" / "results" / "fleet_scale.json"
WINDOW_SECONDS = 300

QUOTAS = {
    "free": (1_000, 5_000),
    "PRO": (2_500, 12_000),
    "Enterprise": (6_000, 50_000),
    "Enterprise Plus": (10_000, 100_000),
}
"""API and file requests per window (huggingface.co/docs/hub/rate-limits, the table of September 2025)."""
ASSUMED = {
    "models": 2_000_000,
    "mean_bytes": 5e9,
    "median_bytes": 0.5e9,
    "share_with_base": 0.6,
    "families": 40_000,
    "changed_a_day": 10_000,
    "network_bytes_per_second": 1.25e9,
    "cores": 8,
    "usd_per_machine_hour": 0.03,
    "quota_share": 0.9,
}
"""A machine is a CPU Upgrade of HF Jobs: 8 vCPU, 0.03 USD an hour (huggingface.co/docs/hub/jobs-pricing); that it has
10 Gbit/s is assumed. Sizes are log-normal. Repositories without a declared base cost requests, no weights."""
WIDTHS = (17, 10, 9, 12, 10, 9, 9)
RANGE_BYTES = CHUNK_BYTES
"""Of one request for weights. They go to the content network with the address that
one file request has given; the published quotas do not count them, so they are told and bound nothing."""
BUDGET_BYTES = 200e6
"""Of a triaged scan: headers, and at most so much of the candidate and as much of the base."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one scan, as measured: requests, and core seconds per scan and per byte compared."""

    api: float
    files: float
    core_seconds: float
    core_seconds_per_byte: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to scan: how many repositories, how much of each at most, on how many machines, with which quota."""

    name: str
    repos: int
    limit_bytes: float
    machines: int
    plan: str


def main() -> None:
    costs = measured_costs()
    everything, night = int(ASSUMED["models"]), int(ASSUMED["changed_a_day"])
    cases = [
        Case(name="all, full", repos=everything, limit_bytes=np.inf, machines=machines, plan=plan)
        for machines, plan in ((1, "free"), (1, "PRO"), (10, "Enterprise"), (40, "Enterprise Plus"))
    ]
    cases += [
        Case(name="all, triaged", repos=everything, limit_bytes=BUDGET_BYTES, machines=machines, plan=plan)
        for machines, plan in ((1, "free"), (1, "PRO"), (4, "Enterprise"), (8, "Enterprise Plus"))
    ]
    cases += [
        Case(name="one night, full", repos=night, limit_bytes=np.inf, machines=machines, plan=plan)
        for machines, plan in ((1, "free"), (2, "PRO"))
    ]
    cases.append(Case(name="one night, triaged", repos=night, limit_bytes=BUDGET_BYTES, machines=1, plan="free"))
    rows = [simulate(case, costs) for case in cases]
    titles = ("plan", "machines", "TB", "M requests", "M ranges", "hours", "USD")
    print(f"{'':20}" + "".join(f"{title:>{width}}" for title, width in zip(titles, WIDTHS, strict=True)) + "  bound by")
    for row in rows:
        millions = (f"{row['requests'] / 1e6:.2f}", f"{row['ranges'] / 1e6:.1f}")
        told = (row["plan"], row["machines"], f"{row['terabytes']:,.0f}", *millions, f"{row['hours']:,.1f}")
        cells = "".join(f"{cell:>{width}}" for cell, width in zip((*told, f"{row['usd']:,.0f}"), WIDTHS, strict=True))
        print(f"{row['name']:20}{cells}  {row['bottleneck']}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    found = {"costs": vars(costs), "assumed": ASSUMED, "quotas": QUOTAS, "cases": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def measured_costs() -> Costs:
    """Read what the benchmark has measured."""
    found = json.loads(MEASURED.read_text())
    whole = found["whole"]
    remote = json.loads(DIFF.read_text())["remote"]
    # Of the requests of one listed scan two are the API's: the files' listing and the security report.
    return Costs(
        api=2.0,
        files=whole["requests_per_repo_listed"] - 2.0,
        core_seconds=whole["worker_cpu_per_job"],
        # A pair of 1.57 GB a side read over HTTP and measured with everything on.
        core_seconds_per_byte=remote["cpu_seconds"] / remote["bytes"],
    )


def simulate(case: Case, costs: Costs, *, seed: int = 0) -> dict[str, Any]:
    """Let the repositories through, window by window."""
    draw = np.random.default_rng(seed)
    spread = np.sqrt(2 * np.log(ASSUMED["mean_bytes"] / ASSUMED["median_bytes"]))
    sizes = draw.lognormal(np.log(ASSUMED["median_bytes"]), spread, case.repos)
    sizes[draw.random(case.repos) > ASSUMED["share_with_base"]] = 0.0
    bases = int(min(ASSUMED["families"], case.repos))
    read = np.minimum(sizes, case.limit_bytes)
    network, compared = read.copy(), 2 * read
    # A base is read once, with the first member of its family; the members hold it against their own bytes.
    network[draw.choice(case.repos, bases, replace=False)] += np.minimum(read.mean(), case.limit_bytes)
    per_job = {
        "API requests": np.full(case.repos, costs.api + costs.api * bases / case.repos),
        "file requests": np.full(case.repos, costs.files + costs.files * bases / case.repos),
        "network": network,
        "cores": costs.core_seconds + costs.core_seconds_per_byte * compared,
    }
    api, files = QUOTAS[case.plan]
    share = ASSUMED["quota_share"]
    per_window = {
        "API requests": api * share,
        "file requests": files * share,
        "network": case.machines * ASSUMED["network_bytes_per_second"] * WINDOW_SECONDS,
        "cores": case.machines * ASSUMED["cores"] * WINDOW_SECONDS,
    }
    done = {name: np.concatenate([[0.0], np.cumsum(values)]) for name, values in per_job.items()}
    at, windows, bound = 0, 0.0, Counter[str]()
    while at < case.repos:
        # How far each means reaches from here; a job larger than a window goes on in the next.
        reach = {
            name: int(np.searchsorted(values, values[at] + per_window[name], side="right")) - 1
            for name, values in done.items()
        }
        tightest = min(reach, key=lambda name: reach[name])
        to = min(max(reach[tightest], at + 1), case.repos)
        used = max((done[name][to] - done[name][at]) / per_window[name] for name in done)
        windows += max(1.0, used) if to < case.repos else used
        bound[tightest] += 1
        at = to
    hours = windows * WINDOW_SECONDS / 3600
    return {
        "name": case.name,
        "plan": case.plan,
        "machines": case.machines,
        "terabytes": float(network.sum() / 1e12),
        "requests": float(done["API requests"][-1] + done["file requests"][-1]),
        "ranges": float(np.ceil(network / RANGE_BYTES).sum()),
        "hours": hours,
        "usd": hours * case.machines * ASSUMED["usd_per_machine_hour"],
        "bottleneck": bound.most_common(1)[0][0],
        "windows_bound_by": dict(bound),
    }


if __name__ == "__main__":
    main()
