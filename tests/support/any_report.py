"""Hypothesis strategies for reports that the reader accepts: any text, any finite number, any length."""

import dataclasses
from typing import Any

import sample_reports
from hypothesis import strategies as st

from audit.records import AuditReport

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
INTEGER = st.integers(-(2**63) + 1, 2**63 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def reports() -> st.SearchStrategy[AuditReport]:
    """Reports of the shape of ``sample_reports.everything``, with every value drawn anew and lists cut or repeated."""
    return _like(sample_reports.everything(), "")


def _like(value: Any, name: str) -> st.SearchStrategy[Any]:
    if isinstance(value, bool) or name in sample_reports.CONTROLLED:
        return st.just(value)
    if isinstance(value, str):
        return TEXT
    if isinstance(value, int):
        return INTEGER
    if isinstance(value, float):
        return NUMBER
    if isinstance(value, dict):
        return st.dictionaries(TEXT, st.one_of(TEXT, INTEGER, NUMBER, st.none()), max_size=3)
    if isinstance(value, tuple):
        return _tuple(value, name)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _like(getattr(value, part.name), part.name) for part in dataclasses.fields(value)}
        return st.builds(type(value), **parts)
    return st.just(value)


def _tuple(value: tuple[Any, ...], name: str) -> st.SearchStrategy[Any]:
    if not value:
        return st.just(value)
    if name == "interval":
        return st.tuples(INTEGER, INTEGER)
    inner = "interval" if name in {"rows", "columns"} else ""
    least = 1 if name in {"locations", "measurements"} else 0
    # A few members of each kind are enough, and hypothesis stays quick.
    members = [_like(member, inner) for member in value[:: max(1, len(value) // 3)]]
    drawn = st.lists(st.one_of(members), min_size=least, max_size=4)
    return drawn.map(tuple)
