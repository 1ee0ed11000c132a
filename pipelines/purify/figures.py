"""The figure of Fine-purifying beside the log: the suspicion r of the dimensions against the law of clean ones.

Zhang et al. 2023: without poison r follows Γ(shape ½, scale 2k), a straight line here; what lies above it drifted
further than clean training explains. An axis is logarithmic, since r spans many decades.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FIGURE_FILE: Final = "purification-qq.svg"
_WIDTH, _HEIGHT = 4.7, 3.6  # inches
_INK, _LAW, _POINT = "#444444", "#888888", "#1f5f9f"  # read on light and dark grounds alike


def find_qq(log: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The QQ data of a method's log, or of the first step that has some; None when there are none to draw."""
    for each in _logs(log):
        data = each.get("qq")
        if isinstance(data, Mapping) and data.get("empirical") and data.get("gamma"):
            return data
    return None


def write_qq(folder: Path, log: Mapping[str, Any]) -> Path | None:
    """Draw the QQ plot of a method's log as ``FIGURE_FILE`` in a folder; None, and no file, without its data."""
    data = find_qq(log)
    if data is None:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure

    law, seen = data["gamma"], data["empirical"]
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log")
    axes.plot(law, law, color=_LAW, linewidth=1, label="the law of clean drift")
    axes.plot(law, seen, ".", color=_POINT, markersize=4, label="measured, 1 % to 99 %")
    axes.set_xlabel("r by Γ(½, 2k), k from the median", color=_INK)
    axes.set_ylabel("r of the model's dimensions", color=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.spines[:].set_color(_LAW)
    axes.legend(frameon=False, labelcolor=_INK)
    path = folder / FIGURE_FILE
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hubaudit"}):
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return path


def _logs(log: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield log
    yield from (step for step in log.get("steps", ()) if isinstance(step, Mapping))
