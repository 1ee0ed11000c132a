"""Turns a matplotlib figure into an SVG that lives inside our page: themed, named, deterministic.

Figures are drawn in stand-in colours; here they become CSS variables, so that one drawing serves light, dark and
print. Text from the repository never reaches matplotlib (which would parse ``$`` as mathematics and look for missing
glyphs): artists are drawn with a placeholder, and the real text is put in through ``labels`` by their gid.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, ACCENT, FLAG, SURFACE, QUIET = (f"#0101{code:02x}" for code in range(7))
HEAT = tuple(f"#0202{code:02x}" for code in range(9))
"""Nine steps from little to much drift."""

HEAT_INK = ("#030300", "#030301")
"""Text on the weaker and on the stronger steps of ``HEAT``."""

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    ACCENT: "accent",
    FLAG: "flag",
    SURFACE: "surface",
    QUIET: "quiet",
    **{colour: f"heat-{step}" for step, colour in enumerate(HEAT)},
    HEAT_INK[0]: "heat-ink-weak",
    HEAT_INK[1]: "heat-ink-strong",
}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font(-family)?:[^;]*(;|\Z)")
_NAMESPACE = re.compile(r"\{[^}]*\}")
_IDLE_ROTATION = re.compile(r"rotate\(-?0(\.0*)? ")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that many inches; a drawing of ours never touches matplotlib's global state."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only pages with plots pay for it

    return Figure(figsize=(width, height))


def inch_axes(figure: "Figure") -> "Axes":
    """Return an invisible axis over the whole figure, in inches, with y growing downwards."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, width), ylim=(height, 0.0))
    axes.set_axis_off()
    return axes


def to_svg(
    figure: "Figure",
    *,
    name: str,
    title: str,
    labels: Mapping[str, str] | None = None,
    tips: Mapping[str, str] | None = None,
) -> Markup:
    """Return the figure as an ``<svg role="img">`` for inline use.

    Args:
        figure: drawn in the stand-in colours of this module.
        name: unique within the page; prefixes every identifier.
        title: what the figure shows, for screen readers.
        labels: gid of a text → the text to show; cleaned already, escaped here.
        tips: gid of an artist → the tooltip to show over it; likewise.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only pages with plots pay for it

    buffer = io.StringIO()
    # Text stays text (searchable, themable), and identifiers depend on the drawing alone.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hubaudit", "text.parse_math": False}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib wrote it, and no text of a stranger is in it
    _put_texts(root, labels or {}, tips or {})
    _restyle(root, name)
    heading = ET.Element("title")
    heading.text = title
    root.insert(0, heading)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "class": "plot", "aria-label": title}
    # Our own serialisation of our own tree; ElementTree escapes every text and attribute in it.
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=False))  # noqa: S704


def _put_texts(root: ET.Element, labels: Mapping[str, str], tips: Mapping[str, str]) -> None:
    """Replace placeholders by their texts and hang tooltips on artists."""
    for element in root.iter():
        gid = element.get("id", "")
        if gid in labels:
            for text in element.iter("{http://www.w3.org/2000/svg}text"):
                text.text = labels[gid]
        if gid in tips:
            tip = ET.Element("title")
            tip.text = tips[gid]
            element.insert(0, tip)


def _restyle(root: ET.Element, name: str) -> None:
    """Drop what the page must not inherit, prefix identifiers, and swap stand-in colours for variables."""
    for child in list(root):
        if child.tag.endswith("metadata") or child.find("{http://www.w3.org/2000/svg}style") is not None:
            root.remove(child)
    used = {target[1:] for element in root.iter() for key, target in element.items() if key.endswith("href")}
    used |= {
        found for element in root.iter() for value in element.attrib.values() for found in _REFERENCE.findall(value)
    }
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        element.attrib = {
            _NAMESPACE.sub("", key): _attribute(_NAMESPACE.sub("", key), value, name)
            for key, value in element.attrib.items()
            if _kept(key, value, used)
        }


def _kept(key: str, value: str, used: set[str]) -> bool:
    """Say whether an attribute stays: identifiers only when something refers to them."""
    if key == "id":
        return value in used
    return not (key == "transform" and _IDLE_ROTATION.match(value))


def _attribute(key: str, value: str, name: str) -> str:
    match key:
        case "id":
            return f"{name}-{value}"
        case "href":
            return f"#{name}-{value[1:]}"
        case "clip-path":
            return _REFERENCE.sub(rf"url(#{name}-\1)", value)
        case "style":
            plain = _FONT.sub("", value).strip()
            return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", plain)
        case _:
            return value
