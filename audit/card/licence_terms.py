"""What licences ask of derived models, from ``licences.json``: the clauses, and where they stand."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["permissive", "same", "carries", "no-derivatives"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One licence.

    ``kind`` says what may follow it: other terms (permissive), the same licence, its restrictions passed on
    (carries), or nothing modified at all. Licences of one ``group`` may follow one another. ``asks`` are words that
    must be shown, ``name_begins`` how a derived model's name has to begin, ``copy`` that a copy of the terms comes
    along, ``files`` notices to keep where they exist.
    """

    id: str
    kind: Kind
    commercial: bool
    clause: str
    source: str
    group: str
    asks: tuple[str, ...] = ()
    name_begins: str = ""
    copy: bool = False
    files: tuple[str, ...] = ()


@cache
def known_terms() -> dict[str, Terms]:
    """Every licence of the data file, by the Hub's identifier in lower case."""
    content: dict[str, Any] = json.loads(files(__package__).joinpath("licences.json").read_text(encoding="utf-8"))
    return {
        name: Terms(
            id=name,
            kind=entry["kind"],
            commercial=entry["commercial"],
            clause=entry["clause"],
            source=entry["source"],
            group=entry.get("group", name),
            asks=tuple(entry.get("asks", ())),
            name_begins=entry.get("name_begins", ""),
            copy=entry.get("copy", False),
            files=tuple(entry.get("files", ())),
        )
        for name, entry in content["licences"].items()
    }


def terms_of(name: str) -> Terms | None:
    """The terms of a licence, None for ``other`` and everything that is not in the file."""
    return known_terms().get(name.strip().lower())
