"""The declared base and relation against what the weights say."""

import re
from collections.abc import Iterator

from audit.card.plain import joined, short
from audit.detectors.relation import ALLOWED
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus
from scanner.refs import as_repo_id

_PLACES = ("card base_model", "adapter_config.json", "mergekit_config.yml")
_UNREAD = "was not asked of the weights; `hubaudit scan` does"
_GENERIC = frozenset(
    {"instruct", "chat", "base", "hf", "model", "it", "bnb", "4bit", "8bit", "gguf", "gptq", "awq", "unsloth", "v1",
     "uncased", "cased", "bit", "pt", "fp8", "fp16", "bf16", "large", "small", "the"}
)  # fmt: skip
"""Words of a name that any two models may share."""
_SIZE = re.compile(r"\d+(?:\.\d+)?[bm]")
_STATUS: dict[str, ClaimStatus] = {
    "verified": "supported",
    "contradicted": "contradicted",
    "unverified": "not_checkable",
}


def base(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the card's ``base_model`` with the base that the weights were compared with."""
    declared = evidence.candidate.card.base_models
    lineage = evidence.lineage
    if not declared:
        return
    compared = lineage.base.name if lineage.base else None
    unread = not evidence.card_context.weights_asked
    if compared is None:
        observed, status = "the base could not be read", "not_checkable"
    elif not any(_is_named(compared, name) for name in declared):
        what = "card was held against" if unread else "weights were compared with"
        observed, status = f"the {what} another base, {short(compared)}", "not_checkable"
    else:
        observed = {
            "verified": f"the weights descend from {short(compared)}",
            "contradicted": f"the weights do not descend from {short(compared)}",
            "unverified": f"descent from {short(compared)} {_UNREAD if unread else 'could not be verified'}",
        }[lineage.status]
        status = _STATUS[lineage.status]
    yield CardClaim(claim="base_model", declared=joined(declared), observed=observed, status=status)  # type: ignore[arg-type]


def _is_named(compared: str, declared: str) -> bool:
    """Whether a declared name is that of the base; ``gpt2`` is the legacy name of ``openai-community/gpt2``."""
    full, name = compared.lower(), declared.strip().lower()
    return full == name or ("/" not in name and full.rpartition("/")[2] == name)


def relation(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare ``base_model_relation`` with the relation measured."""
    declared = evidence.candidate.card.relation
    if not declared:
        return
    measured = evidence.lineage.relation
    status: ClaimStatus
    if measured == "unknown" or evidence.lineage.status != "verified":
        observed, status = "could not be verified", "not_checkable"
    else:
        observed = measured
        status = _judged(declared.strip().lower(), measured)
    yield CardClaim(claim="base_model_relation", declared=short(declared), observed=observed, status=status)


def agreement(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the places that name a base: card, adapter and merge configuration.

    Contradicted only when two places name models of different sizes or without a word in common: a card often names
    the original where the adapter names a copy of it ("unsloth/…-bnb-4bit").
    """
    named: dict[str, list[str]] = {}
    for claim in evidence.lineage.claims:
        if claim.source in _PLACES and as_repo_id(claim.value) == claim.value:
            named.setdefault(claim.source, []).append(claim.value)
    if len(named) < 2:
        return
    (first, bases), *others = named.items()
    differing = [
        (place, name)
        for place, names in others
        for name in names[:1]
        if name.lower() not in {base.lower() for base in bases}
    ]
    status: ClaimStatus = "supported"
    if differing:
        far = all(_apart(name, base) for _, name in differing for base in bases)
        status = "contradicted" if far else "not_checkable"
    observed = (
        "; ".join(f"{place}: {short(name)}" for place, name in differing) or f"also in {', '.join(list(named)[1:])}"
    )
    yield CardClaim(
        claim="base_model (all places)",
        declared=short(f"{first}: {joined(tuple(bases))}"),
        observed=short(observed),
        status=status,
    )


def _apart(one: str, other: str) -> bool:
    """Whether two names speak of different models: other sizes, or no telling word in common."""
    first, second = (set(re.split(r"[^a-z0-9.]+", name.rpartition("/")[2].lower())) for name in (one, other))
    sizes = [{word for word in words if _SIZE.fullmatch(word)} for words in (first, second)]
    if sizes[0] and sizes[1] and not sizes[0] & sizes[1]:
        return True
    telling = [{w.rstrip("0123456789.") or w for w in words - _GENERIC} - {""} for words in (first, second)]
    return not telling[0] & telling[1] and not any(
        a in b or b in a for a in telling[0] for b in telling[1] if len(min(a, b, key=len)) > 3
    )


def _judged(declared: str, measured: str) -> ClaimStatus:
    """Equal is supported; what the rule on relations (HA106) lets pass stays open."""
    if declared == measured:
        return "supported"
    return "not_checkable" if measured in ALLOWED.get(declared, ()) else "contradicted"
