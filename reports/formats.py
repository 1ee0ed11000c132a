"""The table of renderers: every format that a report can be written in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from audit.records import AuditReport
from reports.json_v1 import dump
from reports.markdown import card_section
from reports.page import render_page
from reports.safe_text import clean_line
from reports.sarif import render_sarif
from reports.summary import render_summary
from reports.table import render_table
from scanner.errors import BadReference


class UnknownFormat(BadReference):
    """There is no format of that name; something mistyped, so the exit code is that of ``BadReference``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """A format: its name on the command line, the usual suffix of its files, its media type, and its function."""

    name: str
    suffix: str
    media_type: str
    render: Callable[[AuditReport], str]


def _json(report: AuditReport) -> str:
    return dump(report).decode("ascii")


def _cyclonedx(report: AuditReport) -> str:
    # Its library takes longer to import than all other formats take to render.
    from reports.cyclonedx import render_cyclonedx  # noqa: PLC0415

    return render_cyclonedx(report)


RENDERERS: Mapping[str, Renderer] = MappingProxyType(
    {
        renderer.name: renderer
        for renderer in (
            Renderer(name="table", suffix=".txt", media_type="text/plain", render=render_table),
            Renderer(name="json", suffix=".json", media_type="application/json", render=_json),
            Renderer(name="markdown", suffix=".md", media_type="text/markdown", render=card_section),
            Renderer(name="html", suffix=".html", media_type="text/html", render=render_page),
            Renderer(name="sarif", suffix=".sarif", media_type="application/sarif+json", render=render_sarif),
            Renderer(name="summary", suffix=".md", media_type="text/markdown", render=render_summary),
            Renderer(
                name="cyclonedx",
                suffix=".cdx.json",
                media_type="application/vnd.cyclonedx+json",
                render=_cyclonedx,
            ),
        )
    }
)


def renderer(name: str) -> Renderer:
    """Return the renderer of that name.

    Raises:
        UnknownFormat: there is none; the message suggests the nearest.
    """
    if name in RENDERERS:
        return RENDERERS[name]
    near = get_close_matches(name.lower(), RENDERERS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RENDERERS)}."
    raise UnknownFormat(f"There is no format {clean_line(name, limit=40)!r}; {hint}")


def render(report: AuditReport, name: str, *, colour: bool = False) -> str:
    """Return the report in that format; ``colour`` applies to the terminal table alone.

    Raises:
        UnknownFormat: there is no format of that name.
        ReportFormatError: the report cannot be written as JSON.
    """
    if name == "table":
        return render_table(report, colour=colour)
    return renderer(name).render(report)
