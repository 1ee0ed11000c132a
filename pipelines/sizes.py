"""Sizes as people type them: ``200MB``, ``64MiB``, ``1.5 GB``."""

import re
from typing import Any, Final

import click

_SIZE: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?\s*\Z", re.IGNORECASE | re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
LEAST_BYTES: Final = 1_000_000


def parse_size(text: str) -> int:
    """Return a size in bytes; MB are 10⁶ bytes, MiB 2²⁰.

    Raises:
        ValueError: it is not a size.
    """
    found = _SIZE.match(text)
    if found is None or (found[3] and not found[2]):
        raise ValueError(f"{text!r} is not a size; write for example 200MB or 64MiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])


class SizeParam(click.ParamType[int]):
    """A size of at least ``least`` bytes, as a number of bytes."""

    name = "size"

    def __init__(self, least: int = LEAST_BYTES) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or fail with a sentence."""
        if isinstance(value, int):
            return value
        try:
            size = parse_size(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if size < self.least:
            self.fail(f"{value} is too little to say anything; give at least 1MB.", param, ctx)
        return size
