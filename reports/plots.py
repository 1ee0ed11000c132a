"""Draws which rows of a table stand out, and how narrow a change is.

Each function returns an inline SVG, or None when the report has nothing to draw. Sizes are in inches, text sizes in
points.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from audit.records import DriftRecord, Histogram, TopRow
from reports.numbers import count, number, rate
from reports.safe_text import clean_line, clean_token, shorten
from reports.svg import ACCENT, FLAG, GRID, INK, MUTED, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_ROWS = 7
SPECTRA_SHOWN = 4
BINS_SHOWN = 400
DECADES_SHOWN = 30.0
LEAST_SHARE = 1e-5
"""Shares of a change below this are drawn at this height."""

WIDTH, HEIGHT = 4.7, 3.2
BARS_HEIGHT = 0.55
"""Part of the height that bars may take; the names of rows have the rest."""

_MARKERS = "osD^"


def row_distribution(record: DriftRecord, named: frozenset[int], *, name: str) -> Markup | None:
    """Draw how far the rows of a table moved, relative to the median row, and name those that moved furthest.

    Args:
        record: its ``row_histogram`` counts rows by log10 of their drift; its ``top_rows`` are named.
        named: rows that a finding names; drawn in the colour of findings.
        name: unique within the page.
    """
    histogram = record.row_histogram
    if histogram is None or not _drawable(histogram):
        return None
    edges, counts = _from_median(histogram)
    rows = _foremost(record.top_rows, named)
    low = min(edges[0], -0.5)
    high = max(edges[-1], 0.5, *(math.log10(row.relative) for row in rows))
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_axes((0.115, 0.15, 0.865, 0.82))
    axes.set_yscale("log")
    axes.stairs([max(rows_in_bin, 0.5) for rows_in_bin in counts], edges, fill=True, color=ACCENT, baseline=0.5)
    peak = max(10, *counts)
    axes.set(
        xlim=(low - 0.03 * (high - low), high + 0.05 * (high - low)),
        ylim=(0.7, 0.7 * (1.5 * peak / 0.7) ** (1 / BARS_HEIGHT)),
    )
    powers = range(math.floor(math.log10(peak)) + 1)
    _ticks(axes, low, high, [10.0**power for power in powers])
    labels = _clothe(axes, "drift of a row, as a multiple of the median row's", "rows")
    for place, row in enumerate(rows):
        labels |= _name_row(axes, row, place, colour=FLAG if row.row in named else MUTED)
    title = f"Distribution of row drift in {clean_line(record.tensor)}"
    return to_svg(figure, name=name, title=title, labels=labels)


def spectra(drift: Iterable[DriftRecord], flagged: frozenset[str]) -> Markup | None:
    """Draw the share of each direction in the change of up to four tensors.

    Those that a finding names come first, then tensors of the same role in other layers, then the narrowest changes.
    """
    known = [(record, shares) for record in drift if (shares := _shares(record))]
    if not known:
        return None
    roles = {record.role for record, _ in known if record.tensor in flagged}
    known.sort(key=lambda item: (item[0].tensor in flagged, item[0].role in roles, item[1][0]), reverse=True)
    chosen = known[:SPECTRA_SHOWN]
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_axes((0.135, 0.15, 0.845, 0.82))
    axes.set_yscale("log")
    least = math.floor(math.log10(min(min(shares) for _, shares in chosen)))
    axes.set(ylim=(10.0**least, 40.0), xlim=(0.4, max(len(shares) for _, shares in chosen) + 0.6))
    ticks = [10.0**power for power in range(least, 1)]
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    labels = _clothe(axes, "direction of the change, strongest first", "share of the change")
    names = _without_common_start([record.tensor.removesuffix(".weight") for record, _ in chosen])
    for place, (record, shares) in enumerate(chosen):
        colour = FLAG if record.tensor in flagged else (INK, ACCENT, MUTED, MUTED)[place]
        marker = _MARKERS[place]
        axes.plot(range(1, len(shares) + 1), shares, color=colour, marker=marker, markersize=3.5, linewidth=1.3)
        height = 0.955 - 0.07 * place
        axes.plot([0.355], [height], color=colour, marker=marker, markersize=5, transform=axes.transAxes)
        text = f"{shorten(clean_line(names[place]), 29)}: {rate(shares[0])}"
        labels |= _text(axes, 0.38, height, text, f"name{place}", colour=INK)
    return to_svg(figure, name="spectra", title="Share of each direction in the change of a tensor", labels=labels)


def _drawable(histogram: Histogram) -> bool:
    """Say whether the numbers make a histogram: what came from a file may be anything."""
    edges, counts = histogram.edges, histogram.counts
    rising = all(left < right for left, right in pairwise(edges))
    return (
        0 < len(counts) <= BINS_SHOWN
        and len(edges) == len(counts) + 1
        and rising
        and edges[-1] - edges[0] < DECADES_SHOWN
        and min(counts) >= 0
        and max(counts) > 0
    )


def _from_median(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Return the occupied bins, their edges relative to the middle of the median row's bin."""
    occupied = [place for place, rows in enumerate(histogram.counts) if rows]
    first, last = occupied[0], occupied[-1] + 1
    middle = bisect_left(list(accumulate(histogram.counts)), sum(histogram.counts) / 2)
    median = (histogram.edges[middle] + histogram.edges[middle + 1]) / 2
    return [edge - median for edge in histogram.edges[first : last + 1]], list(histogram.counts[first:last])


