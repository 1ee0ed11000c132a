"""The one list of card checks. A check takes the evidence and yields claims; what is not declared yields none."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from audit.card import (
    adapter,
    architecture,
    completeness,
    context_length,
    copied,
    declared_base,
    declared_data,
    languages,
    licence,
    number_format,
    quantisation,
    results,
    size,
    training_scope,
    vocabulary,
)
from audit.evidence import Evidence
from audit.records import CardClaim, SkipRecord

CardCheck = Callable[[Evidence], Iterable[CardClaim]]

CARD_CHECKS: tuple[CardCheck, ...] = (
    declared_base.base,
    declared_base.relation,
    declared_base.agreement,
    licence.licence,
    licence.notices,
    licence.earlier,
    licence.on_file,
    size.parameters,
    size.name,
    number_format.configured,
    number_format.written,
    context_length.context_length,
    vocabulary.configured,
    vocabulary.written,
    vocabulary.added_tokens,
    architecture.task,
    architecture.family,
    architecture.named_class,
    architecture.library,
    adapter.rank,
    adapter.targets,
    training_scope.training_scope,
    quantisation.quantisation,
    quantisation.bits,
    languages.languages,
    declared_data.datasets,
    declared_data.metrics,
    results.scores,
    results.consistent,
    results.possible,
    copied.copied,
    completeness.completeness,
)


def claims_of(evidence: Evidence) -> tuple[tuple[CardClaim, ...], tuple[SkipRecord, ...]]:
    """Run every check, or return what they said; one that breaks is a skip: a strange card must not end an audit."""
    if evidence.card_claims is not None:
        return evidence.card_claims
    claims: list[CardClaim] = []
    skips: list[SkipRecord] = []
    for check in CARD_CHECKS:
        try:
            claims += check(evidence)
        except Exception as error:  # noqa: BLE001
            name = getattr(check, "__name__", "check")
            skips.append(SkipRecord(what=f"card: {name}", why=f"the check broke ({type(error).__name__})"))
    return tuple(claims), tuple(skips)


def with_claims(evidence: Evidence) -> Evidence:
    """Run every check once for all who ask for the claims; the evidence must not change any more."""
    return replace(evidence, card_claims=claims_of(evidence))
