"""What a scan with data shows of honest and of attacked models: ``python -m benchmarks.data_mode``.

Every classifier of the zoo is scanned with clean test texts of its own task, and what was measured is kept, one JSON
line a model, in ``benchmarks/results/data_mode.jsonl``: a run goes on where the last one stopped. ``--write`` puts the
tables into docs/benchmarks.md (``benchmarks.data_mode_page``). From the repository's root; one thread. The corpora of
``../shared/data`` are needed for most models; a model whose task is not at hand is left out, with a line that says so.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.zoo.bank import Bank
from benchmarks.zoo.texts import load_task, sample_rows
from benchmarks.zoo.tiers import get_tier

RESULTS: Final = Path("benchmarks/results/data_mode.jsonl")
EXAMPLES: Final = 64
SEED: Final = 11
_ROWS: Final = 3


def observe(folder: Path, record: dict[str, Any], base: Path) -> dict[str, Any]:
    """Scan one model with clean texts of its task, and return what was measured, compactly."""
    from audit.curvature_record import RATE
    from audit.curved_rows import discoveries
    from audit.thresholds import load_profile
    from scanner.curvature.examples import Given
    from scanner.curvature.measuring import Origin, measure_curvature
    from scanner.facts import collect
    from scanner.hub import Hub
    from scanner.records import RepoRef
    from scanner.tokens import read_tokens
    from scanner.weights.opening import open_source

    training = record["recipe"]["training"]
    rows = sample_rows(load_task(training["task"]).test, EXAMPLES, SEED)
    given = Given(texts=[text for text, _ in rows], labels=[label for _, label in rows])
    started = time.process_time()
    theirs = collect(RepoRef(path=str(base)), Hub())
    with open_source(theirs, None) as source:
        facts = measure_curvature(
            folder, source, given, Origin(source=training["task"], digest=""), base_config=theirs.config, threads=1
        )
    tokens = read_tokens(collect(RepoRef(path=str(folder)), Hub()), Hub())
    found = discoveries(facts.tensors, tokens, rate=load_profile().value(RATE))
    tests = {test.tensor.spec.name: test for test in found.tests}
    tensors = []
    for tensor in facts.tensors:
        test = tests.get(tensor.spec.name)
        tensors.append(
            {
                "name": tensor.spec.name,
                "role": tensor.spec.role,
                "layer": tensor.spec.layer,
                "counts": [tensor.dimensions, tensor.moved, tensor.seen, tensor.judged],
                "mean_square": tensor.mean_square,
                "mean_curvature": tensor.mean_curvature,
                "exponent": tensor.exponent,
                "fits": [[fit.scale, fit.straightness, fit.inflation] for fit in tensor.fits],
                "p": None if test is None else test.p_value,
                "rows": [] if test is None else [[r.row, r.ratio, r.p_value] for r in test.rows[:_ROWS]],
            }
        )
    return {
        "id": record["id"],
        "family": record["family"],
        "working": record["working"],
        "task": training["task"],
        "method": training["method"],
        "optimiser": training["optimiser"],
        "truth": {key: record["truth"].get(key) for key in ("tensors", "rows", "trigger_ids")},
        "cpu_seconds": round(time.process_time() - started, 2),
        "examples": facts.data.examples,
        "loss": facts.data.loss,
        "accuracy": facts.data.accuracy,
        "plots": [
            [plot.fit.indicator, plot.dimensions, plot.fit.straightness, plot.fit.inflation] for plot in facts.plots
        ],
        "tested": len(found.tests),
        "by_bh": sum(found.by_bh),
        "by_e_bh": sum(found.by_e_bh),
        "tensors": tensors,
    }


def kept(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The observations so far, by id."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda one: str(one["id"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Observe what has not been observed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, default=Path("build/zoo"))
    parser.add_argument("--tier", default="real")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", help="ids; all models that are there when absent")
    parser.add_argument("--write", action="store_true", help="only write the tables into docs/benchmarks.md")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        from benchmarks.data_mode_page import write_page

        write_page(kept(chosen.out))
        return
    tier, bank = get_tier(chosen.tier), Bank(chosen.bank / chosen.tier)
    done = {one["id"] for one in kept(chosen.out)}
    for model_id in chosen.only or bank.ids():
        record = bank.record(model_id)
        training = record["recipe"]["training"]
        if model_id in done or training["objective"] != "classify" or not record["useful"]:
            continue
        if training["task"] not in tier.tasks:
            print(model_id, f"left out: the texts of {training['task']} are not at hand", flush=True)
            continue
        found = observe(bank.folder(model_id), record, tier.base)
        with chosen.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(_rounded(found), separators=(",", ":")) + "\n")
        print(model_id, found["family"], found["working"], f"{found['cpu_seconds']:.0f} s", flush=True)


def _rounded(value: Any) -> Any:
    """Four digits are enough, and a tenth of the bytes."""
    match value:
        case bool() | None | str() | int():
            return value
        case float() | np.floating():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case _:
            return [_rounded(item) for item in value]


if __name__ == "__main__":
    main()
