"""The table of licences: complete, sourced, and consistent with itself."""

import itertools
import re
from dataclasses import replace
from typing import get_args

import pytest
from innocent_cards import MERGE, Innocent, evidence

from audit.card.licence import licence
from audit.card.licence_terms import Kind, Terms, known_terms, terms_of


@pytest.mark.parametrize("terms", known_terms().values(), ids=lambda terms: terms.id)
def test_every_entry_is_complete(terms: Terms) -> None:
    assert terms.kind in get_args(Kind)
    assert re.fullmatch(r"https?://\S+", terms.source)
    assert terms.clause
    assert terms.id == terms.id.lower()
    assert terms.commercial or terms.kind != "permissive", "what forbids commercial use asks for something"


def declared(own: str, base: str) -> str:
    of: Innocent = replace(
        MERGE, card=f"---\nlicense: {own}\n---\n# M\n", base_card=f"---\nlicense: {base}\n---\n# B\n"
    )
    (claim,) = licence(evidence(of))
    return claim.status


def test_every_pair_is_judged_by_the_base_alone() -> None:
    """A licence always follows itself; permissive bases are followed by all; strict ones never by permissive ones."""
    for own, base in itertools.product(known_terms().values(), repeat=2):
        said = declared(own.id, base.id)
        if own.id == base.id or base.kind == "permissive":
            assert said == "supported"
        elif own.kind == "permissive":
            assert said == "contradicted"
        else:
            assert said in {"contradicted", "not_checkable"}


@pytest.mark.parametrize(
    ("own", "base", "said"),
    [
        ("other", "llama3", "not_checkable"),
        ("llama3.1", "llama3", "not_checkable"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "not_checkable"),
        ("cc-by-sa-4.0", "cc-by-nc-4.0", "contradicted"),
        ("mit", "my-own", "not_checkable"),
        ("[mit, apache-2.0]", "gpl-3.0", "not_checkable"),
        ("MIT", "Apache-2.0", "supported"),
        ("unknown", "apache-2.0", "supported"),
    ],
)
def test_pairs_that_people_meet(own: str, base: str, said: str) -> None:
    assert declared(own, base) == said


def test_unknown_licences_have_no_terms() -> None:
    assert terms_of("other") is None
    assert terms_of(" MIT ") == known_terms()["mit"]