def _foremost(rows: Iterable[TopRow], named: frozenset[int]) -> list[TopRow]:
    """Return the rows to name, furthest first: those of a finding, then in the order in which the audit ranks them."""
    drawable = [row for row in rows if row.relative > 0 and abs(math.log10(row.relative)) < DECADES_SHOWN]
    ranked = sorted(drawable, key=lambda row: row.row not in named)[:NAMED_ROWS]
    return sorted(ranked, key=lambda row: -row.relative)


def _shares(record: DriftRecord) -> list[float]:
    """Return the share of each known direction in the squared norm of the change, in [``LEAST_SHARE``, 1]."""
    norm = record.delta_l2 if record.delta_l2 > 0 else math.hypot(*record.singular_values)
    if not 0 < norm < math.inf:
        return []
    ratios = [value / norm for value in record.singular_values]
    return [min(max(ratio * ratio, LEAST_SHARE), 1.0) for ratio in ratios]


def _without_common_start(names: list[str]) -> list[str]:
    """Drop the leading parts that all names share, but never the word that says what a number counts."""
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    if shared and any(part[shared].isdecimal() for part in parts):
        shared -= 1
    return [".".join(part[shared:]) for part in parts]


def _name_row(axes: "Axes", row: TopRow, place: int, *, colour: str) -> dict[str, str]:
    """Draw a stem from the axis up to the row's name; the furthest row has the highest stem, so none cross."""
    x = math.log10(row.relative)
    height = 0.955 - 0.062 * place
    transform = axes.get_xaxis_transform()
    axes.plot([x, x], [0.0, height], color=colour, linewidth=1.0, transform=transform)
    axes.plot([x], [height], color=colour, marker="o", markersize=3.5, transform=transform)
    token = clean_token(row.token) if row.token is not None else f"row {row.row:,}"
    text = f"{token}  {number(float(f'{row.relative:.3g}'))} ×"
    gid = f"row{place}"
    low, high = axes.get_xlim()
    axes.text(
        x - 0.015 * (high - low),
        height,
        "x" * len(text),
        transform=transform,
        ha="right",
        va="center_baseline",
        size=9.0,
        color=INK if colour == MUTED else colour,
        gid=gid,
    )
    return {gid: text}


def _ticks(axes: "Axes", low: float, high: float, rows: list[float]) -> None:
    """Label the horizontal axis in multiples, densely over a short range, and the vertical one in rows."""
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    every = max(1, math.ceil((high - low) / 6))
    powers = [power for power in range(math.floor(low), math.ceil(high) + 1) if power % every == 0]
    ticks = [math.log10(step) + power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(ticks, [f"{number(float(f'{10**tick:.1g}'))} ×" for tick in ticks])
    axes.set_yticks(rows, [count(int(tick)) for tick in rows])


def _clothe(axes: "Axes", horizontal: str, vertical: str) -> dict[str, str]:
    """Dress an axis: two thin spines, quiet ticks, both titles inside the drawing."""
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(color=GRID, labelcolor=MUTED, labelsize=9.0, length=3.0)
    axes.set_xlabel(horizontal, color=MUTED, size=9.0)
    return _text(axes, 0.012, 0.955, vertical, "vertical", colour=MUTED)


def _text(axes: "Axes", x: float, y: float, text: str, gid: str, *, colour: str) -> dict[str, str]:
    """Write a placeholder at a place in the axes (0 to 1), and return the text that it stands for."""
    axes.text(x, y, "x" * len(text), transform=axes.transAxes, va="center_baseline", size=9.0, color=colour, gid=gid)
    return {gid: text}
