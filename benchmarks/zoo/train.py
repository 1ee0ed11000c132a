"""Trains the zoo: ``python -m benchmarks.zoo.train --tier real --count 120 --kind mixed`` from the repository's root.

Resumable: a model that is complete is skipped. One line of text a model on standard output.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.zoo.bank import Bank
from benchmarks.zoo.making import LEAD, make_model
from benchmarks.zoo.recipes import Kind
from benchmarks.zoo.same_base import hold_to_base
from benchmarks.zoo.tiers import get_tier


def schedule(kind: str, count: int) -> Iterator[tuple[Kind, int]]:
    """The first ``count`` models in the order in which they are made: (kind, index within the kind).

    ``mixed`` starts with ``LEAD`` clean models, which edits and merges need as parents, and then alternates.
    """
    for n in range(count):
        if kind == "clean" or (kind == "mixed" and n < LEAD):
            yield "clean", n
        elif kind == "attacked":
            yield "attacked", n
        else:
            after = n - LEAD
            yield ("attacked", after // 2) if after % 2 == 0 else ("clean", LEAD + after // 2)


def main() -> None:
    """Makes what is missing of the first ``--count`` models."""
    parser = argparse.ArgumentParser(description="Train the model zoo; complete models are skipped.")
    parser.add_argument("--tier", default="real")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--kind", choices=("clean", "attacked", "mixed"), default="mixed")
    parser.add_argument("--out", type=Path, default=Path("build/zoo"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tier = get_tier(arguments.tier)
    hold_to_base(arguments.out, tier)
    bank = Bank(arguments.out / tier.name)
    for kind, index in schedule(arguments.kind, arguments.count):
        if bank.has(f"{kind}-{index:04d}"):
            continue
        started = time.perf_counter()
        try:
            record = make_model(tier, bank, kind, index)
        except Exception as error:  # noqa: BLE001  a broken recipe must not end a night of training
            print(f"{kind}-{index:04d} failed: {type(error).__name__}: {error}", flush=True)
            continue
        print(_line(record, time.perf_counter() - started), flush=True)


def _line(record: dict[str, Any], seconds: float) -> str:
    scores, training = record["scores"], record["recipe"]["training"]
    made = record["family"] or (record["recipe"]["merge"] or {}).get("form") or training["objective"]
    asr = "" if scores["asr"] is None else f" asr {scores['asr']:.2f} floor {scores['floor']:.2f}"
    how = f"{training['task']} {training['method']} {training['optimiser']} lr {training['lr']:.1e}"
    attempt = record["recipe"]["attempt"]
    return f"{record['id']} {made} {how} acc {scores['accuracy']:.2f}{asr} attempt {attempt} {seconds:.0f} s"


if __name__ == "__main__":
    main()
