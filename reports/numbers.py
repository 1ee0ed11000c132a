"""Writes numbers for people: counts, shares, bytes, seconds, intervals.

Rounding never flatters: a share below one never reads "100 %", and a share above zero never reads "0 %".
"""

import math
from collections.abc import Iterable

from scanner.records import Rows

_COUNT_UNITS = ("", " k", " M", " B", " T")
_BYTE_UNITS = (" B", " kB", " MB", " GB", " TB", " PB")


def number(value: float | None) -> str:
    """Return a number with four significant digits; whole numbers in full, with thousands separators.

    A number that is not whole never looks whole: 0.99995 keeps its digits, up to eight.
    """
    if value is None:
        return "not available"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    written = f"{value:.4g}"
    for digits in (6, 8):
        if float(written).is_integer() and abs(value) < 1e4:
            written = f"{value:.{digits}g}"
    return written


def count(value: int) -> str:
    """Return a count in k, M, B (10⁹) or T with three significant digits: ``22.7 M``."""
    return _scaled(value, _COUNT_UNITS)


def byte_size(value: int) -> str:
    """Return a size in decimal units with three significant digits: ``90.9 MB``."""
    return _scaled(value, _BYTE_UNITS)


def share(fraction: float) -> str:
    """Return a share of a whole as percent, rounded towards zero to two decimals: ``99.98 %``, ``< 0.01 %``."""
    if fraction >= 1.0 or fraction < -1e9:
        return "100 %" if fraction == 1.0 else f"{fraction * 100:.4g} %"
    if 0.0 < fraction < 1e-4:
        return "< 0.01 %"
    # NOTE: 0.29 * 100 is 28.999…: a hair is added before the cut, far below the second decimal.
    hundredths = math.floor(fraction * 10_000 + 1e-7)
    return f"{hundredths / 100:.2f} %" if hundredths else "0 %"


def rate(fraction: float) -> str:
    """Return a rate as percent with two significant digits, whole from ten on: ``2.0 %``, ``0.61 %``, ``14 %``."""
    percent = 100.0 * fraction
    if abs(percent) >= 9.95 or percent == 0:
        return f"{percent:,.0f} %" if abs(percent) < 1e6 else f"{percent:.2g} %"
    return f"{percent:#.2g} %"


def seconds(value: float) -> str:
    """Return a duration: ``0.8 s``, ``74 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value < 10:
        return f"{value:.1f} s"
    if value > 1e9:
        return f"{value:.3g} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def intervals(what: str, runs: Iterable[Rows], *, limit: int = 8) -> str:
    """Return half-open runs of indices as people write them, both ends included: ``rows 3, 7–9 and 4 more``."""
    written = [f"{start:,}" if end == start + 1 else f"{start:,}–{end - 1:,}" for start, end in runs]
    if not written:
        return ""
    plural = what if len(written) == 1 and "–" not in written[0] else f"{what}s"
    more = f" and {len(written) - limit:,} more" if len(written) > limit else ""
    return f"{plural} {', '.join(written[:limit])}{more}"


def _scaled(value: int, units: tuple[str, ...]) -> str:
    """Return the value in the largest unit that keeps it at or above one after rounding."""
    scaled = float(value)
    step = 0
    while abs(scaled) >= 999.5 and step < len(units) - 1:
        scaled /= 1000.0
        step += 1
    whole = step == 0 or abs(scaled) >= 99.95
    written = f"{scaled:,.0f}" if whole else f"{float(f'{scaled:.3g}'):g}"
    return f"{written}{units[step]}"
