"""Puts our section into a README, and takes it out again, without touching a byte of anything else.

The section stands between two markers, each alone on its line. Where the markers are damaged there is no telling
whose text is whose, so nothing is guessed: the caller gets an error that names the line.
"""

import re
from typing import AnyStr

from scanner.errors import CouldNotConclude

BEGIN = "<!-- hubaudit:begin -->"
END = "<!-- hubaudit:end -->"

_BOM = b"\xef\xbb\xbf"
_EXACT = re.compile(
    rb"(?:\A|(?<=[\r\n])|(?<=\A\xef\xbb\xbf))(?:%s|%s)(?=[ \t]*(?:[\r\n]|\Z))" % (BEGIN.encode(), END.encode())
)
_MARKER_LIKE = re.compile(
    rb"<!--+[ \t]*hubaudit\s*:\s*(?:begin|end)|hubaudit\s*:\s*(?:begin|end)[ \t]*--+>", re.IGNORECASE
)
_FRONT_MATTER = re.compile(rb"\A(?:\xef\xbb\xbf)?---[ \t]*\r?\n.*?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_LINE_END = re.compile(rb"\r\n|\n|\r")


class CardMarkersError(CouldNotConclude):
    """The markers of our section are damaged, so it cannot be told from the rest of the card."""


def splice(readme: AnyStr, section: AnyStr) -> AnyStr:
    """Return the README with the section in place of the old one, or at its end when there was none.

    Everything outside the markers stays byte for byte. The section takes over the README's line ends (CRLF or LF),
    and whether the file ends in a line end does not change; doing it twice changes nothing.

    Args:
        readme: the whole file, as UTF-8 bytes or as text.
        section: begins with the begin marker and ends with the end marker.

    Raises:
        CardMarkersError: markers in the README are missing their partner, doubled, nested, or written differently.
        ValueError: the section is not between markers, or holds more of them.
    """
    if isinstance(readme, str):
        return splice(_encode(readme), _encode(section)).decode("utf-8", "surrogatepass")
    span = _find(readme)
    eol = _line_end(readme)
    body = _LINE_END.sub(eol, _section_body(section))
    if span is not None:
        start, end = span
        return readme[:start] + body + readme[end:]
    text = readme.removeprefix(_BOM)
    if not text:
        return readme + body + eol
    if text.endswith((b"\n", b"\r")):
        return readme + eol + body + eol
    return readme + eol + eol + body


def remove(readme: AnyStr) -> AnyStr:
    """Return the README without our section: ``remove(splice(readme, section)) == readme`` when it had none.

    Raises:
        CardMarkersError: as ``splice``.
    """
    if isinstance(readme, str):
        return remove(_encode(readme)).decode("utf-8", "surrogatepass")
    span = _find(readme)
    if span is None:
        return readme
    start, end = span
    before, after = readme[:start], re.sub(rb"\A[ \t]*(?:\r\n|\n|\r|\Z)", b"", readme[end:])
    if not after:
        # What splice put between the text and a section at the end: one line end, or two where the text had none.
        eol = _line_end(readme)
        for _ in range(1 if end < len(readme) else 2):
            before = before.removesuffix(eol)
    return before + after


def _find(readme: bytes) -> tuple[int, int] | None:
    """Return where our section is in bytes, markers included (half-open), or None when there is no trace of one."""
    exact = {found.start(): found[0].decode() for found in _EXACT.finditer(readme)}
    for like in _MARKER_LIKE.finditer(readme):
        if like.start() not in exact:
            raise _damaged(readme, like.start(), "is not exactly as hubaudit writes it, alone on its line")
    if not exact:
        return None
    places = list(exact)
    if list(exact.values()) != [BEGIN, END]:
        surplus = list(exact.values())[:2] == [BEGIN, END]
        raise _damaged(
            readme, places[2 if surplus else 0], f"is one of {len(exact)}; there must be one begin, then one end"
        )
    front = _FRONT_MATTER.match(readme)
    if front and places[0] < front.end():
        raise _damaged(readme, places[0], "is inside the metadata block")
    return places[0], places[1] + len(END)


def _section_body(section: bytes) -> bytes:
    """Return the section without outer white space, checked."""
    body = section.strip()
    found = [(match[0], match.start()) for match in _EXACT.finditer(body)]
    wanted = [(BEGIN.encode(), 0), (END.encode(), len(body) - len(END))]
    if found != wanted or len(_MARKER_LIKE.findall(body)) != len(wanted):
        raise ValueError("a card section starts with its begin marker, ends with its end marker, and holds no other")
    return body


def _line_end(readme: bytes) -> bytes:
    """Return the line end of the first line; LF when there is none."""
    first = _LINE_END.search(readme)
    return first[0] if first else b"\n"


def _damaged(readme: bytes, offset: int, what: str) -> CardMarkersError:
    line = len(_LINE_END.findall(readme[:offset])) + 1
    return CardMarkersError(
        f"README.md line {line}: the hubaudit marker there {what}. "
        "Remove hubaudit's section and its markers by hand, then run again."
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
