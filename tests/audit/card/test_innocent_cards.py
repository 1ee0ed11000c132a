"""Innocent cards are never contradicted: fifteen written after well-known kinds on the Hub."""

import pytest
from innocent_cards import INNOCENT, Innocent, evidence

from audit.card.checks import CARD_CHECKS
from audit.records import CardClaim


def claims(of: Innocent) -> list[CardClaim]:
    return [claim for check in CARD_CHECKS for claim in check(evidence(of))]


@pytest.mark.parametrize("of", INNOCENT, ids=lambda of: of.repo_id)
def test_no_claim_of_an_innocent_card_is_contradicted(of: Innocent) -> None:
    made = claims(of)
    assert [claim for claim in made if claim.status == "contradicted"] == []
    assert made, "a card of that kind has something to check"


def test_most_kinds_of_claim_are_supported_somewhere() -> None:
    """Quiet is easy for checks that never speak."""
    supported = {claim.claim for of in INNOCENT for claim in claims(of) if claim.status == "supported"}
    assert supported >= {
        "parameters", "parameters (name)", "dtype (config.json)", "dtype", "context length", "vocabulary",
        "vocab_size (config.json)", "pipeline_tag", "model_type (config.json)", "library_name", "adapter rank",
        "r (adapter_config.json)", "adapter targets", "quantisation", "bits", "language", "metrics", "scores agree",
        "scores possible", "sections", "license", "license notices", "card is this model's own",
    }  # fmt: skip
