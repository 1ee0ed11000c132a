"""The text of a card as sentences, fields, headings and code: cut to a bound, never rendered.

A *field* is a line, a table row of two cells or a line of configuration that reads "name: value". A *sentence* is what
stands between full stops, with emphasis, links and code taken out; list items, table rows and headings end one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

SEARCHED = 200_000
"""Characters of a card that are searched; the longest cards of well-known models have about 100,000."""
MAX_SENTENCES = 5_000
MAX_SENTENCE_CHARS = 600
MAX_LINE_CHARS = 2_000
_FRONT = re.compile(r"\A\ufeff?\s{0,40}---[ \t]*\r?\n.*?^---[ \t]*$", re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,300}>")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,300}\)")
_ITEM = re.compile(r"^\s{0,12}(?:[-*+•]|\d{1,3}[.)])\s+")
_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.{1,300})")
_UNDERLINE = re.compile(r"\s{0,3}(?:={3,}|-{3,})\s*")
_FIELD = re.compile(r"\s{0,12}(?:[-*+•]\s+)?([A-Za-z][\w \-/()]{0,50}?)\s*[:=]\s*(\S.{0,300})")
_STOP = re.compile(r"(?<=[.!?;])\s+(?=[A-Z\"'(])")
_EMPHASIS = str.maketrans("", "", "*`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """A card taken apart. ``fields`` have lower-case names with single spaces; ``headings`` are (level, text, body)."""

    sentences: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    headings: tuple[tuple[int, str, str], ...] = ()
    code: str = ""
    body: str = ""

    @property
    def title(self) -> str | None:
        """The first heading, when it is one of the first level."""
        return self.headings[0][1] if self.headings and self.headings[0][0] == 1 else None

    def named(self, *names: str) -> tuple[str, ...]:
        """The values of the fields with one of these names, in the order of the card, each once."""
        return tuple(dict.fromkeys(value for name, value in self.fields if name in names))


@lru_cache(maxsize=4)
def read_prose(text: str | None) -> Prose:
    """Take a card apart. Never raises; its cost grows with the searched length alone."""
    if not text:
        return Prose()
    body = _FRONT.sub("", text[: 2 * SEARCHED], count=1)[:SEARCHED].removeprefix("\ufeff")
    plain, code = _parted(_without_comments(body))
    lines = [_clean(line) for line in plain]
    fields = [*_fields(lines), *_fields(code)]
    return Prose(
        sentences=tuple(_sentences(lines)),
        fields=tuple(fields),
        headings=tuple(_headings(lines)),
        code="\n".join(code),
        body="\n".join(lines),
    )


def _without_comments(body: str) -> str:
    """The text without HTML comments; one that is not closed hides the rest, as it does on a page."""
    kept: list[str] = []
    position = 0
    while (start := body.find("<!--", position)) >= 0:
        kept.append(body[position:start])
        end = body.find("-->", start)
        if end < 0:
            return "".join(kept)
        position = end + 3
    kept.append(body[position:])
    return "".join(kept)


def _parted(body: str) -> tuple[list[str], list[str]]:
    """Lines outside and inside of fences."""
    plain: list[str] = []
    code: list[str] = []
    fence = ""
    for line in re.split(r"\r\n|\n|\r", body):
        cut = line[:MAX_LINE_CHARS]
        mark = cut.lstrip()[:3]
        if fence:
            if mark == fence:
                fence = ""
            else:
                code.append(cut)
        elif mark in {"```", "~~~"}:
            fence = mark
            plain.append("")
        else:
            plain.append(cut)
    return plain, code


def _clean(line: str) -> str:
    return _LINK.sub(r"\1", _TAG.sub(" ", line)).translate(_EMPHASIS).rstrip()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.count("|") >= 1 else []


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        cells = [cell for cell in _cells(line) if cell]
        if line.lstrip().startswith("|") and len(cells) == 2:
            yield _name(cells[0]), cells[1]
            continue
        found = _FIELD.match(line)
        if found:
            yield _name(found.group(1)), found.group(2).strip()


def _name(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").rstrip(":").split())


def _headings(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Headings with the text up to the next one of any level."""
    found: list[tuple[int, str, list[str]]] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        match = _HEADING.fullmatch(line)
        if match:
            found.append((len(match.group(1)), match.group(2).strip(" #"), []))
        elif line.strip() and not _ITEM.match(line) and re.fullmatch(r"\s{0,3}(?:={3,})\s*", after):
            found.append((1, line.strip()[:300], []))
        elif found and not _UNDERLINE.fullmatch(line):
            found[-1][2].append(line)
    for level, title, content in found:
        yield level, title, "\n".join(content).strip()


def _sentences(lines: list[str]) -> Iterator[str]:
    count = 0
    for paragraph in _paragraphs(lines):
        for sentence in _STOP.split(paragraph):
            if count == MAX_SENTENCES:
                return
            text = " ".join(sentence.split())
            if 0 < len(text) <= MAX_SENTENCE_CHARS:
                count += 1
                yield text


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Lines that belong together, joined; an item of a list, a row of a table and a heading stand alone."""
    current: list[str] = []
    for line in lines:
        apart = _HEADING.match(line) or line.lstrip().startswith("|")
        if current and (not line.strip() or apart or _ITEM.match(line)):
            yield " ".join(current)
            current = []
        if apart:
            yield " ".join(_cells(line)) if line.lstrip().startswith("|") else line.lstrip("# ")
        elif line.strip():
            current.append(_ITEM.sub("", line, count=1) if not current else line.strip())
    if current:
        yield " ".join(current)
