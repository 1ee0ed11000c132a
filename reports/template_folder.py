"""Reads a user's own templates, which take the place of ours: a folder with files named as in ``reports/templates``.

Such a template is trusted with the form of a document, not with more: it runs in Jinja's sandbox, sees the values that
ours see, and loads nothing but templates of its folder and ours. Values stay escaped (``reports.environment``); what
would switch that off is refused. Everything that is wrong with a template is one sentence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from reports.safe_text import clean_line
from scanner.errors import BadReference

MAX_TEMPLATE_BYTES = 1 << 20
MAX_TEMPLATES = 100
SUFFIXES = (".md.jinja", ".html.jinja")
STYLE_SHEET = "report.css"

Templates = tuple[tuple[str, str], ...]
"""Names and texts, sorted by name; hashable, so that environments can be kept per set of templates."""

_IN_USE: ContextVar[Templates] = ContextVar("hubaudit_templates", default=())


class BadTemplate(BadReference):
    """A user's template cannot be used; the sentence names file and line."""


def read_templates(folder: Path) -> Templates:
    """Read the templates of a folder; other files, and folders below it, are ignored.

    Raises:
        BadTemplate: no file there takes the place of one of ours, or one is too large or not UTF-8.
        OSError: the folder or a file cannot be read.
    """
    ours = [entry.name for entry in files(__package__).joinpath("templates").iterdir()]
    wanted = [
        path for path in sorted(folder.iterdir()) if path.is_file() and path.name.endswith((*SUFFIXES, STYLE_SHEET))
    ]
    if len(wanted) > MAX_TEMPLATES:
        raise BadTemplate(f"{folder} holds more than {MAX_TEMPLATES} templates; keep those that replace ours.")
    if not any(path.name in ours for path in wanted):
        near = [name for path in folder.iterdir() for name in get_close_matches(path.name, ours, n=1, cutoff=0.6)]
        hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(sorted(ours))}."
        raise BadTemplate(f"{folder} holds no template that takes the place of one of ours; {hint}")
    return tuple((path.name, _text(path)) for path in wanted)


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        raise BadTemplate(f"{path} is larger than {MAX_TEMPLATE_BYTES:,} bytes; a template is a page of text.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadTemplate(f"{path} is not UTF-8; save it as UTF-8.") from None


@contextmanager
def templates_of(folder: Path | None) -> Iterator[None]:
    """Render with the templates of a folder, where it has them, until the block ends; None changes nothing.

    Raises:
        BadTemplate: the folder cannot be used, or a template in it has a mistake.
        OSError: it cannot be read.
    """
    from reports.environment import check_templates  # noqa: PLC0415 - the environments are built from what is in use

    templates = read_templates(folder) if folder is not None else ()
    check_templates(templates)
    token = _IN_USE.set(templates or _IN_USE.get())
    try:
        yield
    finally:
        _IN_USE.reset(token)


def in_use() -> Templates:
    """Return the user's templates, none by default."""
    return _IN_USE.get()


def template_text(name: str, templates: Templates = ()) -> str:
    """Return a template or the style sheet: the user's, or else ours.

    Raises:
        BadTemplate: there is neither.
    """
    own = dict(templates)
    if name in own:
        return own[name]
    resource = files(__package__).joinpath("templates", name)
    if "/" in name or "\\" in name or not resource.is_file():
        raise BadTemplate(f"There is no template {clean_line(name)!r}, neither in your folder nor among ours.")
    return resource.read_text(encoding="utf-8")
