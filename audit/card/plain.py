"""Card values as short plain text: front matter is YAML from strangers, so anything may stand where a word should."""

from typing import Any

LIMIT = 200
"""Characters of a declared value that are kept; enough to recognise it, too few to flood a report."""


def words(value: Any) -> tuple[str, ...]:
    """The strings in a value that is a string or a list; numbers count, everything else is left out."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(
        text
        for item in values
        if isinstance(item, str | int | float) and not isinstance(item, bool) and (text := short(str(item)))
    )


def short(text: str) -> str:
    """The text without surrounding space, cut to ``LIMIT`` characters."""
    text = text.strip()
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"


def joined(values: tuple[str, ...]) -> str:
    """Several values on one line, cut to ``LIMIT`` characters."""
    return short(", ".join(values))
