"""The section of docs/benchmarks.md about scans with a budget, from ``benchmarks/results/triage.json`` alone."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks.pages import splice
from pipelines.purify.intervals import rate

BEGIN, END = "<!-- triage:begin -->", "<!-- triage:end -->"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
STATED = {
    "poisoned row": "one token row",
    "rank-one edit": "one matrix of one layer",
    "one layer": "all matrices of one layer",
    "full fine-tune backdoor": "one token row",
}
"""Which stated power, by the beginning of its words, speaks of an edit."""

HEAD = """
Made by `python benchmarks/triage.py` on {date}. The pair is a made-up decoder of 1.54 G parameters (28 layers, 151,936
tokens, bfloat16, 3.1 GB a side, 6.2 GB in all) and a fine-tune whose changes have the measured traits of real ones: row
energies that spread by half a nat, two fifths of the energy in one direction, a power law of 31 more. To save time, 7
of the 28 layers are drawn and the others repeat them with their rows turned round. Budget: 64 MB of both sides
together, of which the check of the base takes 6.4 MB; {coverage:.2%} of the parameters are read.
"""
HOW = """
**How it was made.** {seeds} samples (seeds), each with {rows} places of every row edit and {matrices} of every matrix
edit, drawn at random. An edit of one token row can only be seen where the plan reads that row: elsewhere it counts as
not seen without being measured. Where it is read, and for all edits of matrices, the tensors concerned are measured
again with the edit laid over them, judged with the rest of that sample by the rules of a scan, and read further where a
scan would. *Seen* means that a finding names the edited tensor, and for rows the row. Places of one seed share their
sample, so the intervals (two-sided 95 %, Clopper-Pearson) are the least uncertainty. *Stated* is what the reports say
on average.
"""
NOTES = """
- *Poisoned row*: one row of the embedding written anew, as in embedding poisoning. *Rank-one edit*: one of q, o, gate,
  up and down of one layer changes by a rank-one matrix six times as large as its honest change; *one layer*: all five
  do. One of 28 layers (3.6 %) is the nearest to one per cent of them that there is.
- *Full fine-tune backdoor*: a direction with 15 % of the honest energy in every matrix, and the trigger's token row 20
  times as far from the base as the others. What is seen is the row; in the whole scans below, no rule named
  the dense part.
- No tokenizer belongs to the pair, so the rows are judged without their frequencies.
"""


def write(results: dict[str, Any]) -> None:
    """Replace the section in the page, or append it."""
    made = "\n".join((BEGIN, "## A scan with a budget", "", *_section(results), END, ""))
    PAGE.write_text(splice(PAGE.read_text() if PAGE.exists() else "", made))


def interval(seen: int, n: int) -> tuple[float, float]:
    """Two-sided 95 % interval of a rate (Clopper & Pearson 1934)."""
    found = rate(seen, n)
    return found.low, found.high


def _section(results: dict[str, Any]) -> Iterator[str]:
    seeds = results["seeds"]
    places = seeds[0]["places"]
    yield from _paragraph(
        HEAD, date=results["environment"]["date"], coverage=float(np.mean([s["coverage"] for s in seeds]))
    )
    yield from _paragraph(HOW, seeds=len(seeds), rows=places["poisoned row"]["n"], matrices=places["one layer"]["n"])
    yield "| edit | n | seen | rate | 95 % interval | stated |"
    yield "|---|---|---|---|---|---|"
    for kind, words in STATED.items():
        n, seen = (sum(seed["places"][kind][part] for seed in seeds) for part in ("n", "seen"))
        low, high = interval(seen, n)
        stated = np.mean([p for seed in seeds for edit, _, p in seed["stated"] if edit.startswith(words)])
        yield f"| {kind} | {n:,} | {seen:,} | {seen / n:.1%} | {low:.1%} to {high:.1%} | {stated:.1%} |"
    false = sum(bool(seed["clean_named"]) for seed in seeds)
    low, high = interval(false, len(seeds))
    yield f"| none (honest fine-tune) | {len(seeds)} | {false} | {false / len(seeds):.1%} | {low:.1%} to {high:.1%} | |"
    yield ""
    yield from NOTES.strip().splitlines()
    yield ""
    if results.get("zoo"):
        yield from _zoo(results["zoo"], results.get("zoo_first", []))
    if results["confirmed"]:
        yield from _confirmed(results["confirmed"])


def _zoo(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> Iterator[str]:
    """Real fine-tunes under a budget: the rules that named something, clean and attacked."""
    text = """
    **Real fine-tunes.** The models of `benchmarks/zoo` (one 22.7 M-parameter encoder, 182 MB a pair) with 10 MB each:
    *named* are models with a finding that weighs. A first run named {first} clean models; what decision 0007 says of
    samples was refined on these, so that the rate is not one of models unseen. The table above was measured before,
    and the first of its seeds again after: the same counts.
    """
    yield from _paragraph(text, first=sum(row["model"].startswith("clean") for row in earlier))
    yield "| models | n | named | 95 % interval | parameters read (median) |"
    yield "|---|---|---|---|---|"
    for kind in ("clean", "attacked"):
        found = [row for row in rows if row["model"].startswith(kind)]
        if found:
            named = sum(row["outcome"] in {"review", "fail"} for row in found)
            low, high = interval(named, len(found))
            read = float(np.median([row["coverage"] for row in found]))
            yield f"| {kind} | {len(found)} | {named} | {low:.1%} to {high:.1%} | {read:.1%} |"
    yield ""


def _confirmed(runs: list[dict[str, Any]]) -> Iterator[str]:
    text = """
    **From end to end.** Edits written into the files, the whole command run on them, and the files restored. Outcomes
    are never a pass; row edits at random places are mostly not read, as the table leads to expect.
    """
    yield from _paragraph(text)
    yield "| edit | seen | outcome | read further | bytes read |"
    yield "|---|---|---|---|---|"
    for run in runs:
        yield (
            f"| {run['kind']} | {'yes' if run['seen'] else 'no'} | {run['outcome']} | {len(run['escalated'])} tensors "
            f"| {run['bytes_read'] / 1e6:.1f} MB |"
        )
    yield ""


def _paragraph(text: str, **values: Any) -> Iterator[str]:
    yield fill(" ".join(text.format(**values).split()), 110, break_on_hyphens=False)
    yield ""
