"""The table of the purification benchmark, in Markdown."""

from typing import Any

import numpy as np

from pipelines.purify.intervals import rate


def page(cells: list[dict[str, Any]]) -> str:
    """Return two tables: methods over all victims they were run on, and every cell."""
    rows = ["| method | samples | victims | mean ACC | mean ACC loss | mean ASR | mean excess ASR | worst excess |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((_name(cell), cell["samples"]), []).append(cell)
    for (name, samples), group in groups.items():
        done = [cell for cell in group if cell["after"] is not None]
        if not done:
            rows.append(f"| {name} | {samples or 'none'} | 0 of {len(group)} | – | – | – | – | – |")
            continue
        mean = {key: float(np.mean([cell["after"][key] for cell in done])) for key in ("acc", "asr")}
        excess = [cell["excess"] for cell in done]
        loss = float(np.mean([cell["acc_loss"] for cell in done]))
        count = str(len(done)) if len(done) == len(group) else f"{len(done)} of {len(group)}"
        rows.append(
            f"| {name} | {samples or 'none'} | {count} | {_pct(mean['acc'])} | {_pct(loss)} | {_pct(mean['asr'])} | "
            f"{_pct(float(np.mean(excess)))} | {_pct(max(excess))} |"
        )
    rows += ["", "| victim | method | samples | ACC | ASR (95 %) | own floor | clean model's ASR | excess |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    order = sorted(cells, key=lambda c: (c["task"], c["family"], c["seed"], c["samples"], _name(c)))
    for cell in order:
        victim = f"{cell['task']} {cell['family']} s{cell['seed']}"
        if cell["after"] is None:
            why = cell["why"].replace("|", "/")
            rows.append(f"| {victim} | {_name(cell)} | {cell['samples'] or 'none'} | {why} | | | | |")
            continue
        after = cell["after"]
        low, high = _interval(after["asr"], cell["n_asr"])
        rows.append(
            f"| {victim} | {_name(cell)} | {cell['samples'] or 'none'} | {_pct(after['acc'])} | {_pct(after['asr'])} "
            f"({_pct(low)}–{_pct(high)}) | {_pct(after['floor'])} | {_pct(cell['clean']['asr'])} | "
            f"{_pct(cell['excess'])} |"
        )
    return "\n".join(rows)


def _name(cell: dict[str, Any]) -> str:
    return str(cell["method"]) + (" + E-PUR" if cell["e_pur"] else "")


def _pct(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(share: float, n: int) -> tuple[float, float]:
    """Clopper–Pearson, 95 %."""
    found = rate(round(share * n), n)
    return found.low, found.high
