"""Shows a change of a card as a unified diff: quickly for any card, and without letting the card's text act.

The card is a stranger's text and the diff goes to a terminal, so control characters are written as escapes.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher

from reports.safe_text import clean_line

CONTEXT_LINES = 3
LINE_CHARS = 2000
REFINED_LINES = 600
"""Changed lines up to which difflib looks for the smallest change; it takes quadratic time on text made for it."""


def unified_diff(before: bytes | None, after: bytes, name: str) -> str:
    """Return the change from ``before`` (None for no such file) to ``after``; empty when there is none.

    What both have in common at their start and end is cut off first, so that the time is linear in the size of the
    card.
    """
    if before == after:
        return ""
    old, new = _lines(before or b""), _lines(after)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start = max(0, head - CONTEXT_LINES)
    old, new = old[start : len(old) - tail + CONTEXT_LINES], new[start : len(new) - tail + CONTEXT_LINES]
    context = min(tail, CONTEXT_LINES)
    head -= start
    matcher = SequenceMatcher(None, old, new)
    if len(old) + len(new) > REFINED_LINES:
        matcher = _Coarse(old, new, head, context)
    label = "/dev/null" if before is None else f"a/{name}"
    lines = [f"--- {label}\n", f"+++ b/{name}\n", *_hunks(matcher, old, new, start)]
    return "".join(map(_shown, lines))


class _Coarse(SequenceMatcher[str]):
    """A matcher that takes the whole middle as one replacement."""

    def __init__(self, old: list[str], new: list[str], head: int, tail: int) -> None:
        super().__init__(None, [], [])
        sides = (head, len(old) - tail, head, len(new) - tail)
        self.opcodes = [
            ("equal", 0, head, 0, head),
            ("replace", *sides),
            ("equal", sides[1], len(old), sides[3], len(new)),
        ]


def _hunks(matcher: SequenceMatcher[str], old: list[str], new: list[str], start: int) -> Iterator[str]:
    """Yield the hunks; ``start`` lines come before the first of ``old`` and ``new``."""
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        first, last = group[0], group[-1]
        spans = (_span(start + first[1], start + last[2]), _span(start + first[3], start + last[4]))
        yield f"@@ -{spans[0]} +{spans[1]} @@\n"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[i1:i2])
                continue
            yield from (f"-{line}" for line in old[i1:i2])
            yield from (f"+{line}" for line in new[j1:j2])


def _span(start: int, end: int) -> str:
    """Return a half-open range of lines (from 0) as diff writes it."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _lines(content: bytes) -> list[str]:
    """Split at line feeds alone, as diff does; other separators are content."""
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _common(one: list[str], other: list[str]) -> int:
    """Return how many leading elements are equal."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _shown(line: str) -> str:
    """Return one line of a diff, fit for a terminal; tabs stay, the carriage return of CRLF is left out."""
    parts = line.removesuffix("\n").removesuffix("\r").split("\t")
    clean = "\t".join(clean_line(part, limit=LINE_CHARS) for part in parts[:LINE_CHARS])
    return f"{clean}\n" if line.endswith("\n") else f"{clean}\n\\ No newline at end of file\n"
