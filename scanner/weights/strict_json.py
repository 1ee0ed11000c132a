"""Read JSON written by strangers: one meaning or none, and never more memory than the text deserves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Never

from scanner.paths import shown

MAX_INTEGER_DIGITS: Final = 19
"""Enough for every size and offset below 2**63."""
MAX_WIDE_BYTES: Final = 16 << 20
"""Longest text with characters beyond ASCII: a single one of them makes the parser spend four bytes on every other."""

_SHOWN_NAMES: Final = 3
_SHOWN_CHARS: Final = 80


class JsonError(ValueError):
    """The text is refused; the message continues a sentence that begins with the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLimits:
    """How much of each a text may hold, counted in its bytes (those within strings count as well)."""

    objects: int
    lists: int
    commas: int


def load_object(raw: bytes, limits: JsonLimits, *, sizes_only: bool) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        raw: the text, UTF-8 without a byte-order mark.
        limits: how much it may hold.
        sizes_only: every number is a size or an offset, hence whole and not negative.

    Raises:
        JsonError: not UTF-8 or JSON, not an object, a key twice in one object, NaN or Infinity, nesting beyond what
            the interpreter can follow, more than ``limits`` allow; with ``sizes_only`` also a number that is
            negative, fractional or over 19 digits.
    """
    if not raw.startswith(b"{"):
        raise JsonError("is not a JSON object where one is due")
    # The parser would build these before any check could see them: 100 MB of "[[],[],…" are 2 GB of lists.
    if raw.count(b"{") > limits.objects or raw.count(b"[") > limits.lists or raw.count(b",") > limits.commas:
        raise JsonError("has more entries than any real file needs")
    if len(raw) > MAX_WIDE_BYTES and not raw.isascii():
        raise JsonError(f"has a text of {len(raw):,} bytes that is not plain ASCII, longer than any real one")
    try:
        parsed: dict[str, Any] = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_int=_read_size if sizes_only else None,
            parse_float=_refuse_number if sizes_only else None,
            parse_constant=_refuse_number,
        )
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError("is not UTF-8 where it should be") from error
    except RecursionError as error:
        raise JsonError("is nested too deeply") from error
    except ValueError as error:
        raise JsonError("is not valid JSON where it should be") from error
    return parsed


def check_text(text: str) -> None:
    """Refuse lone surrogates: JSON can spell them, but no UTF-8 file or report can hold them.

    Raises:
        JsonError: there is one.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError("has half a character in a name") from error


def name_some(names: Sequence[str]) -> str:
    """The first few names, quoted and shortened, and how many more there are."""
    few = ", ".join(shown(name) for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{few} and {more:,} more" if more > 0 else few


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        last = {key: place for place, (key, _) in enumerate(pairs)}
        twice = next(key for place, (key, _) in enumerate(pairs) if last[key] != place)
        raise JsonError(f"names {shown(twice)} twice")
    return keys


def _read_size(text: str) -> int:
    if text.startswith("-") or len(text) > MAX_INTEGER_DIGITS:
        raise JsonError(f"declares the number {text[:_SHOWN_CHARS]}, which no size or offset can be")
    return int(text)


def _refuse_number(text: str) -> Never:
    raise JsonError(f"declares the number {text[:_SHOWN_CHARS]}, which no size or offset can be")
