"""The declared licence beside the base's."""

from collections.abc import Iterator, Mapping
from typing import Any

from audit.card.plain import joined, words
from audit.evidence import Evidence
from audit.records import CardClaim
from scanner.records import RepoFacts

_FILES = ("license", "licence", "copying")


def licence(evidence: Evidence) -> Iterator[CardClaim]:
    """Say whether a licence is declared and whether it is the base's.

    Only equality is supported: which licence may follow which is a question for people.
    """
    declared = _declared(evidence.candidate.card.metadata)
    inherited = _declared(evidence.base.card.metadata) if evidence.base else ()
    if not declared:
        files = "a licence file is present" if _has_file(evidence.candidate) else "no licence file either"
        yield CardClaim(claim="license", declared="none", observed=files, status="not_checkable")
        return
    if not inherited:
        yield CardClaim(
            claim="license",
            declared=joined(declared),
            observed="the base declares none" if evidence.base else "no base to compare with",
            status="not_checkable",
        )
        return
    same = {name.lower() for name in declared} == {name.lower() for name in inherited}
    yield CardClaim(
        claim="license",
        declared=joined(declared),
        observed=f"the base declares {joined(inherited)}",
        status="supported" if same else "not_checkable",
    )


def _declared(metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    return words((metadata or {}).get("license"))


def _has_file(facts: RepoFacts) -> bool:
    return any(entry.path.lower().partition(".")[0] in _FILES for entry in facts.files)
