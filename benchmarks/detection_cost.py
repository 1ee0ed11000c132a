"""What judging costs on top of measuring: ``python -m benchmarks.detection_cost --write`` from the repository's root.

One pair at a time, in a process of its own: the diff with everything that a scan measures, then all detectors that need
it, taking turns in one thread. A real encoder (``benchmarks.zoo`` makes its fine-tunes), and made-up decoders of two
sizes (``benchmarks/diff_pairs.py``). ``--write`` puts the table into docs/benchmarks.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit.rulebook import DETECTORS
from audit.run import run_detectors
from audit.thresholds import load_profile
from benchmarks.calibration.observe import evidence_of
from benchmarks.diff_pairs import make_pair
from benchmarks.pages import splice
from benchmarks.zoo.measure import measure_folders
from benchmarks.zoo.tiers import get_tier

RESULTS = Path("benchmarks/results/detection_cost.json")
PAGE = Path("docs/benchmarks.md")
ROUNDS = 5
LAYERS = (4, 16)
"""Layers of the made-up decoders: 0.5 and 1.6 GB a side in bfloat16."""
ENCODER = Path("build/zoo/real/clean-0000")
BEGIN, END = "<!-- detection-cost:begin -->", "<!-- detection-cost:end -->"


def cost(base: Path, candidate: Path, rounds: int) -> dict[str, float]:
    """Least CPU seconds of measuring and of judging one pair, and how far judging raised the peak of memory in bytes.

    The first judging comes after the first measuring, so that what it raises the peak by is its own.
    """
    measured = measure_folders(base, candidate)
    before = _peak()
    evidence = evidence_of(base, candidate, measured, load_profile())
    run_detectors(evidence, [d for d in DETECTORS if d.needs_drift])
    raised = _peak() - before
    diff, judging = [], []
    for _ in range(rounds):
        diff.append(_seconds(lambda: measure_folders(base, candidate)))
        judging.append(_seconds(lambda: run_detectors(evidence, [d for d in DETECTORS if d.needs_drift])))
    return {
        "bytes": sum(f.stat().st_size for f in (base / "model.safetensors", candidate / "model.safetensors")),
        "tensors": len(measured.tensors),
        "diff": min(diff),
        "judging": min(judging),
        "raised": raised,
        "peak": before,
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _peak() -> int:
    """The process's peak of resident memory in bytes; that of ``getrusage`` holds the parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Base and candidate of each pair that can be had here, by what it is."""
    found = {}
    if (ENCODER / "model.safetensors").exists():
        found["MiniLM, float32, with its tokenizer"] = (get_tier("real").base, ENCODER)
    for layers in LAYERS:
        folder = make_pair(root, "BF16", layers) / "bench"
        found[f"made-up decoder of {layers} layers, bfloat16"] = (folder / "base", folder / "candidate")
    return found


def section(results: dict[str, dict[str, float]]) -> str:
    """The section as Markdown, between its markers."""
    rows = [
        f"| {name} | {one['bytes'] / 1e9:.2f} | {one['tensors']:.0f} | {one['diff']:.2f} | {one['judging']:.2f} | "
        f"{one['judging'] / one['diff']:.2f} | {one['raised'] / 1e6:.0f} of {one['peak'] / 1e6:.0f} |"
        for name, one in results.items()
    ]
    return f"""{BEGIN}
### What judging costs

Made by `python -m benchmarks.detection_cost --write`: CPU seconds in one thread, the least of {ROUNDS} rounds in which
the two take turns; every detector that needs the diff, the probe not among them (its cost stands in its own section).
Aim: at most the diff's own time, and flat memory. *Raised*: how much higher the first judging took the process's peak
of memory than the first diff had.

| pair | GB, both sides | tensors | diff | judging | judging / diff | raised, MB |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
{END}
"""


def main() -> None:
    """Measures each pair in a process of its own, and writes when asked to."""
    parser = argparse.ArgumentParser(description="Measure what judging costs on top of the diff.")
    parser.add_argument("--pairs", type=Path, default=Path("build/diff"), help="where made-up pairs lie")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("BASE", "CANDIDATE"), help="measure one pair, print JSON")
    parser.add_argument("--write", action="store_true", help="keep the results and write docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.one:
        base, candidate = arguments.one
        print(json.dumps(cost(base, candidate, ROUNDS)))
        return
    results: dict[str, Any] = {}
    for name, folders in pairs(arguments.pairs).items():
        command = [sys.executable, "-m", "benchmarks.detection_cost", "--one", *map(str, folders)]
        results[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(name, results[name], flush=True)
    if arguments.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(splice(PAGE.read_text(encoding="utf-8"), section(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
