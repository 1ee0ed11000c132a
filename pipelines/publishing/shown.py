"""Shows a change of a card as a unified diff: quickly for any card, and without letting the card's text act.

The card is a stranger's text and the diff goes to a terminal, so control characters are written as escapes.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from reports.safe_text import clean_line

Opcode = tuple[Any, int, int, int, int]
"""As difflib has it: what to do, and the half-open ranges of lines in the old and in the new text."""

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
    changes = _changes(old[head : len(old) - tail], new[head : len(new) - tail])
    shifted = [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in changes]
    tail_code = ("equal", len(old) - tail, len(old), len(new) - tail, len(new))
    known = _Known([("equal", 0, head, 0, head), *shifted, tail_code])
    label = "/dev/null" if before is None else f"a/{name}"
    return "".join(map(_shown, [f"--- {label}\n", f"+++ b/{name}\n", *_hunks(known, old, new)]))


def _changes(old: list[str], new: list[str]) -> list[Opcode]:
    """Return the opcodes that turn ``old`` into ``new``; one replacement of everything when there is much of it.

    The context is left out: a match that reaches into it could end a hunk without any, which git reads as the end
    of the file.
    """
    if len(old) + len(new) > REFINED_LINES:
        return [("replace", 0, len(old), 0, len(new))]
    return SequenceMatcher(None, old, new).get_opcodes()


class _Known(SequenceMatcher[str]):
    """A matcher that has matched already, for its grouping of changes into hunks."""

    def __init__(self, known: list[Opcode]) -> None:
        super().__init__(None, "", "")
        self._known = known

    def get_opcodes(self) -> list[Opcode]:
        return self._known


def _hunks(matcher: SequenceMatcher[str], old: list[str], new: list[str]) -> Iterator[str]:
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        first, last = group[0], group[-1]
        yield f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@\n"
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
