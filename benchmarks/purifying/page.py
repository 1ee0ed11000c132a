"""The tables of the purification benchmark in ``docs/benchmarks.md``, from the lines that were kept."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.pages import splice
from benchmarks.purifying.cells import Cell, lines
from pipelines.purify.intervals import rate

PAGE: Final = Path("docs/benchmarks.md")
MATCHED: Final = 0.01
"""The loss of accuracy up to which attack success is compared."""
_Z: Final = 1.959963984540054
Line = dict[str, Any]
Group = tuple[str, int]


def write_page(results: Path, todo: Sequence[Cell], training: float) -> str:
    """Put the tables into the page, each between its own marks, and return them; ``hours`` tells the arguments."""
    own, zoo = (list(lines(results / f"{name}.jsonl")) for name in ("own", "zoo"))
    made = _marked("own", f"{section(own)}\n\n{hours(own, todo, training)}"), _marked("zoo", section(zoo))
    text = PAGE.read_text(encoding="utf-8")
    for part in made:
        text = splice(text, part)
    PAGE.write_text(text, encoding="utf-8")
    return "\n".join(made)


def _marked(name: str, text: str) -> str:
    return f"<!-- purification-{name}:begin -->\n{text}\n<!-- purification-{name}:end -->\n"


def section(kept: Sequence[Line]) -> str:
    """Methods over all victims, the victims themselves, and every cell."""
    return "\n\n".join((pooled(kept), victims(kept), *by_victim(kept)))


def pooled(kept: Sequence[Line]) -> str:
    """One row for each method and size: means over the victims that it was run on, with intervals."""
    out = _table(
        "method", "samples", "victims", "mean ACC loss (95 %)", "mean excess ASR (95 %)", "worst excess",
        f"at most {100 * MATCHED:.0f} point lost: victims, mean excess", "CPU s",
    )  # fmt: skip
    for (name, samples), group in _groups(kept):
        done = [line for line in group if line["after"] is not None]
        if not done:
            out.append(f"| {name} | {_size(samples)} | 0 of {len(group)} | – | – | – | – | – |")
            continue
        cheap = [line for line in done if line["acc_loss"] <= MATCHED]
        matched = f"{len(cheap)}" + (f", {_points(float(np.mean([c['excess'] for c in cheap])))}" if cheap else "")
        seconds = [line["cpu"] for line in done if "cpu" in line]
        out.append(
            f"| {name} | {_size(samples)} | {len(done)}{f' of {len(group)}' * (len(done) < len(group))} | "
            f"{_mean(done, 'acc_loss', 'loss_pairs', 'n_acc')} | {_mean(done, 'excess', 'excess_pairs', 'n_asr')} | "
            f"{_points(max(line['excess'] for line in done))} | {matched} | "
            f"{f'{np.mean(seconds):.0f}' if seconds else '–'} |"
        )
    return "\n".join(out)


def victims(kept: Iterable[Line]) -> str:
    """One row for each victim before anything was done to it, beside its clean twin."""
    out = _table("victim", "ACC", "ASR (95 %)", "own floor", "n", "twin's ACC", "twin's floor", "twin's ASR")
    for line in {_victim(line): line for line in kept}.values():
        before, clean = line["before"], line["clean"]
        whole = rate(round(before["asr"] * line["n_asr"]), line["n_asr"])
        out.append(
            f"| {_victim(line)} | {_points(before['acc'])} | {_points(before['asr'])} ({_points(whole.low)} to "
            f"{_points(whole.high)}) | {_points(before['floor'])} | {line['n_acc']}, {line['n_asr']} | "
            f"{_points(clean['acc'])} | {_points(clean['floor'])} | {_points(clean['asr'])} |"
        )
    return "\n".join(out)


def by_victim(kept: Sequence[Line]) -> list[str]:
    """One table for each task: a row a method, a column a victim; loss of ACC / ASR / excess, all in points."""
    tables = []
    for task, group in groupby(sorted(kept, key=lambda line: str(line["task"])), key=lambda line: str(line["task"])):
        cells = list(group)
        names = list(dict.fromkeys(_victim(line).removeprefix(f"{task} ") for line in cells))
        out = _table(f"{task}: ACC loss / ASR / excess", *names)
        for (name, samples), lines_of in _groups(cells):
            found = {_victim(line).removeprefix(f"{task} "): line for line in lines_of}
            row = [_cell(found[victim]) if victim in found else "" for victim in names]
            out.append(f"| {name}, {_size(samples)} | " + " | ".join(row) + " |")
        tables.append("\n".join(out))
    return tables


def hours(kept: Sequence[Line], todo: Sequence[Cell], training: float) -> str:
    """One sentence on what is missing of ``todo`` and how long it would take on one core.

    Args:
        kept: what was measured.
        todo: every cell of the full benchmark.
        training: processor seconds for the victims that are still to be trained.
    """
    done = {line["key"] for line in kept}
    missing = [cell for cell in todo if cell.key not in done]
    costs: dict[Group, list[float]] = {}
    for line in kept:
        if "cpu_in_all" in line:
            costs.setdefault(_group(line), []).append(line["cpu_in_all"])
    usual = float(np.mean([seconds for values in costs.values() for seconds in values])) if costs else 0.0

    def cost(cell: Cell) -> float:
        name = cell.method + " + E-PUR" * cell.e_pur
        near = [values for (method, _), values in costs.items() if method == name]
        return float(np.mean(costs.get((name, cell.samples)) or (np.concatenate(near) if near else [usual])))

    seconds = sum(map(cost, missing)) + training
    return (
        f"Of the full benchmark {len(todo) - len(missing)} of {len(todo)} cells are measured. What is missing would "
        f"take some {seconds / 3600:.0f} hours on one core, at the seconds measured here for each method."
    )


def _cell(line: Line) -> str:
    if line["after"] is None:
        return "nothing done"
    return f"{_points(line['acc_loss'])} / {_points(line['after']['asr'])} / {_points(line['excess'])}"


def _mean(done: Sequence[Line], key: str, pairs: str, n: str) -> str:
    """The mean over victims; its interval is over texts, the victims taken as they are."""
    value = float(np.mean([line[key] for line in done]))
    spread = [_variance(line[pairs], line[n]) for line in done if pairs in line]
    if len(spread) < len(done):
        return _points(value)
    half = _Z * math.sqrt(sum(spread)) / len(done)
    return f"{_points(value)} ({_points(value - half)} to {_points(value + half)})"


def _variance(pairs: Sequence[int], n: int) -> float:
    """Of the difference of two shares on the same n texts, from how often each is alone."""
    _, first, second, _ = pairs
    return float((first + second - (first - second) ** 2 / n) / n**2)


def _groups(kept: Iterable[Line]) -> list[tuple[Group, list[Line]]]:
    groups: dict[Group, list[Line]] = {}
    for line in kept:
        groups.setdefault(_group(line), []).append(line)
    order: Callable[[tuple[Group, list[Line]]], tuple[bool, bool, int]] = lambda item: (  # noqa: E731
        item[0][0] != "none", item[0][0] != "auto", item[0][1],
    )  # fmt: skip
    return sorted(groups.items(), key=order)


def _group(line: Line) -> Group:
    return str(line["method"]) + " + E-PUR" * bool(line["e_pur"]), int(line["samples"])


def _victim(line: Line) -> str:
    return f"{line['task']} {line['family']}" + f" s{line['seed']}" * (not str(line["family"]).startswith("attacked-"))


def _table(*heads: str) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]


def _size(samples: int) -> str:
    return str(samples or "none")


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")
