"""Draws the quantiles of how far dimensions moved, divided by what their curvature leads to expect, against their law.

Sizes are in inches, text sizes in points. A report may hold any numbers: what cannot be drawn is left out.
"""

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from audit.curvature_fields import CurvaturePlot
from reports.numbers import number
from reports.svg import ACCENT, GRID, INK, MUTED, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.7, 3.9
NAMES = {
    "fitted": "δ²/H^γ, γ fitted in each tensor",
    "delta2_over_H": "δ²/H",
    "delta2_over_sqrtH": "δ²/√H",
    "delta2": "δ² alone",
}
_LEAST, _MOST = -6.0, 6.0
"""Decades drawn."""
_MARKS = 24
_MARKERS = {"fitted": "", "delta2_over_H": "s", "delta2_over_sqrtH": "^", "delta2": "o"}


def quantile_figure(plots: tuple[CurvaturePlot, ...], *, name: str) -> Markup | None:
    """Draw measured quantiles over those of the law, both as multiples of k, on logarithmic axes.

    The diagonal is the law; the fitted form is drawn as a line, the others by sparse marks beside it.

    Args:
        plots: of the indicators, in any order.
        name: unique within the page.
    """
    drawable = [(plot, points) for plot in plots if plot.indicator in NAMES and (points := _points(plot))]
    if not drawable:
        return None
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_axes((0.16, 0.125, 0.82, 0.855))
    xs_all, ys_all = ([point[axis] for _, points in drawable for point in points] for axis in (0, 1))
    left, right = math.floor(min(xs_all)), math.ceil(max(xs_all))
    low, high = math.floor(min(ys_all)), math.ceil(max(ys_all))
    axes.set(xlim=(left, right), ylim=(low, high + 0.35 * (high - low)))  # room for the legend
    axes.plot([left, right], [left, right], color=GRID, linewidth=1.6)
    labels: dict[str, str] = {}
    for place, (plot, points) in enumerate(drawable):
        fitted = plot.indicator == "fitted"
        colour = ACCENT if fitted else (MUTED if plot.indicator == "delta2" else INK)
        xs, ys = zip(*points, strict=True)
        marker = _MARKERS[plot.indicator]
        if fitted:
            axes.plot(xs, ys, color=colour, linewidth=2.2, zorder=3)
        else:
            axes.plot(
                xs,
                ys,
                color=colour,
                linewidth=0,
                marker=marker,
                markersize=3.2,
                markevery=_sparse(xs),
                fillstyle="none",
            )
        height = 0.96 - 0.065 * place
        axes.plot(
            [0.035, 0.085] if fitted else [0.06],
            [height] * (2 if fitted else 1),
            color=colour,
            linewidth=2.2 if fitted else 0,
            marker=marker,
            markersize=4,
            fillstyle="none",
            transform=axes.transAxes,
        )
        text = f"{NAMES[plot.indicator]}: tail {number(float(f'{plot.inflation:.2g}'))} × the law's"
        axes.text(
            0.11, height, "x" * len(text), transform=axes.transAxes, va="center_baseline", size=9.0, color=INK,
            gid=f"{name}{place}",
        )  # fmt: skip
        labels[f"{name}{place}"] = text
    _dress(axes, (left, right), (low, high))
    title = "Quantiles of the change against their law"
    return to_svg(figure, name=name, title=title, labels=labels)


def _points(plot: CurvaturePlot) -> list[tuple[float, float]]:
    """The quantiles that lie within the drawing, as decimal logarithms (law, measured)."""
    pairs = zip(plot.law, plot.measured, strict=False)
    logs = [(math.log10(x), math.log10(y)) for x, y in pairs if x > 0 and y > 0]
    return [(x, y) for x, y in logs if _LEAST < x < _MOST and _LEAST < y < _MOST]


def _sparse(values: tuple[float, ...]) -> list[int]:
    """Places of ascending values that lie a little apart, the last one among them."""
    kept = [0]
    apart = (values[-1] - values[0]) / _MARKS
    for place, value in enumerate(values):
        if value - values[kept[-1]] >= apart:
            kept.append(place)
    return kept if kept[-1] == len(values) - 1 else [*kept, len(values) - 1]


def _dress(axes: "Axes", across: tuple[int, int], up: tuple[int, int]) -> None:
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(color=GRID, labelcolor=MUTED, labelsize=9.0, length=3.0)
    for (low, high), put in ((across, axes.set_xticks), (up, axes.set_yticks)):
        ticks = list(range(low, high + 1, max(1, math.ceil((high - low) / 6))))
        put(ticks, [f"{10.0**tick:g}" for tick in ticks])
    axes.set_ylabel("measured quantile, each tensor over its k", color=MUTED, size=9.0)
    axes.set_xlabel("quantile of the law, χ² with one degree of freedom", color=MUTED, size=9.0)
