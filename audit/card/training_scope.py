"""Which parts were trained: "only attention was trained", "embeddings were frozen" against what moved.

Only sentences of two plain forms are read: *part* was kept frozen, and only *part* was trained. A sentence with a
negation, a condition, a plan or several stages of training is passed over: better no row than a wrong one.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus
from audit.thresholds import Profile
from scanner.records import TensorDrift

_ATTENTION = frozenset({"query", "key", "value", "attention_output", "attention"})
_MLP = frozenset({"mlp_in", "mlp_gate", "mlp_out"})
_HEADS = frozenset({"head", "unembedding", "pooler"})
_PARTS: dict[str, Callable[[TensorDrift], bool]] = {
    r"(?:(?:word|token|input)[- ])?embeddings?(?: layers?| matrix| weights| table)?": lambda t: (
        t.spec.role == "embedding"
    ),
    r"(?:self-)?attention(?: layers?| weights| matrices| blocks?| modules?| projections?| parameters)?": (
        lambda t: t.spec.role in _ATTENTION or (t.spec.role == "bias" and "att" in t.spec.name.lower())
    ),
    r"(?:mlp|feed-?forward|ffn)(?: layers?| weights| matrices| blocks?| modules?| parameters)?": (
        lambda t: t.spec.role in _MLP or (t.spec.role == "bias" and _named(t, "mlp", "intermediate", "ffn", "fc"))
    ),
    r"(?:layer ?norms?|normali[sz]ation layers?|norm layers?)": lambda t: (
        t.spec.role == "norm" or "norm" in t.spec.name.lower()
    ),
    r"bias(?:es)?(?: terms?| parameters| vectors)?": lambda t: t.spec.role == "bias" or t.spec.name.endswith(".bias"),
    r"(?:(?:whole|entire|pre-?trained) )?(?:backbone|body|encoder|base encoder)(?: weights| layers)?": (
        lambda t: t.spec.role not in _HEADS
    ),
    r"(?:classification |classifier |task |lm |output )?(?:head|classifier)(?: layers?| weights)?": lambda t: (
        t.spec.role in _HEADS
    ),
}
_ANY = "|".join(_PARTS)
_STATE = r"(?:was|were|is|are|being|remained|remain|stayed|kept)"
_FROZEN = re.compile(
    rf"(?i)\b(?:(?:the|all|its)\s)?(?P<a>{_ANY})\s(?:{_STATE}\s){{1,2}}(?:fully\s|completely\s|entirely\s)?frozen\b"
    rf"|\b(?:we\s|i\s)?(?:froze|kept)\s(?:the\s|all\s)?(?P<b>{_ANY})(?P<k>\sfrozen)?(?=\s*(?:[.,;]|and\b|while\b|during\b|$))"
    rf"|\bwith\s(?:the\s|all\s)?(?P<c>{_ANY})\s(?:kept\s)?frozen\b"
    rf"|\bfrozen\s(?P<d>{_ANY})(?=\s*(?:[.,;]|$))"
)
_ONLY = re.compile(
    rf"(?i)\bonly\s(?:the\s)?(?P<a>{_ANY})\s(?:{_STATE}\s){{1,2}}(?:fine-?tuned|trained|updated)\b"
    rf"|\b(?:fine-?tuned|trained|updated|training|tuned)\sonly\s(?:the\s)?(?P<b>{_ANY})(?=\s*(?:[.,;]|$))"
    rf"|\bonly\s(?:fine-?tuned|trained|updated)\s(?:the\s)?(?P<c>{_ANY})(?=\s*(?:[.,;]|$))"
)
_DOUBT = re.compile(
    r"(?i)\b(?:not|no|never|unfroz\w*|unfreez\w*|instead|later|then|first|second|stage|stages|phase|phases|initially|"
    r"before|after|until|can|could|may|might|should|would|will|if|when|unlike|previous\w*|ablation|epochs?|steps?|"
    r"warm-?up|some|most|partially|mostly|half|except|other|another|adapter|teacher|vision|image|audio|optional\w*|"
    r"try|you|your|recommend\w*|alternat\w*|base model was|compar\w*|additionally|also|vs|versus|than)\b|n't\b|\?|"
    r"\blayers?\s\d|\d+\s(?:layers?|blocks?)|\b(?:top|bottom|last|lower|upper)\b"
)
_NAMED = 3
"""Tensors named as examples."""
_LEAST_ROWS = 8
"""Rows whose spread can be told."""


@dataclass(frozen=True, slots=True)
class _Said:
    words: str
    part: Callable[[TensorDrift], bool]
    only: bool


def training_scope(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare each such sentence with the tensors that moved."""
    seen: set[tuple[bool, str]] = set()
    for said in _sentences(evidence):
        key = (said.only, said.words.lower())
        if key in seen:
            continue
        seen.add(key)
        status, observed = _judged(evidence, said)
        declared = f"only {said.words} trained" if said.only else f"{said.words} frozen"
        yield CardClaim(claim="training scope", declared=short(declared), observed=short(observed), status=status)


