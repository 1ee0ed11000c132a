"""Writes the section on lineage of docs/benchmarks.md from the statistics."""

from pathlib import Path
from typing import Any

PAGE = Path("docs/benchmarks.md")
_TITLE = "## Lineage\n"
_HEAD = """# Benchmarks

What was measured, on what, and how to measure it again. Numbers are of one machine and of the models named; they hold
for others only as far as those are like them.
"""
_MADE = """
**How it was made.** `python -m benchmarks.lineages.train` trains small decoders from scratch (two architectures,
Llama and GPT-2; three layers, 64 wide, 512 tokens) on made-up languages, 300 steps of AdamW each: all of one
architecture with the *identical* configuration, each with another random start. Four of each get six descendants
(two fine-tunes, an instruct model, continued pre-training, and a child of each of the last two); descendants are
altered in eight ways that keep descent. The MiniLM encoder and its fine-tunes (`benchmarks/zoo`, honest and
attacked) join as a real family, with an encoder of the same configuration that was trained anew. `nice python -m
benchmarks.lineage` runs the checks of a scan on each pair (one fixed seed of sampling), goes on where it was
interrupted, and writes `benchmarks/results/lineage.json` and this section.
"""
_READING = """
Intervals are Clopper-Pearson's, two-sided, 95 %. They treat pairs as independent, which pairs that share a model are
not: read them as the least uncertainty.

- *Verified* means not independent: siblings verify as well. Models of one random start with other data (*same start*)
  are neither related nor independent.
- *Unverified* is what is left when too little can be compared (strangers with renamed tensors): no accusation.
- *Parent named*: each trained descendant was held against its whole family, without its own descendants, and strangers.
  A parent is named only where the candidate carries the whole way from the next nearest to it; otherwise the weights do
  not tell. A sibling that hardly moved lies as near as the parent, because siblings first move alike.
- *Went far*: moved by at least 0.4 of its size. It depends on how long and how fast was trained and on nothing else, so
  a scan says that a model went as far as continued pre-training does, and calls the relation a fine-tune. The share of
  token rows that moved tells nothing: 99 to 100 % of them in all of the 48 trained descendants of decoders.
"""


def write_page(statistics: dict[str, Any], table: str, page: Path = PAGE) -> None:
    """Replace the section, or add it at the end."""
    text = page.read_text(encoding="utf-8") if page.exists() else _HEAD
    start = text.find(_TITLE)
    before = text[:start] if start >= 0 else text.rstrip("\n") + "\n\n"
    ends = [text.find(mark, start + len(_TITLE)) for mark in ("\n## ", "\n<!-- ")] if start >= 0 else []
    end = min((found for found in ends if found >= 0), default=-1)  # other sections begin with a mark of their own
    after = text[end:] if end >= 0 else ""
    page.write_text(before + _TITLE + _section(statistics, table) + after, encoding="utf-8")


def _section(statistics: dict[str, Any], table: str) -> str:
    direction = statistics["direction"]
    told = (
        f"- *Direction of descent* (decay of untouched rows, rounding) was right in {direction['passed']}, wrong in "
        f"{direction['failed']}\n  and not told in {direction['not_run']} of the related pairs: it needs rows that "
        "training never reached, or a cast.\n"
    )
    relations = [
        f"| {group.removeprefix('related: ')} | {', '.join(f'{n} {c}' for n, c in sorted(counts.items()))} |"
        for group, counts in statistics["relations"].items()
    ]
    measured = (
        "\nRelation of the related pairs, measured from sampled rows alone:\n\n| pairs of | measured as |\n|---|---|\n"
    )
    return f"\n{_MADE}\n{table}\n{_READING}{told}{measured}" + "\n".join(relations) + "\n"
