"""Names of owners that are nearly another owner's: the same to a quick eye, or one letter apart.

Namespaces of the Hub are ASCII and do not differ by case alone, so look-alikes are made of digits for letters,
separators, doubled or swapped letters, and words that promise authenticity.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, Literal

Likeness = Literal["the same to a quick eye", "one letter apart"]

_CONFUSABLE: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "3": "e", "8": "b", "9": "g", "2": "z"})
_PROMISES: Final = ("official", "original", "verified", "real")
_SEPARATORS: Final = re.compile(r"[-_.]+")


@cache
def known_owners() -> tuple[str, ...]:
    """The owners in ``audit/owners.json``, in their own spelling."""
    return tuple(json.loads(files("audit").joinpath("owners.json").read_text(encoding="utf-8"))["owners"])


def likeness(owner: str, known: str, *, least_chars: int) -> Likeness | None:
    """Say how a name resembles another; None when it does not, or is that name itself (case does not count).

    Args:
        owner: the name in question.
        known: the name that it may be meant to be taken for.
        least_chars: names with fewer letters and digits are one edit apart by chance and are only compared by looks.
    """
    if owner.casefold() == known.casefold():
        return None
    one, other = _skeleton(owner), _skeleton(known)
    if one == other or _without_promise(owner) == other:
        return "the same to a quick eye"
    if min(len(one), len(other)) >= least_chars and _is_one_edit(_plain(owner), _plain(known)):
        return "one letter apart"
    return None


def nearest(owner: str, names: Iterable[str], *, least_chars: int) -> tuple[str, Likeness] | None:
    """The first name that an owner resembles; None when it is itself among the names."""
    listed = list(dict.fromkeys(names))
    if owner.casefold() in {name.casefold() for name in listed}:
        return None
    found = [(name, how) for name in listed if (how := likeness(owner, name, least_chars=least_chars))]
    return min(found, key=lambda item: item[1] != "the same to a quick eye", default=None)


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.casefold())


def _skeleton(name: str) -> str:
    """What a quick eye sees: no separators, digits read as letters, ``rn`` as m and ``vv`` as w."""
    return _plain(name).translate(_CONFUSABLE).replace("rn", "m").replace("vv", "w")


def _without_promise(name: str) -> str:
    parts = [part for part in _SEPARATORS.split(name.casefold()) if part not in _PROMISES]
    return _skeleton("-".join(parts)) if len(parts) < len(_SEPARATORS.split(name)) else ""


def _is_one_edit(one: str, other: str) -> bool:
    """One insertion, deletion, substitution or swap of neighbours (Damerau 1964)."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    left, right = one[start:], other[start:]
    if len(left) == len(right):
        return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    return longer[1:] == shorter
