"""The table of licences: complete, sourced, and consistent with itself."""

import itertools
import re
from dataclasses import replace
from typing import get_args

import pytest
from innocent_cards import MERGE, Innocent, evidence

from audit.card.licence import earlier, licence, on_file
from audit.card.licence_terms import Kind, Terms, known_terms, terms_of
from audit.detectors import card as card_rules
from scanner.card_context import Ancestor, LicenceFile


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


def above(own: str, *line: tuple[str, str], base: str = "other/mid") -> tuple[str, str]:
    """What is said of a licence when these models stand above the base."""
    of = replace(MERGE, card=f"---\nlicense: {own}\n---\n# M\n", base_card="---\nlicense: other\n---\n", base_id=base)
    made = evidence(of)
    ancestors = tuple(Ancestor(name=name, licences=(licences,)) for name, licences in line)
    made = replace(
        made,
        lineage=replace(made.lineage, chain=(base, *(name for name, _ in line))),
        card_context=replace(made.card_context, ancestors=ancestors),
    )
    (claim,) = earlier(made)
    found = [hit.rule_id for hit in card_rules.run(made) if hit.finding and "other bases" in hit.finding.explanation]
    assert found == (["HA901"] if claim.status == "contradicted" else [])
    return claim.status, claim.observed


def test_what_an_ancestor_asks_is_asked_of_all_that_descend() -> None:
    status, observed = above("mit", ("big/inst", "other"), ("big/root", "cc-by-nc-4.0"))
    assert status == "not_checkable", "the owner of big/root has shared big/inst"
    status, observed = above("mit", ("big/root", "cc-by-nc-4.0"))
    assert status == "contradicted"
    assert observed.startswith("big/root declares cc-by-nc-4.0, which permits no commercial use")
    assert above("cc-by-nc-4.0", ("big/root", "cc-by-nc-4.0"))[0] == "supported"
    assert above("mit", ("big/root", "apache-2.0"))[0] == "supported"
    assert above("mit", ("one/a", "apache-2.0"), ("two/b", "gpl-3.0"))[0] == "contradicted"
    assert above("mit", ("big/root", "never-heard-of"))[0] == "not_checkable"
    assert above("mit", ("other/root", "gpl-3.0"))[0] == "not_checkable", "the base is the same owner's"


def filed(own: str, *kept: str | None) -> str:
    made = evidence(replace(MERGE, card=f"---\nlicense: {own}\n---\n# M\n"))
    found = tuple(LicenceFile(path=f"LICENSE{n or ''}", licence=name) for n, name in enumerate(kept))
    (claim,) = on_file(replace(made, card_context=replace(made.card_context, licence_files=found)))
    return claim.status


@pytest.mark.parametrize(
    ("own", "kept", "said"),
    [
        ("mit", ("mit",), "supported"),
        ("mit", ("gpl-3.0",), "contradicted"),
        ("apache-2.0", ("cc-by-nc-4.0",), "contradicted"),
        ("MIT", ("gpl-3.0", "mit"), "supported"),
        ("mit", ("gpl-3.0", "apache-2.0"), "not_checkable"),
        ("mit", ("gpl-3.0", None), "not_checkable"),
        ("mit", (None,), "not_checkable"),
        ("other", ("mit",), "not_checkable"),
        ("bsd", ("bsd-3-clause",), "not_checkable"),
        ("gpl", ("gpl-3.0",), "not_checkable"),
        ("cc-by-4.0", ("cc-by-3.0",), "not_checkable"),
        ("openrail", ("creativeml-openrail-m",), "not_checkable"),
        ("[mit, apache-2.0]", ("gpl-3.0",), "not_checkable"),
    ],
)
def test_the_licence_file_is_held_against_the_card(own: str, kept: tuple[str | None, ...], said: str) -> None:
    assert filed(own, *kept) == said


def test_every_licence_agrees_with_its_own_file() -> None:
    assert {filed(name, name) for name in known_terms()} == {"supported"}
