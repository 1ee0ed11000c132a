"""Declared languages: whether their codes exist."""

import re
from collections.abc import Iterator

import langcodes

from audit.card.plain import joined, words
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_NOT_NATURAL = frozenset({"code", "multilingual", "other", "unknown", "none"})
"""Words that the Hub lets stand in place of a language."""
_CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_MAX = 500


def languages(evidence: Evidence) -> Iterator[CardClaim]:
    """Look each code up in the registry of language tags (BCP 47); names in place of codes stay open.

    That a code exists says nothing of how well the model knows the language.
    """
    value = (evidence.candidate.card.metadata or {}).get("language")
    entries = value if isinstance(value, list) else [value]
    # YAML reads an unquoted `no` as false, and Norwegian models mean the language.
    declared = words(["no" if entry is False else entry for entry in entries][:_MAX])
    if not declared:
        return
    codes = [text for text in declared if text.lower() not in _NOT_NATURAL]
    wrong = [text for text in codes if _CODE.fullmatch(text) and not langcodes.tag_is_valid(text.replace("_", "-"))]
    unclear = [text for text in codes if not _CODE.fullmatch(text)]
    status: ClaimStatus
    if wrong:
        observed, status = f"no such code in the registry of language tags: {joined(tuple(wrong))}", "contradicted"
    elif unclear:
        observed, status = f"not a code: {joined(tuple(unclear))}", "not_checkable"
    else:
        observed, status = "the codes exist; the model was not run", "supported"
    yield CardClaim(claim="language", declared=joined(declared), observed=observed, status=status)
