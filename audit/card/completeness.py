"""Sections that people need, by name: which the card has and which it lacks. A list, no score."""

import re
from collections.abc import Iterator

from audit.card.prose import read_prose
from audit.evidence import Evidence
from audit.records import CardClaim

_SECTIONS = {
    "intended use": (
        r"(?i)\b(?:intended|uses?|usage|use cases?|applications?|how to use|direct use|getting started|quick ?start|"
        r"inference)\b"
    ),
    "limits": (
        r"(?i)\b(?:limit\w*|bias\w*|risks?|out[- ]of[- ]scope|ethic\w*|safety|caveats?|responsib\w*|known issues|"
        r"warnings?)\b"
    ),
    "training data": (
        r"(?i)\b(?:training data\w*|data ?sets?|training (?:details?|procedure|corpus|set)|pre-?training|corpus|data)\b"
    ),
    "evaluation": r"(?i)\b(?:eval\w*|results?|performance|benchmarks?|metrics?|scores?|accuracy)\b",
}
_EMPTY = re.compile(r"(?i)\[?\s*more information needed\s*\]?|\b(?:todo|tbd)\b|\[needs more information\]")
_LEAST_WORDS = 3
_LATIN_SHARE = 0.5


def completeness(evidence: Evidence) -> Iterator[CardClaim]:
    """List the sections that are there and those that are missing; a heading with nothing below it is missing."""
    card = evidence.candidate.card
    if card.text is None:
        yield CardClaim(claim="sections", declared="none", observed="there is no card", status="not_checkable")
        return
    prose = read_prose(card.text)
    metadata = card.metadata or {}
    letters = [char for char in prose.body if char.isalpha()]
    if letters and sum(char.isascii() for char in letters) < _LATIN_SHARE * len(letters):
        yield CardClaim(
            claim="sections",
            declared="in another script than Latin",
            observed="headings are recognised in English alone",
            status="not_checkable",
        )
        return
    present = {name for name, pattern in _SECTIONS.items() if _has(prose.headings, pattern)}
    present |= {"training data"} if metadata.get("datasets") else set()
    present |= {"evaluation"} if metadata.get("model-index") or evidence.card_context.scores else set()
    wanted = [*_SECTIONS, "licence"]
    present |= {"licence"} if metadata.get("license") or _has(prose.headings, r"(?i)\blicen[cs]") else set()
    missing = [name for name in wanted if name not in present]
    yield CardClaim(
        claim="sections",
        declared=", ".join(name for name in wanted if name in present) or "none",
        observed=f"missing: {', '.join(missing)} (looked for under English headings)"
        if missing
        else "none of those looked for is missing",
        status="not_checkable" if missing else "supported",
    )


def _has(headings: tuple[tuple[int, str, str], ...], pattern: str) -> bool:
    """Whether a heading of that kind has words below it, its subsections included."""
    for place, (level, title, body) in enumerate(headings):
        if not re.search(pattern, title):
            continue
        below = [body]
        for deeper, _, text in headings[place + 1 :]:
            if deeper <= level:
                break
            below.append(text)
        if len(_EMPTY.sub("", " ".join(below)).split()) >= _LEAST_WORDS:
            return True
    return False
