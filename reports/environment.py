"""Sets Jinja up so that forgetting to escape is not possible.

Every value that a template prints passes through a ``finalize`` function first: in HTML it is cleaned and then
escaped, in Markdown it is escaped as text. Only values that this package has marked (``Markup`` for HTML,
``MarkdownSource`` for Markdown) pass as they are. Templates are our own files; text from a repository is only ever a
value, never a template. An undefined name is an error.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.safe_text import (
    PROSE_LIMIT,
    clean_line,
    clean_prose,
    clean_token,
    code_parts,
    defuse_comments,
    markdown_cell,
    markdown_code,
    markdown_text,
)
from reports.wording import spoken

NARROW_SPACE = "\u202f"


class MarkdownSource(str):
    """Text that is Markdown already, composed in this package."""

    __slots__ = ()


@lru_cache(maxsize=1)
def html_environment() -> Environment:
    """Return the environment of ``*.html.jinja``; filters ``line``, ``prose``, ``advice``, ``token`` and ``figure``."""
    environment = _environment(_finalize_html, autoescape=True)
    environment.filters |= {
        "line": clean_line,
        "prose": clean_prose,
        "advice": _html_advice,
        "token": clean_token,
        "figure": _unbreakable,
    }
    return environment


@lru_cache(maxsize=1)
def markdown_environment() -> Environment:
    """Return the environment of ``*.md.jinja``; filters ``code``, ``cell``, ``block``, ``short``, ``advice``."""
    environment = _environment(_finalize_markdown, autoescape=False)
    environment.filters |= {
        "code": _marked(markdown_code),
        "cell": _marked(markdown_cell),
        "block": _marked(_code_line),
        "short": _marked(_short_text),
        "advice": _marked(_cell_advice),
        "spoken": spoken,
    }
    return environment


def _environment(finalize: Callable[[Any], str], *, autoescape: bool) -> Environment:
    return Environment(
        loader=FunctionLoader(_read_template),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - Markdown has its own escaping, in its finalize function
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _read_template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _finalize_html(value: Any) -> str:
    return value if isinstance(value, Markup) else clean_line(str(value), limit=PROSE_LIMIT)


def _finalize_markdown(value: Any) -> str:
    return value if isinstance(value, MarkdownSource) else markdown_text(str(value))


def _unbreakable(text: str) -> Markup:
    """Keep a figure and its unit on one line."""
    return Markup.escape(clean_line(text).replace(" ", NARROW_SPACE))


def _html_advice(text: str) -> Markup:
    """Return our own prose, in which commands stand between backticks; the rest of it may be anybody's."""
    form = Markup("<code>{}</code>")
    return Markup("").join(form.format(part) if code else part for code, part in code_parts(clean_prose(text)))


def _cell_advice(text: str) -> str:
    """Return the same for a cell of a Markdown table."""
    parts = code_parts(clean_prose(text, limit=1000))
    return " ".join(markdown_cell(part) if code else markdown_text(part) for code, part in parts)


def _marked(function: Callable[[str], str]) -> Callable[[str], MarkdownSource]:
    return lambda text: MarkdownSource(function(text))


def _code_line(text: str) -> str:
    """Return one line for a fenced block; a line that starts with a command cannot close the fence."""
    return defuse_comments(clean_line(text, limit=PROSE_LIMIT))


def _short_text(text: str) -> str:
    return markdown_text(text, limit=400)
