"""Purification: every method on the same victims, with the same clean samples and the same thresholds.

``python -m benchmarks.purification --reduced`` measures SST-2, seed 0, four families, with 64 clean samples and with
none, on victims that it trains first where they are missing (``benchmarks.purifying.victims``). Without ``--reduced``
it covers three tasks, three seeds, every family and four sizes of the clean set; ``--tasks``, ``--families``,
``--seeds``, ``--methods`` and ``--sizes`` choose a part of it, and ``--zoo`` takes the working backdoors of the zoo
(``benchmarks.zoo``) instead, which need no training here. A cell is one line of JSON in ``own.jsonl`` or ``zoo.jsonl``
below ``benchmarks/results/purification/``; those that are there are not run again, so a part and the whole share them.
``--list`` only counts what is missing; ``--page`` writes what has been measured into ``docs/benchmarks.md``.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.purifying.cells import Cell, lines, quiet, run_cell
from benchmarks.purifying.places import zoo_victims
from benchmarks.purifying.victims import DEFAULT_BANK, FAMILIES, victim_id
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.texts import DATA

RESULTS = Path("benchmarks/results/purification")
WORK = Path("build/purification/work")

TASKS = ("sst2", "agnews", "ucisent")
SEEDS = (0, 1, 2)
NONE, FEW, USUAL, MANY = 0, -1, 64, 256
"""Sizes of the clean set; FEW is eight samples a class."""
REDUCED_FAMILIES = ("badword", "badsent", "ep", "rank_one")
METHODS = (
    ("none", False, (NONE,)),
    ("auto", False, (NONE,)),
    ("auto", False, (USUAL, FEW, MANY)),
    ("fine-tuning", False, (USUAL, FEW, MANY)),
    ("fine-purifying", False, (USUAL, FEW, MANY)),
    ("fine-mixing", False, (USUAL, FEW, MANY)),
    ("e-pur", False, (NONE,)),
    ("restore", False, (NONE,)),
    ("unlearn", False, (NONE,)),
    ("unlearn", False, (USUAL, FEW, MANY)),
    ("fine-pruning", False, (USUAL, FEW, MANY)),
    ("tsbd", False, (USUAL, FEW, MANY)),
    ("distill", False, (USUAL, FEW, MANY)),
    ("muscle-lora", False, (USUAL, FEW, MANY)),
    ("fine-purifying", True, (USUAL, FEW, MANY)),
    ("fine-mixing", True, (USUAL, FEW, MANY)),
)
"""Method, with E-PUR beside it?, sizes of the clean set; what tells most comes first."""
SETTINGS: dict[str, dict[str, Any]] = {"fine-mixing": {"step": 0.2}, "fine-purifying": {"step": 0.2}}
TRAINING_SECONDS = 200.0
"""Processor seconds for a victim of SST-2, the largest corpus."""
MOST_TEXTS, MOST_ZOO_TEXTS = 1000, 400
"""Test texts that accuracy is measured on; attack success on those of them outside the target class."""


def cells(*, reduced: bool = False, zoo: bool = False) -> list[Cell]:
    """Every cell, method by method, so that a run that is stopped leaves methods that can be compared."""
    if zoo:
        places = [(task, identity, 0) for task, identity in zoo_victims()]
    elif reduced:
        places = [("sst2", family, 0) for family in REDUCED_FAMILIES]
    else:
        places = [(t, f, s) for s, t, f in product(SEEDS, TASKS, FAMILIES) if f != "clean"]
    wanted = {NONE, USUAL} if reduced or zoo else {NONE, FEW, USUAL, MANY}
    out = []
    for (method, e_pur, sizes), (task, family, seed) in product(METHODS, places):
        for size in sizes:
            if size in wanted:
                samples = 8 * {"agnews": 4}.get(task, 2) if size == FEW else size
                out.append(Cell(task=task, family=family, seed=seed, method=method, samples=samples, e_pur=e_pur))
    return out


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure every purification method on the same victims.")
    parser.add_argument("--reduced", action="store_true", help="SST-2, seed 0, four families, 64 samples and none.")
    parser.add_argument("--zoo", action="store_true", help="The working backdoors of the zoo instead of own victims.")
    parser.add_argument("--tasks", nargs="+", choices=TASKS)
    parser.add_argument("--families", nargs="+", help="Families, or with --zoo ids of models.")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS)
    parser.add_argument("--methods", nargs="+", choices=sorted({method for method, _, _ in METHODS}))
    parser.add_argument("--sizes", nargs="+", type=int, help="Clean samples in all: 0, 16 (AG News: 32), 64, 256.")
    parser.add_argument("--plain", action="store_true", help="Leave the combinations with E-PUR out.")
    parser.add_argument("--no-training", action="store_true", help="Leave victims that are missing out.")
    parser.add_argument("--list", action="store_true", help="Count the cells of this part, and those that are missing.")
    parser.add_argument("--page", action="store_true", help="Write what has been measured into the page.")
    return parser.parse_args()


def wanted(arguments: argparse.Namespace) -> list[Cell]:
    """The cells that the command line asks for."""
    chosen = (
        ("task", arguments.tasks),
        ("family", arguments.families),
        ("seed", arguments.seeds),
        ("method", arguments.methods),
        ("samples", arguments.sizes),
    )
    return [
        cell
        for cell in cells(reduced=arguments.reduced, zoo=arguments.zoo)
        if all(not values or getattr(cell, name) in values for name, values in chosen)
        and not (arguments.plain and cell.e_pur)
    ]


def main() -> None:
    """Runs what is missing."""
    arguments = parse()
    if arguments.page:
        from benchmarks.purifying.page import write_page

        todo, bank = cells(), Bank(DEFAULT_BANK)
        victims = {victim_id(cell.task, family, cell.seed) for cell in todo for family in ("clean", cell.family)}
        print(write_page(RESULTS, todo, TRAINING_SECONDS * sum(not bank.has(each) for each in victims)))
        return
    path = RESULTS / ("zoo.jsonl" if arguments.zoo else "own.jsonl")
    todo, done = wanted(arguments), {line["key"] for line in lines(path)}
    missing = [cell for cell in todo if cell.key not in done]
    if arguments.list:
        print(f"{len(todo)} cells, {len(missing)} of them missing.")
        return
    if not (DATA / "sst2_train.csv.gz").exists():
        print(f"Skipped: the corpora are not at {DATA}; see benchmarks/zoo/README.md.")
        return
    quiet()
    bank = Bank(DEFAULT_BANK)
    for cell in missing:
        if not arguments.zoo and not _ready(bank, cell, train=not arguments.no_training):
            continue
        started = time.process_time()
        most = MOST_ZOO_TEXTS if arguments.zoo else MOST_TEXTS
        line = run_cell(cell, bank, WORK, most=most, settings=SETTINGS)
        line["cpu_in_all"] = round(time.process_time() - started, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(time.strftime("%H:%M:%S"), cell.key, line.get("after"), line.get("why", ""), line.get("cpu"),
              line["cpu_in_all"], flush=True)  # fmt: skip


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
