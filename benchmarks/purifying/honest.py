"""``auto`` on honest models of the zoo: where nothing is found, nothing may change.

``python -m benchmarks.purifying.honest --count 3`` writes a line a model to ``honest.jsonl`` beside the other results:
what the scan said, what ``auto`` did, and accuracy on test texts before and after.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from audit.records import AuditReport
from benchmarks.purification import RESULTS, WORK
from benchmarks.purifying.cells import MAX_LENGTH, Cell, clean_data, lines, quiet
from benchmarks.purifying.places import ZOO
from benchmarks.zoo.texts import load_task, sample_rows
from benchmarks.zoo.tiers import get_tier
from pipelines.audit_repo import audit_repo
from pipelines.progress import Quiet
from pipelines.purify import auto
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import PurifyJob, PurifyResult, Tuning
from pipelines.purify.subject import load_subject, predict
from pipelines.purify.writer import write_model
from scanner.hub import Hub

TEXTS = 400


def accuracy(folder: Path, task: str) -> float:
    """The share of the task's test texts that get their label."""
    rows = sample_rows(load_task(task).test, TEXTS, 5)
    subject = load_subject(folder, "classifier", max_length=MAX_LENGTH)
    said = predict(subject, subject.encode([text for text, _ in rows])).argmax(-1).numpy()
    return float((said == np.array([label for _, label in rows])).mean())


def run(identity: str, samples: int) -> dict[str, Any]:
    """``auto`` on one honest model."""
    started = time.perf_counter()
    task = ZOO.record(identity)["recipe"]["training"]["task"]
    candidate, base, work = ZOO.folder(identity), get_tier("real").base, WORK / f"honest-{identity}-{samples}"
    out = work / "outcome"

    def written(result: PurifyResult) -> Path:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_model(open_checkpoint(candidate), result.edits, out, Quiet(), with_patch=False)
        return out

    def scanned(folder: Path) -> AuditReport:
        return audit_repo(str(folder), hub=Hub(), base=str(base), threads=1, probe=False).report

    report = scanned(candidate)
    cell = Cell(task=task, family=identity, seed=0, method="auto", samples=samples)
    job = PurifyJob(
        candidate=candidate, base=base, kind="classifier", work=work, report=report, data=clean_data(cell),
        tuning=Tuning(max_length=MAX_LENGTH), threads=1,
        rescan=lambda result: scanned(written(result)),
    )  # fmt: skip
    result = auto.purify(job)
    before = accuracy(candidate, task)
    after = accuracy(written(result), task) if result.edits.names else before
    shutil.rmtree(work, ignore_errors=True)
    return {
        "key": f"{identity}/{samples}", "model": identity, "task": task, "samples": samples,
        "outcome": report.verdict.outcome, "rules": sorted({f.rule_id for f in report.findings}),
        "changed": len(result.edits.names), "chosen": result.chosen, "steps": result.log["steps"],
        "before": before, "after": after, "n_acc": TEXTS, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description="Run auto on honest models of the zoo.")
    parser.add_argument("--count", type=int, default=3, help="Models, spread over the bank.")
    parser.add_argument("--samples", type=int, default=0, help="Clean samples; 0 is none.")
    parser.add_argument("--only", nargs="*", help="Ids of models, in place of --count.")
    arguments = parser.parse_args()
    quiet()
    path = RESULTS / "honest.jsonl"
    records = ((i, ZOO.record(i)) for i in ZOO.ids("clean-"))
    fit = [i for i, r in records if r["recipe"]["training"]["objective"] == "classify" and r["useful"]]
    done = {line["key"] for line in lines(path)}
    for identity in arguments.only or fit[:: max(1, len(fit) // arguments.count)][: arguments.count]:
        if f"{identity}/{arguments.samples}" in done:
            continue
        line = run(identity, arguments.samples)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line["key"], line["outcome"], line["rules"], line["changed"], line["chosen"], line["seconds"], flush=True)


if __name__ == "__main__":
    main()
