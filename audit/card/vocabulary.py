"""The vocabulary: its declared size against the token table, and tokens that the card says were added."""

import re
from collections.abc import Iterator

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.card.stored import kept_formats, token_rows
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

CONFIG = "vocab_size (config.json)"
_SIZE = re.compile(
    r"(?i)\b(?:vocab(?:ulary)?)(?:\s(?:size|of|has|contains|with|is|comprises|consists of)){1,3}\s(?:about\s)?"
    r"(\d{1,3}(?:,\d{3}){1,2}|\d{3,7})(?![\d.kKM%]|\s\d)"
)
_FIELDS = ("vocab size", "vocabulary size", "vocabulary")
_WHOLE = re.compile(r"(\d{1,3}(?:,\d{3}){1,2}|\d{3,7})(?![\d.kKM%]|\s\d)")
_ADDED = re.compile(
    r"(?i)\b(?:added|adds|adding|extended (?:the (?:vocabulary|tokenizer) )?(?:by|with))\s(\d{1,6}(?:,\d{3})?)\s"
    r"(?:(?:new|special|extra|additional|custom|domain)\s){0,3}tokens\b"
)
_NOT_HERE = re.compile(
    r"(?i)\b(?:than|versus|vs|compar\w*|base model|original\w*|reduced|from|previous\w*|not|teacher|"
    r"added|adds|adding|new|extra|extended|"
    r"additional|domain|words)\b"
)
_LEAST = 1000
"""Smaller vocabularies are those of characters or of a few added words."""
_PADDING = 512
"""Token tables are padded to multiples of at most so many rows; the tokens are then fewer than the rows."""


def configured(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the configuration's vocabulary size with the token table, and name added tokens."""
    declared = (evidence.candidate.config or {}).get("vocab_size")
    if isinstance(declared, bool) or not isinstance(declared, int):
        return
    table = token_rows(evidence)
    if table is None:
        why = "the weights were not read" if not kept_formats(evidence) else "no token table was compared"
        yield CardClaim(claim=CONFIG, declared=str(declared), observed=why, status="not_checkable")
        return
    name, rows = table
    observed = f"{rows} rows in {short(name)}"
    added = _added_rows(evidence)
    if added:
        observed += f", {added} of them added to the base's"
    status: ClaimStatus = "supported" if rows == declared else "contradicted"
    if evidence.tokens is not None and len(evidence.tokens.texts) > rows:
        observed += f"; the tokenizer has {len(evidence.tokens.texts)} tokens, more than there are rows"
        status = "contradicted"
    yield CardClaim(claim=CONFIG, declared=str(declared), observed=observed, status=status)


def written(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare "a vocabulary of 32,000 tokens" with the rows of the token table; padding of the table is allowed for."""
    prose = read_prose(evidence.candidate.card.text)
    said = {
        int(match.group(1).replace(",", ""))
        for sentence in prose.sentences
        if not _NOT_HERE.search(sentence)
        for match in _SIZE.finditer(sentence)
    }
    values = (_WHOLE.match(value) for value in prose.named(*_FIELDS))
    said |= {int(match.group(1).replace(",", "")) for match in values if match}
    if not said:
        return
    table = token_rows(evidence)
    rows = table[1] if table else (evidence.candidate.config or {}).get("vocab_size")
    where = f"rows in {short(table[0])}" if table else "in config.json"
    declared = ", ".join(f"{size:,}" for size in sorted(said))
    status: ClaimStatus
    if isinstance(rows, bool) or not isinstance(rows, int):
        observed, status = "neither a token table nor a configured size was read", "not_checkable"
    elif len(said) > 1:
        observed, status = f"{rows:,} {where}; the card names several sizes", "not_checkable"
    else:
        observed = f"{rows:,} {where}"
        size = next(iter(said))
        status = "supported" if size <= rows < size + _PADDING else "not_checkable"
        status = "contradicted" if size > rows + _PADDING or _LEAST <= size < rows / 2 else status
    yield CardClaim(claim="vocabulary", declared=short(declared), observed=observed, status=status)


def added_tokens(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare "added 4 special tokens" with the rows beyond the base's.

    Only equality is supported: bases keep spare rows, and tables are padded.
    """
    prose = read_prose(evidence.candidate.card.text)
    said = {
        int(match.group(1).replace(",", ""))
        for sentence in prose.sentences
        for match in _ADDED.finditer(sentence)
        if not re.search(r"(?i)\bnot\b|n't\b", sentence)
    }
    if not said:
        return
    own, theirs = token_rows(evidence), (evidence.base.config if evidence.base else None) or {}
    before = theirs.get("vocab_size")
    status: ClaimStatus = "not_checkable"
    if own is None or isinstance(before, bool) or not isinstance(before, int):
        observed = "the token tables of both sides were not read"
    else:
        extra = own[1] - before
        observed = f"{own[1]:,} rows, {extra:,} more than the base's {before:,}"
        status = "supported" if said == {extra} else "not_checkable"
        observed += "" if status == "supported" else "; spare and padding rows hide how many tokens are new"
    declared = ", ".join(f"{count:,}" for count in sorted(said))
    yield CardClaim(claim="added tokens", declared=declared, observed=observed, status=status)


def _added_rows(evidence: Evidence) -> int:
    """Rows of the compared token table that only the candidate has."""
    tables = [t for t in (evidence.drift.tensors if evidence.drift else ()) if t.spec.role == "embedding"]
    added = evidence.drift.added_rows.get(tables[0].spec.name) if evidence.drift and tables else None
    return added[1] - added[0] if added else 0
