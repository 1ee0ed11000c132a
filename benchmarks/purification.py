"""Purification: every method on the same victims, with the same clean samples and the same thresholds.

``python -m benchmarks.purification --reduced`` measures SST-2, seed 0, four families, with 64 clean samples and with
none, on victims that it trains first where they are missing (``benchmarks.purifying.victims``); ``--zoo`` does the same
on the working backdoors of the zoo (``benchmarks.zoo``), which need no training here. Without ``--reduced`` it
covers three tasks, three seeds, every family and four sizes of the clean set: on one core about 40 s a cell and 3
minutes a victim, some 50 hours in all. A cell is one line of JSON below ``benchmarks/results/purification/``; those
that are there are not run again. ``--page`` prints the table of what is there.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.purifying.cells import Cell, lines, quiet, run_cell
from benchmarks.purifying.page import page
from benchmarks.purifying.places import zoo_victims
from benchmarks.purifying.victims import DEFAULT_BANK, FAMILIES, victim_id
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.texts import DATA

RESULTS = Path("benchmarks/results/purification")
WORK = Path("build/purification/work")

WITHOUT_DATA = (("auto", False), ("unlearn", False), ("e-pur", False), ("restore", False))
WITH_DATA = (
    ("auto", False), ("unlearn", False), ("fine-purifying", False), ("fine-mixing", False), ("fine-tuning", False),
    ("fine-pruning", False), ("tsbd", False), ("distill", False), ("muscle-lora", False),
    ("fine-purifying", True), ("fine-mixing", True),
)  # fmt: skip
REDUCED_FAMILIES = ("badword", "badsent", "ep", "rank_one")
REDUCED_SETTINGS: dict[str, dict[str, Any]] = {"fine-mixing": {"step": 0.2}, "fine-purifying": {"step": 0.2}}


def cells(*, reduced: bool, zoo: bool = False) -> list[Cell]:
    """Every cell: those without data method by method, then victim by victim, so that methods stay comparable."""
    if zoo:
        places = [(task, identity, 0) for task, identity in zoo_victims()]
        sizes: tuple[int, ...] = (64,)
    elif reduced:
        places = [("sst2", family, 0) for family in REDUCED_FAMILIES]
        sizes = (64,)
    else:
        places = list(product(("sst2", "agnews", "ucisent"), [f for f in FAMILIES if f != "clean"], (0, 1, 2)))
        sizes = (64, 256)
    out = []
    for method, e_pur in (("none", False), *WITHOUT_DATA):
        out += [Cell(task=t, family=f, seed=s, method=method, samples=0, e_pur=e_pur) for t, f, s in places]
    for (task, family, seed), (method, e_pur) in product(places, WITH_DATA):
        few = () if reduced or zoo else (8 * {"agnews": 4}.get(task, 2),)
        for samples in (*few, *sizes):
            out.append(Cell(task=task, family=family, seed=seed, method=method, samples=samples, e_pur=e_pur))
    return out


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description="Measure every purification method on the same victims.")
    parser.add_argument("--reduced", action="store_true", help="SST-2, seed 0, 64 samples and none.")
    parser.add_argument("--zoo", action="store_true", help="The working backdoors of the zoo instead of own victims.")
    parser.add_argument("--families", nargs="+", help="Families, or with --zoo ids of models.")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--plain", action="store_true", help="Leave the combinations with E-PUR out.")
    parser.add_argument("--page", action="store_true", help="Print the table of what has been measured.")
    parser.add_argument("--no-training", action="store_true", help="Leave victims that are missing out.")
    arguments = parser.parse_args()
    name = "zoo" if arguments.zoo else "reduced" if arguments.reduced else "full"
    path = RESULTS / f"{name}.jsonl"
    if arguments.page:
        print(page(list(lines(path))))
        return
    quiet()
    bank = Bank(DEFAULT_BANK)
    if not (DATA / "sst2_train.csv.gz").exists():
        print(f"Skipped: the corpora are not at {DATA}; see benchmarks/zoo/README.md.")
        return
    done = {line["key"] for line in lines(path)}
    small = arguments.reduced or arguments.zoo
    for cell in cells(reduced=arguments.reduced, zoo=arguments.zoo):
        if cell.key in done or (arguments.families and cell.family not in arguments.families):
            continue
        if arguments.methods and cell.method not in arguments.methods:
            continue
        if arguments.plain and cell.e_pur:
            continue
        if not arguments.zoo and not _ready(bank, cell, train=not arguments.no_training):
            continue
        line = run_cell(
            cell, bank, WORK, most=400 if small else 10_000, settings=REDUCED_SETTINGS if small else {},
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(time.strftime("%H:%M:%S"), cell.key, line.get("after"), line.get("why", ""), line["seconds"], flush=True)


def _ready(bank: Bank, cell: Cell, *, train: bool) -> bool:
    from benchmarks.purifying.victims import make_victim
    from benchmarks.zoo.tiers import get_tier

    for family in ("clean", cell.family):
        if bank.has(victim_id(cell.task, family, cell.seed)):
            continue
        if not train:
            return False
        make_victim(get_tier("real"), bank, cell.task, family, cell.seed)
    return True


if __name__ == "__main__":
    main()
