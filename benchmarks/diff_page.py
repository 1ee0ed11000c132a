"""The section of docs/benchmarks.md about the diff, written from ``benchmarks/results/diff.json`` alone."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any

BEGIN, END = "<!-- diff:begin -->", "<!-- diff:end -->"

HEAD = """
Made by `python benchmarks/diff.py` on {date}: {cores} virtual cores shared with other work, Python {python}, numpy
{numpy}, numba {numba}, torch {torch}. GB are 10⁹ bytes of both sides together; a rate is the best of 12 rounds (2 for
the three slowest ways), in which the ways take turns in one process. Absolute rates follow the memory of the machine;
the ratios are the result.
"""
LOCAL = """
**Local.** A made-up decoder of {size:.2f} GB a side and its fine-tune, in the page cache. *Read* adds up the bytes of
both files through the same mapping and in the same blocks. *Moments* are row, column and cross moments and the count of
changes; *residual* adds the departure from the separable null; *spectrum*, which is what a scan runs, also the leading
singular values. *Torch* is the same moments on whole tensors, in float32 throughout, and in blocks of the size at
which it is fastest.
"""
LOWEST = """
Lowest of the table: {read:.2f} of the reading speed (aim: 0.5) and {torch:.0f} times plain torch (aim: 40). Over {runs}
runs, most of them on a busier machine, the lowest were {lowest_read:.2f} and {lowest_torch:.0f}, the latter for F32,
whose loop waits for memory alone.
"""
MEMORY = """
**Memory.** Highest resident size of a process that measures a bfloat16 pair of that size with everything on, mapped
pages of the files included (aim: 700 MB). What grows is the result itself: three float64 sums per row and one per
column. Remote reading holds up to 128 MB of blocks ahead per side.
"""
REMOTE = """
**Remote.** The pair of {size:.2f} GB a side from a local Hub server throttled to {megabytes:.0f} MB/s in all and
{milliseconds:.0f} ms per request: {seconds:.1f} s to open and measure with everything on, **{ratio:.2f} times** bytes /
bandwidth (aim: 1.15). {requests} requests, {cpu_seconds:.1f} s of processor time, {written} bytes written to disk.
"""
COLUMNS = ("", "cores", "read GB/s", "moments", "residual", "spectrum", "torch", "torch in blocks")


def section(results: dict[str, Any]) -> str:
    """Return the section, between its marks."""
    return "\n".join((BEGIN, "## Diff speed and memory", "", *_section(results), END, ""))


def _section(results: dict[str, Any]) -> Iterator[str]:
    remote = results["remote"]
    yield from _paragraph(HEAD, **results["environment"])
    yield from _speed(results["speed"], results["lowest_by_run"])
    yield from _paragraph(MEMORY)
    yield from _row("GB a side", "before, MB", "peak, MB")
    yield from _row("---", "---", "---")
    for row in results["memory"]:
        yield from _row(f"{row['bytes'] / 2e9:.2f}", f"{row['before'] / 1e6:.0f}", f"{row['peak'] / 1e6:.0f}")
    yield from _row(f"{remote['bytes'] / 2e9:.2f}, remote", "", f"{remote['peak'] / 1e6:.0f}")
    yield ""
    yield from _paragraph(
        REMOTE,
        **remote,
        size=remote["bytes"] / 2e9,
        megabytes=remote["bandwidth"] / 1e6,
        milliseconds=remote["latency_seconds"] * 1e3,
    )


def _speed(rows: list[dict[str, Any]], runs: list[dict[str, float]]) -> Iterator[str]:
    yield from _paragraph(LOCAL, size=rows[0]["bytes"] / 2e9)
    yield from _row(*COLUMNS, "moments / read", "moments / torch")
    yield from _row(*["---"] * (len(COLUMNS) + 2))
    for row in rows:
        rate, ratio = row["gb_per_second"], row["against"]
        rates = [f"{rate[name]:.1f}" for name in ("read", "moments", "residual")]
        slow = [f"{rate[name]:.2f}" for name in ("spectrum", "torch", "torch_blocks")]
        yield from _row(row["dtype"], str(row["cores"]), *rates, *slow, f"{ratio['read']:.2f}", f"{ratio['torch']:.0f}")
    yield ""
    yield from _paragraph(
        LOWEST,
        **{name: min(row["against"][name] for row in rows) for name in ("read", "torch")},
        runs=len(runs),
        lowest_read=min(run["read"] for run in runs),
        lowest_torch=min(run["torch"] for run in runs),
    )


def _paragraph(text: str, **values: Any) -> Iterator[str]:
    yield fill(" ".join(text.format(**values).split()), 110, break_on_hyphens=False)
    yield ""


def _row(*cells: str) -> Iterator[str]:
    yield "| " + " | ".join(cells) + " |"
