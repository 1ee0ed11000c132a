"""Configuration files from strangers: no duplicate keys, no NaN, no bombs, or a sentence that says why not.

Weight headers and indexes have a stricter reader of their own (``scanner.weights.strict_json``): there every number is
a size, here any JSON value may stand.
"""

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
"""Nested collections; the deepest configurations in use (composed multimodal models) need about eight."""
_SHOWN_CHARS = 60
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadConfig(ValueError):  # noqa: N818
    """The text is not an acceptable JSON object; the message is the tail of a sentence about it."""


def parse_object(text: str, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse a JSON object.

    Stricter than ``json.loads``: a key given twice, NaN, the infinities (also as ``1e999``), integers beyond the
    interpreter's digit limit, lone surrogates and more than ``max_depth`` nested collections are refused, for readers
    disagree on all of them. The caller bounds the size of the text.

    Raises:
        BadConfig: with the reason.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except BadConfig:
        raise
    except json.JSONDecodeError as error:
        raise BadConfig(f"is not JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise BadConfig(f"is nested deeper than {max_depth} levels") from None
    except ValueError:
        raise BadConfig("holds an integer with too many digits") from None
    if not isinstance(value, dict):
        raise BadConfig("is not a JSON object")
    _check_values(value, max_depth)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadConfig(f"gives the key {key[:_SHOWN_CHARS]!a} twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> float:
    raise BadConfig(f"holds {name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadConfig("holds a number too large for a float")
    return value


def _check_values(value: object, max_depth: int) -> None:
    """Walk level by level, without recursion: the depth is not yet known to be harmless."""
    level, depth = [value], 0
    while level:
        if depth > max_depth:
            raise BadConfig(f"is nested deeper than {max_depth} levels")
        following: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                following.extend(item)
            elif isinstance(item, dict):
                following.extend(item.values())
                for key in item:
                    _check_text(key)
        level, depth = following, depth + 1


def _check_text(text: str) -> None:
    """JSON can spell half a character; no file and no report can hold one."""
    if not text.isascii() and _SURROGATE.search(text):
        raise BadConfig("holds half a character (a lone surrogate)")
