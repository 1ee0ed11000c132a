"""Reads the front matter of a model card: plain values, bounded, never rendered.

The *front matter* is the YAML between the first two ``---`` lines of README.md. Cards come from strangers: size,
nesting, aliases and number of values are bounded before anything is built, and a card that breaks a bound is one
with a ``problem``, not a crash.
"""

import re
from collections.abc import Iterator
from typing import Any

from scanner.plain_yaml import MAX_BYTES, BadYaml, load_mapping
from scanner.records import CardFacts

MAX_BASE_MODELS = 100
MAX_NAME_CHARS = 300
"""Characters kept of a declared base or relation; Hub ids have at most 96 per half."""
_LINE_END = re.compile(r"\r\n|\n|\r")


def parse_card(text: str) -> CardFacts:
    """Read the facts of a model card.

    ``metadata`` is None without front matter and when it is broken; then ``problem`` is one sentence. It may
    also accompany usable metadata (a junk entry in ``base_model``, a key given twice). Never raises.
    """
    try:
        front = _front_matter(text)
        if front is None:
            return CardFacts(text=text)
        metadata, repeated = load_mapping(front)
    except BadYaml as error:
        return CardFacts(text=text, problem=f"The card's front matter {error}.")
    notes = [f"The card gives {', '.join(map(repr, repeated))} more than once; the last is used."] if repeated else []
    bases, base_notes = _base_models(metadata.get("base_model"))
    relation, relation_notes = _relation(metadata.get("base_model_relation"))
    notes = [*notes, *base_notes, *relation_notes]
    return CardFacts(
        text=text,
        metadata=metadata,
        base_models=bases,
        relation=relation,
        problem=" ".join(notes) or None,
    )


def _front_matter(text: str) -> str | None:
    """The text between the first two ``---`` lines; None when the card does not begin with one."""
    body = text.removeprefix("\ufeff").lstrip()
    lines = _lines(body)
    if next(lines)[1].rstrip() != "---":
        return None
    start = None
    for begin, line in lines:
        start = begin if start is None else start
        if line.rstrip() == "---":
            return body[start:begin]
        if begin - start > MAX_BYTES:
            raise BadYaml(f"is larger than {MAX_BYTES:,} bytes")
    raise BadYaml("is not closed by a second '---' line")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (start, line), split at LF, CRLF and CR only, as the Hub does; other separators are content."""
    start = 0
    for end in _LINE_END.finditer(text):
        yield start, text[start : end.start()]
        start = end.end()
    yield start, text[start:]


def _base_models(value: Any) -> tuple[tuple[str, ...], list[str]]:
    """The declared bases in the card's order, and notes about entries that are not names."""
    if value is None:
        return (), []
    entries = value if isinstance(value, list) else [value]
    notes = []
    if len(entries) > MAX_BASE_MODELS:
        notes.append(f"The card declares {len(entries):,} base models; the first {MAX_BASE_MODELS} are read.")
    entries = entries[:MAX_BASE_MODELS]
    names = [entry.strip() for entry in entries if isinstance(entry, str)]
    usable = tuple(dict.fromkeys(name for name in names if 0 < len(name) <= MAX_NAME_CHARS))
    if len(names) < len(entries) or not all(0 < len(name) <= MAX_NAME_CHARS for name in names):
        notes.append("The card's base_model holds something that is not the name of a model.")
    return usable, notes


def _relation(value: Any) -> tuple[str | None, list[str]]:
    """The declared relation in lower case, and a note when it is not a word."""
    if value is None:
        return None, []
    if isinstance(value, str) and 0 < len(value.strip()) <= MAX_NAME_CHARS:
        return value.strip().lower(), []
    return None, ["The card's base_model_relation is not a word."]
