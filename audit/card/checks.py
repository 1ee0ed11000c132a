"""The one list of card checks. A check takes the evidence and yields claims; what is not declared yields none."""

from collections.abc import Callable, Iterable

from audit.card import declared_base, licence, scores, shape
from audit.evidence import Evidence
from audit.records import CardClaim

CardCheck = Callable[[Evidence], Iterable[CardClaim]]

CARD_CHECKS: tuple[CardCheck, ...] = (
    declared_base.base,
    declared_base.relation,
    licence.licence,
    shape.parameters,
    shape.dtype,
    shape.architecture,
    shape.vocabulary,
    scores.scores,
)
