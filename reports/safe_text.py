"""Makes text from strangers fit to be shown: on a terminal, in Markdown, in a sentence.

Names of repositories, files, tensors and tokens, and everything a card says, are hostile until they have passed
through here. Nothing is dropped silently: what could hide, move the cursor or reverse the reading order is written
as a visible escape (``\\x1b``, ``\\u202e``), so that two different names never look the same. HTML needs no function
of its own: templates escape by default (``reports.environment``), after ``clean_line``.
"""

import re
import unicodedata

LINE_LIMIT = 200
"""Characters that a name may take in any document."""

PROSE_LIMIT = 2000
"""Characters that an explanation may take in any document."""

WORD_JOINER = "\u2060"
"""Invisible and unbreakable; keeps Markdown renderers from seeing a mention, an issue number or an address."""

_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code)
    for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
}
"""Printable by category, yet nothing is seen: fillers, blank Braille, variation selectors, the grapheme joiner."""

_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_STACKED_MARKS = 3
"""Combining marks in a row that living scripts need; more only serve to paint over the neighbouring lines."""

_INLINE = re.compile(r"[\\`*_\[\]<>&|~$!]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_BLOCK_START = re.compile(r"^([-+=#]|\d{1,9}[.)](?!\S))")
_LINKING = re.compile(
    r"(?<=[@#])(?=\w)|(?<=://)|(?<=www)(?=\.)|(?<=:)(?!\d+:)(?=[\w\\+-]+:)|(?<=\bGH-)(?=\d)", re.IGNORECASE
)


def clean_line(text: str, *, limit: int = LINE_LIMIT) -> str:
    """Return the text on one line without anything invisible, at most ``limit`` characters long.

    Control characters (ANSI escapes, line breaks), bidirectional overrides, zero-width characters, unusual spaces,
    lone surrogates and stacks of combining marks become visible escapes. The middle of a long text gives way to "…",
    since both ends of a tensor name matter.
    """
    text = shorten(text, limit)
    if not (text.isascii() and text.isprintable()):
        text = shorten(_escape_invisible(text), limit)
    return text


def clean_prose(text: str, *, limit: int = PROSE_LIMIT) -> str:
    """Return a sentence or a paragraph on one line: runs of white space become one space, the rest is cleaned."""
    return clean_line(" ".join(text[: 2 * limit].split()), limit=limit)


def clean_token(text: str) -> str:
    """Return a token with its outer spaces made visible (␣), since " cf" and "cf" are different tokens."""
    if not text:
        return "(empty)"
    stripped = text.strip(" ")
    lead = len(text) - len(text.lstrip(" "))
    trail = len(text) - lead - len(stripped)
    return clean_line("␣" * lead + stripped + "␣" * trail, limit=60)


def code_parts(text: str) -> list[tuple[bool, str]]:
    """Split prose at its backticks into (is code, text); what stands between two of them is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    return [(bool(place % 2), part) for place, part in enumerate(parts) if part]


def shorten(text: str, limit: int) -> str:
    """Return at most ``limit`` characters; the middle gives way to "…", two thirds are kept from the start."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def markdown_text(text: str, *, limit: int = PROSE_LIMIT) -> str:
    """Return the text so that Markdown shows it as it stands: no markup, HTML, link, mention, issue or table cell."""
    cleaned = clean_prose(text, limit=limit)
    escaped = _INLINE.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), cleaned)
    escaped = _BLOCK_START.sub(lambda found: found[1][:-1] + "\\" + found[1][-1], escaped)
    return _LINKING.sub(WORD_JOINER, escaped)


def markdown_code(text: str, *, limit: int = LINE_LIMIT) -> str:
    """Return the text as a code span for running text; a table cell needs ``markdown_cell``.

    Comment delimiters are broken up, so that no name can imitate the markers of a card section.
    """
    return _code_span(defuse_comments(clean_line(text, limit=limit)))


def markdown_cell(text: str, *, limit: int = LINE_LIMIT) -> str:
    r"""Return the text as a code span for a table cell: pipes are written ``\|``, which tables read as a pipe.

    Renderers disagree on a backslash before such a pipe; there the pipe becomes ``\x7c``.
    """
    code = defuse_comments(clean_line(text, limit=limit))
    return _code_span(code.replace("\\|", "\\\\x7c").replace("|", "\\|"))


def _code_span(code: str) -> str:
    """Fence with more backticks than the code has in a row."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", code)), default=0))
    pad = " " if not code.strip() or code[0] in "` " or code[-1] in "` " else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def defuse_comments(text: str) -> str:
    """Return the text with HTML comment delimiters broken by a visible backslash."""
    return text.replace("<!--", "<\\!--").replace("-->", "--\\>")


def _escape_invisible(text: str) -> str:
    """Write every character that cannot be seen as an escape."""
    shown = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me"} else 0
        hidden = char in _BLANK_LETTERS or not char.isprintable() or marks > _STACKED_MARKS
        shown.append(_escape(char) if hidden else char)
    return "".join(shown)


def _escape(char: str) -> str:
    """Write one character as Python would in a string."""
    code = ord(char)
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
