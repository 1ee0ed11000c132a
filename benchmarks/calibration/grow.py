"""Grows a bank without keeping it: ``python -m benchmarks.calibration.grow --tier toy-encoder --count 800``.

Each model is made, observed at once and written down as one line of ``benchmarks/results/bank/<tier>.jsonl``. Its
weights go, but for honest models that later edits and merges start from. Resumable: what has a line is not made again,
unless the weights of such a parent are missing. A toy base is trained where it is missing, and no two are alike: with
one of your own, give ``--results`` a folder of your own. Run from the repository's root.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.calibration.observe import observe
from benchmarks.calibration.records import RESULTS, Ledger, ledger_of
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.making import LEAD, make_model
from benchmarks.zoo.recipes import LATER_FROM, Kind
from benchmarks.zoo.same_base import hold_to_base
from benchmarks.zoo.tiers import Tier, get_tier

CYCLE = "CACACCACCACAcCaC"
"""After the first ``LEAD`` honest models: ten honest (C) to six attacked (A), the small letters of the later recipes.

An attacked model i finds every honest model below LEAD + i, as it does in ``benchmarks.zoo.train``: recipes stay
the same; those of later recipes find what has been made by then.
"""


def order(count: int) -> Iterator[tuple[Kind, int]]:
    """The first ``count`` models in the order in which they are made: (kind, index within the kind)."""
    made = dict.fromkeys("CAca", 0)
    for n in range(count):
        letter = "C" if n < LEAD else CYCLE[(n - LEAD) % len(CYCLE)]
        kind: Kind = "clean" if letter in "Cc" else "attacked"
        yield kind, made[letter] + (LATER_FROM if letter.islower() else 0)
        made[letter] += 1


def grow(tier: Tier, bank: Bank, ledger: Ledger, count: int, *, keep: bool = False) -> Iterator[str]:
    """Make and observe what is missing of the first ``count`` models; yields one line of text a model.

    Args:
        tier: Base and tasks.
        bank: Where weights lie while they are needed.
        ledger: Where observations go.
        count: Number of models, honest and attacked.
        keep: Keep all weights.
    """
    observed = ledger.read()
    if all(f"{kind}-{index:04d}" in observed for kind, index in order(count)):
        return
    for kind, index in order(count):
        model_id = f"{kind}-{index:04d}"
        if model_id in observed and (bank.has(model_id) or not observed[model_id]["parent"]):
            continue
        started = time.perf_counter()
        try:
            record = bank.record(model_id) if bank.has(model_id) else make_model(tier, bank, kind, index)
            made = time.perf_counter() - started
            observation = observe(tier.base, bank.folder(model_id), record)
            ledger.add(observation)
        except Exception as error:  # noqa: BLE001  a broken recipe must not end hours of training
            yield f"{model_id} failed: {type(error).__name__}: {error}"
            continue
        if not (keep or observation["parent"]):
            shutil.rmtree(bank.folder(model_id))
        yield _line(record, made, time.perf_counter() - started - made)


def _line(record: dict[str, Any], making: float, observing: float) -> str:
    scores, training = record["scores"], record["recipe"]["training"]
    asr = "" if scores["asr"] is None else f" asr {scores['asr']:.2f} floor {scores['floor']:.2f}"
    how = f"{training['task']} {training['method']} {training['optimiser']}"
    made = record["family"] or training["objective"]
    return f"{record['id']} {made} {how} acc {scores['accuracy']:.2f}{asr} {making:.1f} + {observing:.1f} s"


def main() -> None:
    """Grows the bank of one tier."""
    parser = argparse.ArgumentParser(description="Make models, observe them, keep the observations.")
    parser.add_argument("--tier", default="toy-encoder")
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--bank", type=Path, default=Path("build/zoo"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="keep all weights")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further model after so long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.monotonic()
    tier, ledger = get_tier(arguments.tier), ledger_of(arguments.tier, arguments.results)
    for folder in (arguments.bank, arguments.results):
        hold_to_base(folder, tier)
    for line in grow(tier, Bank(arguments.bank / tier.name), ledger, arguments.count, keep=arguments.keep):
        print(line, flush=True)
        if time.monotonic() - started > 60 * arguments.minutes:
            break
    ledger.tidy()


if __name__ == "__main__":
    main()
