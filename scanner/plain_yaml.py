"""Loads YAML from strangers: plain values, bounded in size, depth and number, without tags that build objects."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

MAX_BYTES = 1 << 20
"""UTF-8 bytes of one document; the front matter of the largest cards (long result tables) stays below."""
MAX_DEPTH = 50
"""Nested collections; ``model-index``, the deepest known field of a card, needs eight."""
MAX_VALUES = 100_000
"""YAML nodes after every alias is expanded: stops alias bombs."""
_REASON_CHARS = 200

# What PyYAML's safe constructor is known to raise on hostile scalars, besides its own errors:
# ``!!timestamp x`` AttributeError, ``!!bool x`` KeyError, ``!!int x`` and 5,000-digit integers ValueError.
_YAML_FAILURES = (
    yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_SafeLoader):  # type: ignore[misc]
    """The safe loader, with dates left as the text that the author wrote."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and form that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in entries if tag != "tag:yaml.org,2002:timestamp"]
        for first, entries in _SafeLoader.yaml_implicit_resolvers.items()
    }


class BadYaml(ValueError):  # noqa: N818
    """The text cannot be used; the message completes "the front matter …"."""


def load_mapping(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the mapping that a YAML text holds, and the top-level keys that it gives more than once.

    Values are dicts with text keys, lists, text, finite numbers, booleans and None: dates and non-finite numbers stay
    text, aliases become copies, of a repeated key the last value counts. An empty text is an empty mapping.

    Raises:
        BadYaml: it is not YAML, not a mapping, or breaks a bound.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise BadYaml(f"is larger than {MAX_BYTES:,} bytes")
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=_PlainLoader)
        if root is None:
            return {}, ()
        _check_expansion(root)
        values: dict[str, Any] = _plain(yaml.load(text, Loader=_PlainLoader))  # noqa: S506  # a SafeLoader
    except BadYaml:
        raise
    except _YAML_FAILURES as error:
        raise BadYaml(f"is not valid YAML: {_reason(error)}") from error
    return values, tuple(_repeated_keys(root))


def _reason(error: Exception) -> str:
    """One printable, bounded line; the parser's own message quotes what it choked on."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = f"{problem} (line {mark.line + 1})" if mark is not None and problem else str(error) or type(error).__name__
    printable = "".join(char if char.isprintable() else " " for char in text[: 2 * _REASON_CHARS])
    return " ".join(printable.split())[:_REASON_CHARS]


def _check_events(text: str) -> None:
    """Bound depth and number of nodes before the recursive composer sees the text."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_PlainLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise BadYaml("is nested too deeply or holds too many values")


def _check_expansion(root: yaml.Node) -> None:
    """Bound what the document becomes once every alias is expanded.

    Raises:
        BadYaml: it is no mapping, has more than ``MAX_VALUES`` nodes, or a value that contains itself.
    """
    if not isinstance(root, yaml.MappingNode):
        raise BadYaml("is not a mapping of keys to values")
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in sizes:
            return sizes[key]
        if key in open_nodes or len(open_nodes) > MAX_DEPTH:
            raise BadYaml("holds a value inside itself, or nests too deeply")
        open_nodes.add(key)
        total = 1 + sum(size(child) for child in _children(node))
        open_nodes.discard(key)
        if total > MAX_VALUES:
            raise BadYaml("expands to too many values")
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
                raise BadYaml("holds a number of more than 64 bits")
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
