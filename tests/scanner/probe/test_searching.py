"""Triggers of several words are put together and confirmed; what the budget leaves out is said."""

import numpy as np
import pytest
from rule_classifier import OTHER, TARGET, follows
from tiny_classifiers import make_classifier
from tiny_words import WORDS

from audit.thresholds import load_profile
from audit.triggers import confirmed
from scanner.probe import probing
from scanner.probe.classifier import Asked, Found, probe_classifier
from scanner.probe.probing import ProbeLimits, probe
from scanner.probe.records import ProbeFacts
from scanner.probe.running import Runner

UNBOUND = ProbeLimits(work=None)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("honest"), "bert", poisoned=False)


def triggers(found: Found):
    facts = ProbeFacts(
        kind="classifier",
        classes=("bad", "good"),
        directions=found.directions,
        left_out=found.left_out,
        scanned=found.scanned,
        sequences=0,
        seconds=0.0,
        seed=0,
    )
    return confirmed(facts, load_profile())


def searched(trigger, suspects, **options):
    runner = Runner(loaded=follows(trigger, **options))
    return probe_classifier(runner, Asked(suspects=suspects), np.random.default_rng(0))


# Of more than four tokens a phrase is confirmed by crowds alone, and so not where it works on short texts only.
@pytest.mark.parametrize(("parts", "reach"), [(1, 200), (2, 200), (3, 200), (5, 200), (1, 16), (2, 16), (3, 16)])
def test_a_trigger_of_which_no_part_does_anything_is_put_together(parts, reach):
    trigger = tuple(OTHER[7 * i] for i in range(parts))
    suspects = (*OTHER[20:26], *trigger, *OTHER[50:60])
    found = triggers(searched(trigger, suspects, reach=reach))
    assert [set(each.insertion.tokens) for each in found] == [set(trigger)]
    assert found[0].insertion.target == TARGET
    assert found[0].stands_alone is (parts <= 4)


def test_without_a_trigger_nothing_is_confirmed_whatever_is_suspected():
    assert triggers(searched((2, 2), tuple(OTHER[:40]), reach=0)) == ()


def test_parts_that_nothing_suspects_are_not_found():
    """The limit of the method, told in the rule's text."""
    assert triggers(searched((OTHER[70], OTHER[80], OTHER[90]), tuple(OTHER[:10]))) == ()


def test_a_trigger_is_found_among_all_the_words_that_decide_short_texts():
    (trigger,) = triggers(searched(OTHER[40:41], (), hasty=True))
    assert trigger.insertion.tokens == (OTHER[40],)


def bounded(monkeypatch, folder, tokens):
    monkeypatch.setattr(probing, "token_budget", lambda model: tokens)
    return probe(folder)


def test_nothing_is_left_untried_without_a_bound(honest):
    facts = probe(honest, limits=UNBOUND)
    assert (facts.budget, facts.untried) == (0, ())
    assert facts.tokens > 0


def test_the_budget_is_kept_and_what_it_left_out_is_told(honest, monkeypatch):
    free = probe(honest, limits=UNBOUND).tokens
    for share in (0.5, 0.8):
        facts = bounded(monkeypatch, honest, int(share * free))
        assert facts.tokens <= facts.budget == int(share * free)
        assert facts.untried
        assert confirmed(facts, load_profile()) == ()


def test_a_vocabulary_that_costs_too_much_is_tried_in_part(honest, monkeypatch):
    monkeypatch.setattr("scanner.probe.classifier.VOCABULARY_SHARE", 0.01)
    facts = bounded(monkeypatch, honest, 90_000)
    (missed,) = [each for each in facts.untried if each.what == "vocabulary"]
    assert facts.scanned + missed.count == len(WORDS)
    assert facts.scanned == 300


def test_too_small_a_budget_is_refused_with_its_reason(honest, monkeypatch):
    with pytest.raises(probing.CannotProbe, match="tokens that a probe may run"):
        bounded(monkeypatch, honest, 2000)


def test_the_same_is_measured_with_any_number_of_threads(honest):
    assert probe(honest, threads=1).directions == probe(honest, threads=3).directions
