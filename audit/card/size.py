"""Parameter counts: in sentences, fields and names of the card against the table of the checkpoint.

A sentence counts when it names one size and compares with nothing: "smaller than a 70B parameter model" and "3B active
parameters" speak of something else. What lies between near and far (thresholds of the profile) stays open: embeddings
and heads may be counted or not.
"""

import re
from collections.abc import Iterable, Iterator

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.card.stored import kept_parameters
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_AMOUNT = r"(?<![\w.,/$€-])(\d{1,4}(?:[.,]\d{1,3})?)\s{0,2}(million|billion|[MB])(?![\w.])"
_SIZE = re.compile(_AMOUNT.replace(r"(?![\w.])", r"[\s-]{1,2}(?:\w{1,12}\s)?param"), re.IGNORECASE)
_VALUE = re.compile(_AMOUNT, re.IGNORECASE)
_WHOLE = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3}){1,4}(?![\w,])|(?<![\w.,])\d{6,13}(?![\w.,])")
_IN_NAME = re.compile(r"(?i)(\d{1,4}(?:\.\d{1,3})?)b")
_ABOUT = re.compile(r"^(?:[~≈]|about|approx\w*\.?|around|roughly|total:?)\s*", re.IGNORECASE)
_LEAST = 1e5
"""Smaller whole numbers are steps or dimensions."""
_UNITS = {"m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9}
_OTHERS = re.compile(
    r"(?i)\b(?:than|versus|vs|compar\w*|like|outperform\w*|surpass\w*|rival\w*|match\w*|teacher|distill?ed|larger|"
    r"smaller|bigger|non-embedding|excluding|active|activated|effective|trainable|trained parameters|up to|ranging|"
    r"range[sd]?|series|family|sizes|variants?|from|between|other|competit\w*|"
    r"(?:vision|image|text|audio|speech) encoder|draft|adapters?|lora|"
    r"experts?|per token|generat\w*|used to|annotat\w*|synthetic|baselines?|"
    r"label(?:l?ed|ling)|beats?|better|worse|models|reward|judge|gpt-\d|tokens? (?:of|and))\b"
)
_FIELDS = ("parameters", "number of parameters", "num parameters", "total parameters", "model parameters",
           "parameter count", "params", "number of params", "model size", "total params")  # fmt: skip


def parameters(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the one size that the card's text gives with the count of the checkpoint."""
    sizes = _said(evidence)
    if not sizes:
        return
    declared = short(", ".join(f"{size:,.0f}" for size in sorted(sizes)))
    profile = evidence.profile
    near, far = 1.0 + profile.value("card.parameters_tolerance"), profile.value("card.parameters_far")
    observed, status = _judged(evidence, sizes, near, far)
    yield CardClaim(claim="parameters", declared=declared, observed=observed, status=status)


def name(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the size in the repository's name or the card's title ("org/Model-7B") with the count."""
    title = read_prose(evidence.candidate.card.text).title
    own = (evidence.candidate.ref.repo_id or "").rpartition("/")[2]
    for text in (own, title or ""):
        sizes = {float(m.group(1)) * 1e9 for word in _name_words(text) if (m := _IN_NAME.fullmatch(word))}
        if sizes:
            break
    else:
        return
    profile = evidence.profile
    near, far = profile.value("card.name_size_near"), profile.value("card.name_size_far")
    observed, status = _judged(evidence, sizes, near, far)
    yield CardClaim(claim="parameters (name)", declared=short(text), observed=observed, status=status)


def _name_words(text: str) -> list[str]:
    """The words of a name; "8x7B" and "30B-A3B" have none that is a size alone, or more than one."""
    return re.split(r"[-_ /()\[\]:|,]+", text[:300])


def _judged(evidence: Evidence, sizes: Iterable[float], near: float, far: float) -> tuple[str, ClaimStatus]:
    total, why = kept_parameters(evidence)
    distinct = sorted(sizes)
    if total is None:
        return why, "not_checkable"
    observed = f"{total:,}"
    if len(distinct) > 1:
        return f"{observed}; the card names several sizes", "not_checkable"
    factor = max(total / distinct[0], distinct[0] / total) if distinct[0] > 0 else far + 1.0
    if factor <= near:
        return observed, "supported"
    if factor > far:
        return observed, "contradicted"
    return f"{observed}; near, but not the same: parts may be counted differently", "not_checkable"


def _said(evidence: Evidence) -> set[float]:
    """The sizes in sentences that speak of nothing else, and in fields."""
    prose = read_prose(evidence.candidate.card.text)
    found: set[float] = set()
    for sentence in prose.sentences:
        amounts = [_number(match) for match in _SIZE.finditer(sentence)]
        if amounts and not _OTHERS.search(sentence):
            found.update(amounts)
    for value in prose.named(*_FIELDS):
        start = _ABOUT.sub("", value, count=1)
        amount, whole = _VALUE.match(start), _WHOLE.match(start)
        if re.search(r"(?i)\b(?:active|trainable|non-embedding|[kmgt]i?b)\b", value):
            continue
        if amount and not re.search(r"(?i)\d\s?(?:[mg]i?b)\b", value):
            found.add(_number(amount))
        elif whole and (count := float(whole.group(0).replace(",", ""))) >= _LEAST:
            found.add(count)
    return found


def _number(match: re.Match[str]) -> float:
    return float(match.group(1).replace(",", ".")) * _UNITS[match.group(2).lower()]
