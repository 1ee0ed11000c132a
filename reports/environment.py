"""Sets Jinja up so that forgetting to escape is not possible.

Every value that a template prints passes through a ``finalize`` function first: in HTML it is cleaned and then
escaped, in Markdown it is escaped as text. Only values that this package has marked (``Markup`` for HTML,
``MarkdownSource`` for Markdown) pass as they are. Templates are our own files, or a user's own
(``reports.template_folder``), which run in a sandbox; text from a repository is only ever a value, never a template.
An undefined name is an error.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
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
from reports.template_folder import SUFFIXES, BadTemplate, Templates, in_use, template_text
from reports.wording import spoken

UNESCAPING = ("safe", "urlize")
"""Filters that a user's template does not get, since they pass a value on as markup."""

NARROW_SPACE = "\u202f"


class MarkdownSource(str):
    """Text that is Markdown already, composed in this package."""

    __slots__ = ()


def html_environment() -> Environment:
    """Return the environment of ``*.html.jinja``; filters ``line``, ``prose``, ``advice``, ``token`` and ``figure``."""
    return _html_environment(in_use())


@lru_cache(maxsize=4)
def _html_environment(templates: Templates) -> Environment:
    environment = _environment(_finalize_html, templates, autoescape=True)
    environment.filters |= {
        "line": clean_line,
        "prose": clean_prose,
        "advice": _html_advice,
        "token": clean_token,
        "figure": _unbreakable,
    }
    return environment


def markdown_environment() -> Environment:
    """Return the environment of ``*.md.jinja``; filters ``code``, ``cell``, ``block``, ``short``, ``advice``."""
    return _markdown_environment(in_use())


@lru_cache(maxsize=4)
def _markdown_environment(templates: Templates) -> Environment:
    environment = _environment(_finalize_markdown, templates, autoescape=False)
    environment.filters |= {
        "code": _marked(markdown_code),
        "cell": _marked(markdown_cell),
        "block": _marked(_code_line),
        "short": _marked(_short_text),
        "advice": _marked(_cell_advice),
        "spoken": spoken,
    }
    return environment


def _environment(finalize: Callable[[Any], str], templates: Templates, *, autoescape: bool) -> Environment:
    kind = ImmutableSandboxedEnvironment if templates else Environment
    environment = kind(
        loader=FunctionLoader(lambda name: (template_text(name, templates), name, None)),
        undefined=StrictUndefined,
        autoescape=autoescape,  # Markdown has its own escaping, in its finalize function
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in UNESCAPING if templates else ():
        del environment.filters[name]
    return environment


def check_templates(templates: Templates) -> None:
    """Check that a user's templates can be read and switch off no escaping.

    Raises:
        BadTemplate: one of them is no template, or has a block that undoes what was escaped.
    """
    loaded: dict[str, set[str | None]] = {}
    for name, text in templates:
        if not name.endswith(SUFFIXES):
            continue
        environment = (_html_environment if name.endswith(SUFFIXES[1]) else _markdown_environment)(templates)
        try:
            tree = environment.parse(text)
            environment.compile(text)
        except TemplateSyntaxError as error:
            said = clean_line(error.message or "it cannot be read")
            raise BadTemplate(f"{name}, line {error.lineno}: {said}; correct the template.") from None
        loaded[name] = set(meta.find_referenced_templates(tree))
        for block in tree.find_all((nodes.FilterBlock, nodes.EvalContextModifier)):
            raise BadTemplate(
                f"{name}, line {block.lineno}: the blocks autoescape and filter would undo the escaping of values; "
                "write the template without them."
            )

    for name in loaded:
        _check_loading(name, loaded, ())


def _check_loading(name: str, loaded: Mapping[str, set[str | None]], path: tuple[str, ...]) -> None:
    """Check that a template loads others by their names, and never itself: that would take for ever to fail."""
    if name in path:
        raise BadTemplate(f"{name} loads itself; correct the template.")
    for other in loaded.get(name, ()):
        if other is None:
            raise BadTemplate(f"{name}: write the name of a template to load as a text, not as a value.")
        _check_loading(other, loaded, (*path, name))


def rendered(environment: Environment, name: str, /, **context: Any) -> str:
    """Return a template's text.

    Raises:
        BadTemplate: a user's template fails, or loads one that does not exist.
    """
    try:
        return environment.get_template(name).render(context)
    except BadTemplate:
        raise
    except Exception as error:
        if not in_use():
            raise
        place = _place(error) or name
        said = clean_line(str(error) or type(error).__name__)
        raise BadTemplate(f"{place}: {said}; correct the template.") from None


def _place(error: BaseException) -> str | None:
    """Return the innermost template and line that an error passed through; Jinja maps them into the traceback."""
    found = None
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        found = f"{name}, line {step.tb_lineno}" if name.endswith(SUFFIXES) else found
        step = step.tb_next
    return found


def _finalize_html(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup.escape(clean_line(str(value), limit=PROSE_LIMIT))


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
