"""Speed and memory of the diff, local and remote: ``python benchmarks/diff.py``.

Makes its pairs of checkpoints under ``build/bench`` (22 GB; later runs reuse them), runs every case in a process of
its own, prints a table, writes ``benchmarks/results/diff.json`` and, from it, the section in ``docs/benchmarks.md``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diff_page import section

from benchmarks.pages import splice

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT / "build" / "bench"
RESULTS = ROOT / "benchmarks" / "results" / "diff.json"
PAGE = ROOT / "docs" / "benchmarks.md"
SPEED = {"BF16": 16, "F16": 16, "F32": 7}
"""Layers of the pairs whose speed is measured: 1.57, 1.57 and 1.53 GB a side."""
MEMORY = {"0.2": 1, "1.6": 16, "6.0": 65}
"""Layers of the bfloat16 pairs whose memory is measured, by gigabytes a side."""
BANDWIDTH = 200e6
LATENCY_SECONDS = 0.03
PARTS = ("speed", "memory", "remote")


def main() -> None:
    options = _parser().parse_args()
    if options.child:
        _be_child(json.loads(options.child))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in options.only or PARTS:
        results[part] = {"speed": run_speed, "memory": run_memory, "remote": run_remote}[part]()
        if part == "speed":
            results.setdefault("lowest_by_run", []).append(lowest(results[part]))
    results["environment"] = _environment()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if set(PARTS) <= set(results):
        PAGE.write_text(splice(PAGE.read_text() if PAGE.exists() else "", section(results)))


def lowest(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The lowest ratios of a run; all runs are kept, since the machine is not always as quiet."""
    return {name: round(min(row["against"][name] for row in rows), 2) for name in ("read", "torch")}


def run_speed() -> list[dict[str, Any]]:
    rows = []
    print(f"{'dtype':6}{'cores':>6}{'read':>8}{'moments':>9}{'residual':>10}{'spectrum':>10}   moments against", end="")
    print(f"\n{'':6}{'':>6}{'GB/s':>8}{'GB/s':>9}{'GB/s':>10}{'GB/s':>10}{'read':>8}{'torch':>8}{'blocks':>8}")
    for dtype, layers in SPEED.items():
        folder = _pair(dtype, layers)
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            found = _run_child({"run": "speed", "folder": str(folder), "cores": cores})
            rate = {name: found["bytes"] / seconds / 1e9 for name, seconds in found.items() if name != "bytes"}
            row = {"dtype": dtype, "cores": cores, "bytes": found["bytes"], "gb_per_second": rate}
            row["against"] = {name: rate["moments"] / rate[name] for name in ("read", "torch", "torch_blocks")}
            rows.append(row)
            print(
                f"{dtype:6}{cores:6}{rate['read']:8.1f}{rate['moments']:9.1f}{rate['residual']:10.1f}"
                f"{rate['spectrum']:10.2f}" + "".join(f"{ratio:8.2f}" for ratio in row["against"].values()),
                flush=True,
            )
    return rows


def run_memory() -> list[dict[str, Any]]:
    rows = []
    print(f"\n{'GB a side':>10}{'before MB':>11}{'peak MB':>9}{'seconds':>9}")
    for label, layers in MEMORY.items():
        found = _run_child({"run": "memory", "folder": str(_pair("BF16", layers))})
        rows.append({"gb_a_side": float(label), **found})
        print(f"{label:>10}{found['before'] / 1e6:11.0f}{found['peak'] / 1e6:9.0f}{found['seconds']:9.1f}", flush=True)
    return rows


def run_remote() -> dict[str, Any]:
    folder = _pair("BF16", MEMORY["1.6"])
    command = [sys.executable, "-m", "localhub", "--folder", str(folder)]
    command += ["--bandwidth", str(BANDWIDTH), "--latency", str(LATENCY_SECONDS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            endpoint = server.stdout.readline().split()[1]
            found = _run_child({"run": "remote", "folder": str(folder), "endpoint": endpoint})
        finally:
            server.terminate()
    ideal = found["bytes"] / BANDWIDTH
    row = {**found, "bandwidth": BANDWIDTH, "latency_seconds": LATENCY_SECONDS, "ratio": found["seconds"] / ideal}
    print(
        f"\nremote at {BANDWIDTH / 1e6:.0f} MB/s and {LATENCY_SECONDS * 1e3:.0f} ms: {row['seconds']:.1f} s for "
        f"{found['bytes'] / 1e9:.2f} GB, {row['ratio']:.3f} of bytes / bandwidth; {found['requests']} requests, "
        f"{found['written']} bytes written to disk, peak {found['peak'] / 1e6:.0f} MB"
    )
    return row


def _pair(dtype: str, layers: int) -> Path:
    from diff_pairs import make_pair  # late: a child pins itself to its cores before numpy counts them

    return make_pair(PAIRS, dtype, layers)


def _run_child(case: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(case)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _be_child(case: dict[str, Any]) -> None:
    cores = case.get("cores")
    if cores:  # before numpy starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    import diff_runs

    folder = Path(case["folder"])
    if case["run"] == "speed":
        print(json.dumps(diff_runs.speed(folder, cores)))
    elif case["run"] == "memory":
        print(json.dumps(diff_runs.memory(folder)))
    else:
        print(json.dumps(diff_runs.remote(folder, case["endpoint"])))


def _environment() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "torch", "safetensors", "huggingface_hub")},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed and memory of the diff.")
    parser.add_argument("--only", action="append", choices=PARTS, help="what to run; everything when left out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