def _sentences(evidence: Evidence) -> Iterator[_Said]:
    for sentence in read_prose(evidence.candidate.card.text).sentences:
        if _DOUBT.search(sentence):
            continue
        only = _ONLY.search(sentence)
        match = only or _FROZEN.search(sentence)
        if match is None:
            continue
        words = next((value for key, value in match.groupdict().items() if value and key != "k"), "")
        kept = match.groupdict().get("b") and match.group(0).lower().lstrip("wei ").startswith("kept")
        if not only and kept and not match.group("k"):
            continue
        part = next((p for text, p in _PARTS.items() if re.fullmatch(text, words, re.IGNORECASE)), None)
        if part is not None:
            yield _Said(words=words, part=part, only=only is not None)


def _judged(evidence: Evidence, said: _Said) -> tuple[ClaimStatus, str]:
    drift, lineage = evidence.drift, evidence.lineage
    if drift is None or not drift.tensors:
        return "not_checkable", "the weights were not compared"
    if lineage.status != "verified":
        return "not_checkable", f"the base is {lineage.status}, so what moved is not known"
    if lineage.relation not in {"finetune", "adapter", "identical"}:
        return "not_checkable", f"the relation is {lineage.relation}: other changes cover those of training"
    part = _module(said.words, drift.tensors) or said.part
    asked = [tensor for tensor in drift.tensors if part(tensor) != said.only]
    if not asked:
        return "not_checkable", "no tensor of that part was compared"
    states = [(tensor, _state(tensor, evidence.profile)) for tensor in asked]
    moved = [tensor for tensor, state in states if state == "moved"]
    rounded = sum(state == "rounded" for _, state in states)
    which = "tensors outside that part" if said.only else "tensors"
    if not moved and rounded:
        return "not_checkable", f"{rounded} of {len(asked)} {which} changed no more than rounding to 16 bits explains"
    if not moved:
        return "supported", f"none of {len(asked)} {which} moved"
    farthest = sorted(moved, key=lambda t: -t.relative_l2)[:_NAMED]
    names = ", ".join(f"{t.spec.name} by {100 * t.relative_l2:.2g} %" for t in farthest)
    return "contradicted", f"{len(moved)} of {len(asked)} {which} moved: {names}"


def _module(words: str, tensors: tuple[TensorDrift, ...]) -> Callable[[TensorDrift], bool] | None:
    """The part by a module of that name, where there is one: a model with a decoder has more than an encoder."""
    name = next((name for name in ("encoder", "backbone") if name in words.lower()), None)
    if name is None or not any(name in tensor.spec.name.lower() for tensor in tensors):
        return None
    return lambda tensor: name in tensor.spec.name.lower()


def _state(tensor: TensorDrift, profile: Profile) -> Literal["still", "rounded", "moved"]:
    """Whether a tensor moved by more than a change of format explains.

    Rounding moves all rows by the same share of their norm, and by little; training does not. A single row tells
    nothing of that, so a small change of a vector counts as rounding.
    """
    if (
        tensor.changed == 0
        or tensor.relative_l2 <= profile.value("card.unmoved_relative")
        or tensor.delta_l2 <= 2.0 * tensor.rounding_floor
    ):
        return "still"
    if tensor.relative_l2 > profile.value("card.rounding_relative"):
        return "moved"
    known = tensor.row_base_sq > 0
    shares = np.sqrt(tensor.row_delta_sq[known] / tensor.row_base_sq[known])
    if len(shares) < _LEAST_ROWS:
        return "rounded"
    low, high = np.quantile(shares, (0.1, 0.9))
    return "rounded" if low > 0 and high / low <= profile.value("card.rounding_spread") else "moved"


def _named(tensor: TensorDrift, *parts: str) -> bool:
    return any(part in tensor.spec.name.lower() for part in parts)
