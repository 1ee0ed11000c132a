"""Draws where a model moved: relative drift by layer and kind of tensor.

Sizes are in inches, text sizes in points; y grows downwards.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from markupsafe import Markup

from audit.records import DriftRecord
from reports.numbers import rate
from reports.safe_text import clean_line, shorten
from reports.svg import FLAG, HEAT, HEAT_INK, MUTED, QUIET, SURFACE, inch_axes, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = {
    "embedding": "embedding",
    "position": "position",
    "query": "query",
    "key": "key",
    "value": "value",
    "attention": "attention",
    "attention_output": "attn out",
    "mlp_gate": "MLP gate",
    "mlp_in": "MLP in",
    "mlp_out": "MLP out",
    "router": "router",
    "conv": "conv",
    "norm": "norm",
    "bias": "bias",
    "pooler": "pooler",
    "head": "head",
    "unembedding": "unembed",
    "other": "other",
}
"""Role → heading, in the order in which data passes through a model."""

BANDS = 40
"""Rows of the map at most; deeper models are drawn in bands of neighbouring layers."""

COLUMNS_SHOWN = 12
"""Columns of the map at most; roles beyond share the last one."""

WIDTH = 7.6
MARGIN = 0.85
HEADING = 0.32
ROW = 0.36
NARROW_ROW = 0.22
STEP = 0.3
LEAST_SIBLINGS = 3
"""Cells of a kind below which there is no ordinary drift to compare with."""


Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The tensor that moved furthest among those of one kind in one place.

    ``value`` is its relative drift; ``step`` is its colour in ``HEAT``, None where there is nothing to compare with.
    """

    value: float
    tensor: str
    flagged: bool
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Canvas:
    """An axis in inches, and the texts and tooltips that are put in after drawing, by gid."""

    axes: "Axes"
    labels: dict[str, str] = field(default_factory=dict)
    tips: dict[str, str] = field(default_factory=dict)

    def text(self, x: float, y: float, text: str, *, align: str = "center", colour: str = MUTED) -> None:
        """Write a text; ``y`` is the height of its middle."""
        gid = f"text{len(self.labels)}"
        self.labels[gid] = text
        self.axes.text(x, y, "x" * len(text), size=9.0, color=colour, ha=align, va="center_baseline", gid=gid)

    def box(self, x: float, y: float, width: float, height: float, *, fill: str, flagged: bool = False) -> str:
        """Draw a rectangle with a hair of space around it, and return its gid."""
        from matplotlib.patches import Rectangle  # noqa: PLC0415 - see reports.svg

        gid = f"box{len(self.axes.patches)}"
        edge, line, gap = (FLAG, 2.0, 0.04) if flagged else (fill, 0.0, 0.015)
        place, size = (x + gap, y + gap), (width - 2 * gap, height - 2 * gap)
        self.axes.add_patch(Rectangle(place, *size, facecolor=fill, edgecolor=edge, linewidth=line, gid=gid))
        return gid

    def cell(self, cell: Cell | None, where: str, x: float, y: float, width: float, height: float) -> None:
        """Draw one cell of the map; nothing where there is no tensor."""
        if cell is None:
            return
        gid = self.box(x, y, width, height, fill=QUIET if cell.step is None else HEAT[cell.step], flagged=cell.flagged)
        drift = rate(cell.value) if cell.value > 0 else "unchanged"
        self.tips[gid] = f"{where}: {drift} ({clean_line(cell.tensor)})"
        if width >= 0.5 and height >= 0.3:
            ink = MUTED if cell.step is None else HEAT_INK[cell.step > len(HEAT) // 2]
            self.text(x + width / 2, y + height / 2, drift if cell.value > 0 else "0", colour=ink)


def heat_map(drift: Iterable[DriftRecord], flagged: frozenset[str]) -> Markup | None:
    """Draw the largest ‖Δ‖ / ‖base‖ per layer and kind of tensor, coloured against the same kind in other layers.

    Tensors in ``flagged`` (those that a finding names) are outlined. None when there is no drift to draw.
    """
    records = list(drift)
    if not records:
        return None
    roles = _columns({record.role for record in records if record.layer is not None})
    outer = _columns({record.role for record in records if record.layer is None})
    bands = _bands({record.layer for record in records if record.layer is not None})
    band_of = {layer: place for place, band in enumerate(bands) for layer in band}
    inside = _furthest((((band_of[r.layer], roles[r.role]), r) for r in records if r.layer is not None), flagged)
    outside = _furthest(((outer[r.role], r) for r in records if r.layer is None), flagged)
    return _draw(bands, _names(roles), _contrast(inside), _names(outer), outside)


def _columns(roles: set[str]) -> dict[str, int]:
    """Return the column of each role: known ones in the order of ``COLUMNS``, then the rest by name."""
    known = list(COLUMNS)
    ordered = sorted(roles, key=lambda role: (known.index(role) if role in COLUMNS else len(known), role))
    return {role: min(place, COLUMNS_SHOWN - 1) for place, role in enumerate(ordered)}


def _names(columns: dict[str, int]) -> list[str]:
    """Return the heading of each column."""
    names: dict[int, str] = {}
    for role, column in columns.items():
        name = COLUMNS.get(role) or shorten(clean_line(role), 11)
        names[column] = "others" if column in names else name
    return [names[column] for column in sorted(names)]


def _bands(layers: set[int | None]) -> list[list[int]]:
    """Return runs of neighbouring layers, at most ``BANDS`` of them."""
    ordered = sorted(layer for layer in layers if layer is not None)
    size = max(1, math.ceil(len(ordered) / BANDS))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


def _furthest(placed: Iterable[tuple[Key, DriftRecord]], flagged: frozenset[str]) -> dict[Key, Cell]:
    """Return the tensor that moved furthest in each place; a flagged one comes before all others."""
    cells: dict[Key, Cell] = {}
    for place, record in placed:
        cell = Cell(value=max(record.relative_l2, 0.0), tensor=record.tensor, flagged=record.tensor in flagged)
        old = cells.get(place)
        if old is None or (cell.flagged, cell.value) > (old.flagged, old.value):
            cells[place] = cell
    return cells


def _contrast(cells: dict[tuple[int, int], Cell]) -> dict[tuple[int, int], Cell]:
    """Give each cell its step: how far it moved against the median of its kind over the layers.

    One times the median is step 2 and sixteen times is step 8, with one and a half steps per doubling. Cells without
    change, and kinds with fewer than ``LEAST_SIBLINGS`` cells that changed, have no step.
    """
    kinds: dict[int, list[float]] = {}
    for (_, kind), cell in cells.items():
        if cell.value > 0:
            kinds.setdefault(kind, []).append(math.log2(cell.value))
    middles = {kind: median(powers) for kind, powers in kinds.items() if len(powers) >= LEAST_SIBLINGS}
    return {
        place: replace(cell, step=_step(math.log2(cell.value) - middles[place[1]]))
        if cell.value > 0 and place[1] in middles
        else cell
        for place, cell in cells.items()
    }


def _step(doublings: float) -> int:
    return min(max(round(2 + 1.5 * doublings), 0), len(HEAT) - 1)


def _draw(
    bands: list[list[int]],
    roles: list[str],
    inside: dict[tuple[int, int], Cell],
    outer: list[str],
    outside: dict[int, Cell],
) -> Markup:
    """Lay the map out: headings, one row per band, the tensors outside the layers, the scale."""
    width = min(1.1, (WIDTH - MARGIN) / max(len(roles), len(outer)))
    row = ROW if len(bands) <= 14 else NARROW_ROW
    below = 2 * HEADING + row * len(bands) if bands else 0.0
    strip = below + HEADING
    height = (strip + ROW if outer else below - HEADING) + 0.78
    figure = new_figure(WIDTH, height)
    canvas = _Canvas(axes=inch_axes(figure))
    for column, role in enumerate(roles):
        x = MARGIN + column * width
        canvas.text(x + width / 2, HEADING / 2, role)
        for place, band in enumerate(bands):
            where = f"{_label(band)}, {role}"
            canvas.cell(inside.get((place, column)), where, x, HEADING + place * row, width, row)
    for place, band in enumerate(bands):
        canvas.text(MARGIN - 0.1, HEADING + (place + 0.5) * row, _label(band), align="right")
    for column, role in enumerate(outer):
        x = MARGIN + column * width
        canvas.text(x + width / 2, strip - HEADING / 2, role)
        canvas.cell(outside.get(column), role, x, strip, width, ROW)
    if outer:
        canvas.text(MARGIN - 0.1, strip + ROW / 2, "elsewhere", align="right")
    _legend(canvas, height - 0.38, flagged=any(cell.flagged for cell in (*inside.values(), *outside.values())))
    title = "Relative drift by layer and kind of tensor"
    return to_svg(figure, name="heat", title=title, labels=canvas.labels, tips=canvas.tips)


def _label(band: list[int]) -> str:
    return f"layer {band[0]}" if len(band) == 1 else f"{band[0]}–{band[-1]}"


def _legend(canvas: _Canvas, y: float, *, flagged: bool) -> None:
    """Draw the scale from little to much, and what the outline means when there is one."""
    for step, fill in enumerate(HEAT):
        canvas.box(MARGIN + step * STEP, y - 0.09, STEP + 0.01, 0.18, fill=fill)
    for step, label in ((2, "1 ×"), (5, "4 ×"), (8, "16 ×")):
        canvas.text(MARGIN + (step + 0.5) * STEP, y + 0.2, label)
    canvas.text(MARGIN + 0.1 + len(HEAT) * STEP, y, "the same kind in other layers", align="left")
    if flagged:
        canvas.box(WIDTH - 2.15, y - 0.13, 0.26, 0.26, fill=SURFACE, flagged=True)
        canvas.text(WIDTH - 1.8, y, "named by a finding", align="left")
