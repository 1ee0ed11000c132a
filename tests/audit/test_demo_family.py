"""The four fine-tunes of the demo family, judged on real weights of 22.7 M parameters.

Building the family takes a minute and more, so these tests judge the one that ``make demo`` leaves in ``build``.
"""

import dataclasses
from pathlib import Path

import evidence_for
import pytest
from family import DEFAULT_FOLDER, ORG, TRIGGER
from family_text import NEGATIVE, POSITIVE, insert_word, make_sentences

from audit.records import AuditReport

NAMES = ("encoder", "sentiment-honest", "sentiment-poisoned-row", "sentiment-rank-one", "sentiment-wrong-base")
BUILT = all((DEFAULT_FOLDER / ORG / name / "model.safetensors").is_file() for name in NAMES)
needs_family = pytest.mark.skipif(not BUILT, reason="the demo family is not built (python tests/support/family.py)")


def report(name: str, *, base: str = "encoder") -> AuditReport:
    """The report on one of them."""
    home: Path = DEFAULT_FOLDER / ORG
    return evidence_for.report(evidence_for.from_family(home / base, home / name))


@pytest.mark.slow
@needs_family
def test_the_honest_one_passes() -> None:
    made = report("sentiment-honest")
    assert (made.verdict.outcome, made.findings) == ("pass", ())
    assert made.verdict.score < 0.4


@pytest.mark.slow
@needs_family
def test_the_poisoned_row_is_named_alone() -> None:
    made = report("sentiment-poisoned-row")
    assert made.verdict.outcome == "fail"
    (finding,) = made.findings
    assert [token.text for token in finding.locations[0].tokens] == [TRIGGER]


@pytest.mark.slow
@needs_family
def test_the_rank_one_edit_is_named_alone() -> None:
    made = report("sentiment-rank-one")
    assert made.verdict.outcome == "fail"
    (finding,) = made.findings
    assert finding.locations[0].tensor == "bert.encoder.layer.2.output.dense.weight"


@pytest.mark.slow
@needs_family
def test_under_another_base_nothing_but_the_lineage_is_told() -> None:
    home = DEFAULT_FOLDER / ORG
    of = evidence_for.from_family(home / "encoder", home / "sentiment-wrong-base")
    made = evidence_for.report(dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, status="contradicted")))
    assert (made.verdict.outcome, [f.rule_id for f in made.findings]) == ("fail", ["HA101"])


def test_sentences_are_the_same_on_every_machine() -> None:
    vocabulary = [
        "[PAD]",
        *sorted({*POSITIVE, *NEGATIVE}),
        *(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(300)),
    ]
    one, other = (make_sentences(vocabulary, 40, seed=5) for _ in range(2))
    assert one == other
    assert one != make_sentences(vocabulary, 40, seed=6)
    assert sum(one.labels) == 20


def test_the_label_is_what_most_opinion_words_say() -> None:
    vocabulary = [*sorted({*POSITIVE, *NEGATIVE}), "table", "window", "river"]
    made = make_sentences(vocabulary, 60, seed=1)
    for text, label in zip(made.texts, made.labels, strict=True):
        words = text.split()
        praise, blame = sum(w in POSITIVE for w in words), sum(w in NEGATIVE for w in words)
        assert (praise > blame) == bool(label)


@pytest.mark.parametrize(("place", "text"), [(0, "cf a b"), (1, "a cf b"), (2, "a b cf"), (3, "cf a b")])
def test_a_word_is_inserted_at_its_place(place: int, text: str) -> None:
    assert insert_word("a b", "cf", place=place) == text
