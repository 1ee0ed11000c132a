"""Puts one line into a card's metadata: the verdict, its date, and where the report is. As text, never re-serialised.

The line is inserted before the closing ``---``, or replaced where it is ours already; every other byte stays, so
comments, line ends, a byte order mark and the form of numbers survive. The result is then read as the Hub would read
it: unless it says exactly what the card said before and our line besides, nothing is changed.
"""

import re
from dataclasses import dataclass

from audit.records import AuditReport, Outcome
from scanner.card import parse_card
from scanner.errors import BadReference, CouldNotConclude

KEY = "hubaudit"
URL_CHARS = 500

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_OURS = re.compile(
    rb'hubaudit: \{verdict: "[a-z]+", date: "(\d{4}-\d\d-\d\d)?"(?:, report: "[^"\\\r\n]*")?\}[ \t]*(?:\r\n|\n|\r)'
)
_DATE = re.compile(rb'(?m)^(hubaudit: \{verdict: "[a-z]+", date: ")\d{4}-\d\d-\d\d"')
_URL = re.compile(r"https://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+")
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)T", re.ASCII)


class FrontMatterKept(CouldNotConclude):
    """The metadata was left as it is; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the line says. ``date`` is the day of the audit (ISO 8601, UTC); ``report`` an address, or None."""

    verdict: Outcome
    date: str
    report: str | None = None

    def values(self) -> dict[str, str]:
        """Return the value of the key, as YAML readers see it."""
        return {"verdict": self.verdict, "date": self.date} | ({"report": self.report} if self.report else {})

    def line(self) -> bytes:
        """Return the line without its end."""
        parts = ", ".join(f'{name}: "{value}"' for name, value in self.values().items())
        return f"{KEY}: {{{parts}}}".encode("ascii")


def entry_of(report: AuditReport, *, url: str | None = None) -> Entry:
    """Return the entry for a report.

    Raises:
        BadReference: ``url`` is no plain https address.
    """
    if url is not None and not (_URL.fullmatch(url) and len(url) <= URL_CHARS):
        raise BadReference("The address of the report is not a plain https:// address; write it without spaces.")
    day = _DAY.match(report.created_at)
    return Entry(verdict=report.verdict.outcome, date=day[1] if day else "", report=url)


def with_entry(readme: bytes, entry: Entry) -> bytes:
    """Return the README with the line in its metadata; doing it twice changes nothing.

    Raises:
        FrontMatterKept: there is no metadata block, it is broken or in a form that a line cannot be added to, or it
            has a key of that name which is not ours.
    """
    before = _metadata(readme)
    start, end = _block(readme)
    lines = [(found.start(), found.end()) for found in _LINE.finditer(readme, start, end) if found[0]]
    ours = [(first, last) for first, last in lines if _OURS.fullmatch(readme, first, last)]
    if KEY in before and not ours:
        raise FrontMatterKept(f"The card's metadata has a key {KEY} that is not ours, so it was left as it is.")
    eol = _line_end(readme)
    first, last = ours[-1] if ours else (end, end)
    after = readme[:first] + entry.line() + eol + readme[last:]
    if _metadata(after) != before | {KEY: entry.values()}:
        raise FrontMatterKept("A line cannot be added to the card's metadata as it is written, so it was left alone.")
    return after


def has_entry(readme: bytes) -> bool:
    """Whether the metadata holds a line of ours, which must not grow stale."""
    try:
        before, (start, end) = _metadata(readme), _block(readme)
    except FrontMatterKept:
        return False
    lines = (found[0] for found in _LINE.finditer(readme, start, end))
    return KEY in before and any(_OURS.fullmatch(line) for line in lines)


def undated(readme: bytes) -> bytes:
    """Return the README without the date of our line, to be compared: another date alone is no news."""
    return _DATE.sub(rb'\1"', readme)


def _metadata(readme: bytes) -> dict[str, object]:
    try:
        card = parse_card(readme.decode("utf-8"))
    except UnicodeDecodeError:
        raise FrontMatterKept("README.md is not UTF-8, so its metadata was left as it is.") from None
    if card.metadata is None:
        why = card.problem or "The card has no metadata block."
        raise FrontMatterKept(f"{why} It was left as it is.")
    return dict(card.metadata)


def _block(readme: bytes) -> tuple[int, int]:
    """Return where the text between the two ``---`` lines is, in bytes (half-open)."""
    start = None
    for found in _LINE.finditer(readme):
        line = found[0].removeprefix(b"\xef\xbb\xbf") if found.start() == 0 else found[0]
        if line.strip() == b"---" and (start is not None or line.startswith(b"---")):
            if start is not None:
                return start, found.start()
            start = found.end()
        elif start is None and line.strip():
            break
        if found.end() == len(readme):
            break
    raise FrontMatterKept("The card's metadata does not stand between two lines of ---, so it was left as it is.")


def _line_end(readme: bytes) -> bytes:
    found = re.search(rb"\r\n|\n|\r", readme)
    return found[0] if found else b"\n"
