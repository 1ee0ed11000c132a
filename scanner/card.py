"""Reads the front matter of a model card: plain values, bounded, never rendered.

The *front matter* is the YAML between the first two ``---`` lines of README.md. Cards come from strangers: size,
nesting, aliases and number of values are bounded before anything is built, and a card that breaks a bound is one
with a ``problem``, not a crash.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from scanner.records import CardFacts

MAX_FRONT_MATTER_BYTES = 1 << 20
"""UTF-8 bytes; the largest cards in the wild (long result tables) stay below this."""
MAX_DEPTH = 50
"""Nested collections; ``model-index``, the deepest known field, needs eight."""
MAX_VALUES = 200_000
"""YAML nodes after every alias is expanded: stops alias bombs."""
MAX_BASE_MODELS = 100
MAX_NAME_CHARS = 300
"""Characters kept of a declared base or relation; Hub ids have at most 96 per half."""
_PROBLEM_CHARS = 200
_LINE_END = re.compile(r"\r\n|\n|\r")

# What PyYAML's safe constructor is known to raise on hostile scalars, besides its own errors:
# ``!!timestamp x`` AttributeError, ``!!bool x`` KeyError, ``!!int x`` and 5,000-digit integers ValueError.
_YAML_FAILURES = (
    yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CardLoader(_SafeLoader):  # type: ignore[misc]
    """The safe loader, with dates left as the text that the author wrote."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and form that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in entries if tag != "tag:yaml.org,2002:timestamp"]
        for first, entries in _SafeLoader.yaml_implicit_resolvers.items()
    }


class _BrokenCard(ValueError):  # noqa: N818
    """The front matter cannot be used; the message says why."""


def parse_card(text: str) -> CardFacts:
    """Read the facts of a model card.

    ``metadata`` is None without front matter and when it is broken; then ``problem`` is one sentence. It may
    also accompany usable metadata (a junk entry in ``base_model``, a key given twice). Never raises.
    """
    try:
        front = _front_matter(text)
        if front is None:
            return CardFacts(text=text)
        metadata, notes = _load(front)
    except _BrokenCard as broken:
        return CardFacts(text=text, problem=str(broken))
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
        if begin - start > MAX_FRONT_MATTER_BYTES:
            raise _BrokenCard(f"The card's front matter is larger than {MAX_FRONT_MATTER_BYTES:,} bytes.")
    raise _BrokenCard("The card's front matter is not closed by a second '---' line.")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (start, line), split at LF, CRLF and CR only, as the Hub does; other separators are content."""
    start = 0
    for end in _LINE_END.finditer(text):
        yield start, text[start : end.start()]
        start = end.end()
    yield start, text[start:]


def _load(front: str) -> tuple[dict[str, Any], list[str]]:
    """Parse front matter into plain values, and notes about what is odd in it.

    Raises:
        _BrokenCard: it is not YAML, not a mapping, or breaks a bound.
    """
    if len(front.encode("utf-8", "surrogatepass")) > MAX_FRONT_MATTER_BYTES:
        raise _BrokenCard(f"The card's front matter is larger than {MAX_FRONT_MATTER_BYTES:,} bytes.")
    try:
        _check_events(front)
        root = yaml.compose(front, Loader=_CardLoader)
        if root is None:
            return {}, []
        _check_expansion(root)
        repeated = _repeated_keys(root)
        values = _plain(yaml.load(front, Loader=_CardLoader))  # noqa: S506  # a SafeLoader with fewer resolvers
    except _BrokenCard:
        raise
    except _YAML_FAILURES as error:
        reason = " ".join(str(error).split())[:_PROBLEM_CHARS] or type(error).__name__
        raise _BrokenCard(f"The card's front matter is not valid YAML: {reason}.") from error
    notes = [f"The card gives {', '.join(map(repr, repeated))} more than once; the last is used."]
    return values, notes if repeated else []


def _check_events(front: str) -> None:
    """Bound depth and number of nodes before the recursive composer sees the text."""
    depth = 0
    for count, event in enumerate(yaml.parse(front, Loader=_CardLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > 2 * MAX_VALUES:
            raise _BrokenCard("The card's front matter is nested too deeply or holds too many values.")


def _check_expansion(root: yaml.Node) -> None:
    """Bound what the document becomes once every alias is expanded.

    Raises:
        _BrokenCard: it is no mapping, has more than ``MAX_VALUES`` nodes, or a value that contains itself.
    """
    if not isinstance(root, yaml.MappingNode):
        raise _BrokenCard("The card's front matter is not a mapping of keys to values.")
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in sizes:
            return sizes[key]
        if key in open_nodes or len(open_nodes) > MAX_DEPTH:
            raise _BrokenCard("The card's front matter holds a value inside itself, or nests too deeply.")
        open_nodes.add(key)
        total = 1 + sum(size(child) for child in _children(node))
        open_nodes.discard(key)
        if total > MAX_VALUES:
            raise _BrokenCard("The card's front matter expands to too many values.")
        sizes[key] = total
        return total

    size(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _repeated_keys(root: yaml.Node) -> list[str]:
    """Top-level keys that stand more than once (five at most): readers disagree on which one counts."""
    names = Counter(key.value[:40] for key, _ in root.value if isinstance(key, yaml.ScalarNode))
    return sorted(name for name, times in names.items() if times > 1)[:5]


def _plain(value: Any) -> Any:
    """Copy YAML values into dicts, lists, text, finite numbers, booleans and None; aliases become copies."""
    match value:
        case None | bool() | str():
            return value
        case int():
            if value.bit_length() > 64:
                raise _BrokenCard("The card's front matter holds a number of more than 64 bits.")
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(_plain(key)): _plain(item) for key, item in value.items()}
        case set():
            return sorted(str(_plain(item)) for item in value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return value.decode("utf-8", "replace")
        case _:
            return str(value)


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
