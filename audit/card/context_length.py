"""The context length that the card gives against the positions that the configuration allows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from audit.card.plain import short
from audit.card.prose import Prose, read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_NUMBER = r"(\d{1,3}(?:,\d{3}){1,2}|\d{1,7})\s?([kKM](?![\w]))?"
_WHAT = (
    r"context[\s-](?:length|window|size)|(?:sequence|input)[\s-]length|"
    r"max(?:imum)?[\s-](?:sequence|input|context|token)s?(?:[\s-](?:length|limit))?"
)
_AFTER = re.compile(rf"(?i)\b(?:{_WHAT})\b[^.\d\n]{{0,25}}?(?<![\w.]){_NUMBER}")
_BEFORE = re.compile(
    rf"(?i)(?<![\w.]){_NUMBER}[\s-]{{0,2}}(?:tokens?[\s-]{{1,2}})?(?:context[\s-](?:length|window|size)|sequence[\s-]length)"
)
_FIELDS = ("context length", "context window", "context", "maximum sequence length", "max sequence length",
           "max position embeddings", "context size", "max context length")  # fmt: skip
_OTHERS = re.compile(
    r"(?i)\b(?:yarn|rope|scaling|scaled|extrapolat\w*|extend\w*|than|versus|vs|compar\w*|base model|original\w*|"
    r"train\w*|fine-?tun\w*|packed|packing|chunk\w*|teacher|output|generat\w*|up from|previous\w*|not|evaluat\w*|"
    r"benchmark\w*|batch|ollama|server|default\w*|recommend\w*|gpu|memory)\b"
)
_STRETCHED = re.compile(r"(?i)\b(?:yarn|rope[_ -]scaling|rope[_ -]theta|ntk|longrope|self-?extend)\b")
_LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx")
_LEAST = 64
"""Smaller numbers are layers or versions, no context."""
_SLACK = 1.05
"""128K is written for 131,072, 128,000 and 131,000 alike."""


def context_length(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the one length that the card names; a shorter one than the configuration allows is no contradiction."""
    prose = read_prose(evidence.candidate.card.text)
    lengths = _said(prose)
    if not lengths:
        return
    declared = ", ".join(f"{low:,}" for low in sorted(lengths))
    limit, where = _allowed(evidence.candidate.config or {})
    status: ClaimStatus
    if limit is None:
        observed, status = where, "not_checkable"
    elif len(lengths) > 1:
        observed, status = f"{where}; the card names several lengths", "not_checkable"
    elif next(iter(lengths)) <= limit * _SLACK:
        observed, status = where, "supported"
    elif _STRETCHED.search(f"{prose.body}\n{prose.code}"):
        observed, status = f"{where}; the card tells of stretched positions", "not_checkable"
    else:
        observed, status = where, "contradicted"
    yield CardClaim(claim="context length", declared=short(declared), observed=short(observed), status=status)


def _said(prose: Prose) -> set[int]:
    outside = set(prose.code.splitlines())
    found: set[int] = set()
    for sentence in prose.sentences:
        if not _OTHERS.search(sentence):
            found |= {_tokens(m) for pattern in (_AFTER, _BEFORE) for m in pattern.finditer(sentence)}
    for name, value in prose.fields:
        match = re.match(_NUMBER, value)
        if name in _FIELDS and match and not any(value in line for line in outside) and not _OTHERS.search(value):
            found.add(_tokens(match))
    return {tokens for tokens in found if tokens >= _LEAST}


def _tokens(match: re.Match[str]) -> int:
    """The number; K stands for 1,000, the smallest of its readings."""
    factor = {"k": 1000, "m": 1_000_000}.get((match.group(2) or "").lower(), 1)
    return int(match.group(1).replace(",", "")) * factor


def _allowed(config: Mapping[str, Any]) -> tuple[int | None, str]:
    """The positions of the configuration, those of its text model where it is nested, times a scaling of positions."""
    if not config:
        return None, "there is no config.json to compare with"
    nested = config.get("text_config")
    for part in (config, nested if isinstance(nested, Mapping) else {}):
        for name in _LIMITS:
            value = part.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
                factor = _scaling(part)
                said = f"{name} {value:,}" + (f", scaled by {factor:g}" if factor > 1 else "")
                return int(value * factor), f"{said} (config.json)"
    return None, "the configuration names no limit"


def _scaling(config: Mapping[str, Any]) -> float:
    """The factor of ``rope_scaling`` or ``rope_parameters``; it may already be in the limit, so it only widens."""
    for name in ("rope_scaling", "rope_parameters"):
        scaling = config.get(name)
        factor = scaling.get("factor") if isinstance(scaling, Mapping) else None
        if isinstance(factor, int | float) and not isinstance(factor, bool) and 1 < factor < 10_000:
            return float(factor)
    return 1.0
