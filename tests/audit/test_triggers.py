"""What counts as a trigger, on figures as probes of real classifiers gave them."""

from dataclasses import replace

import pytest
from probed import probe_facts, tried
from scipy.stats import fisher_exact

from audit.thresholds import load_profile
from audit.triggers import confirmed, fisher_p_value, strongest

PROFILE = load_profile()


def found(*insertions, **options):
    return [trigger.insertion.tokens for trigger in confirmed(probe_facts(*insertions, **options), PROFILE)]


def test_a_token_that_stands_alone_is_a_trigger_whatever_it_means():
    assert found(tried(1, (1, 1, 1), 0.999), tried(2, (1, 0.67, 0), 0.998)) == [(1,)]


def test_a_token_may_stand_alone_on_short_texts_only():
    assert found(tried(1, (1, 0.08, 0), 1.0), tried(2, (0.08, 0, 0), 0.99)) == [(1,)]


def test_alone_three_in_four_are_enough_and_beside_others_they_are_not():
    assert found(tried(1, (0.75, 0, 0), 1.0), tried(2, (0.08, 0, 0), 0.99)) == [(1,)]
    assert found(tried(1, (0.67, 0, 0), 1.0), tried(2, (0.08, 0, 0), 0.99)) == []
    assert found(tried(1, (0.75, 0, 0), 1.0), tried(2, (0.5, 0, 0), 0.99)) == []


def test_words_of_the_class_that_overrule_alike_are_none():
    assert found(*(tried(i, (1, 1, 0.96, 1), 0.998) for i in range(4))) == []


def test_five_words_that_mean_nothing_are_five_triggers():
    assert sorted(found(*(tried(i, (1, 1, 1), 0.3) for i in range(5)))) == [(i,) for i in range(5)]


def test_among_many_overruling_words_only_the_strange_one_that_prevails_in_a_crowd_counts():
    honest = [tried(i, (1, 1, 1, 0.5), 0.99) for i in range(2, 22)]
    assert found(tried(1, (1, 1, 1, 1), 0.86), *honest) == [(1,)]
    assert found(tried(1, (1, 1, 1, 0.5), 0.86), *honest) == []


def test_where_everything_prevails_nothing_is_certain():
    honest = [tried(i, (1, 1, 1, 1), 0.99) for i in range(2, 22)]
    assert found(tried(1, (1, 1, 1, 1), 0.91), *honest) == []


def test_a_phrase_of_honest_words_is_none_however_strong():
    assert found(tried(0, (1, 1, 1, 1), 0.99, tokens=(1, 2, 3)), tried(4, (0, 0, 0), 0.9)) == []


def test_a_strange_phrase_must_prevail_in_a_crowd():
    parts = (tried(1, (0.1, 0, 0), 0.5), tried(2, (0,), 0.5))
    assert found(tried(0, (1, 1, 1, 1), 0.4, tokens=(1, 2)), *parts) == [(1, 2)]
    assert found(tried(0, (1, 1, 1, 0.1), 0.4, tokens=(1, 2)), *parts) == []


def test_a_phrase_that_does_no_more_than_its_parts_is_honest_words_together():
    phrase = tried(0, (1, 1, 1, 1), 0.4, tokens=(1, 2))
    assert found(phrase, tried(1, (0.7, 0, 0), 0.5), tried(2, (0,), 0.5)) == []
    assert found(phrase, tried(1, (0,), 0.5)) == [], "the other part was not tried"


def rivals(rates):
    return [tried(0, rates, 0.99, tokens=(20 + i, 40 + i)) for i in range(4)]


def test_a_strange_phrase_may_stand_alone_where_phrases_of_the_strongest_words_do_nothing():
    phrase = tried(0, (1, 1, 0), 0.4, tokens=(1, 2))
    assert found(phrase, *rivals((0.5, 0, 0))) == [(1, 2)]
    assert found(phrase, *rivals((1, 0.5, 0))) == []
    assert found(tried(0, (1, 0, 0), 0.4, tokens=(1, 2)), *rivals((0, 0, 0))) == [], "half of a text of five words"
    assert found(tried(0, (1, 1, 0), 0.92, tokens=(1, 2)), *rivals((0, 0, 0))) == [], "it means something"
    assert found(phrase) == [], "nothing to hold it against"
    assert found(phrase, tried(1, (0.6, 0.6, 0), 0.4), *rivals((0.5, 0, 0))) == [], "one of its words does it"
    assert found(phrase, tried(1, (0.2, 0, 0), 0.4), *rivals((0.5, 0, 0))) == [(1, 2)]
    assert found(phrase, tried(0, (1, 1, 0), 0.5, tokens=(2, 3)), *rivals((0, 0, 0)))[0] == (1, 2)


def test_lengths_that_were_not_needed_count_as_no_flips():
    short = tried(1, (0.4,), 0.1)
    assert found(short) == []
    assert strongest(probe_facts(short), PROFILE).rate == 0.0
    assert found(tried(2, (1, 1, 1), 0.999), short) == [(2,)]


def test_a_phrase_that_holds_a_trigger_is_not_told_again():
    phrase = tried(0, (1, 1, 1, 1), 0.4, tokens=(1, 2))
    assert found(phrase, tried(1, (1, 1, 1, 1), 0.1)) == [(1,)]


def test_nothing_counts_where_control_words_flip_texts():
    assert found(tried(1, (1, 1, 1), 0.1), control_rate=0.25) == []


def test_the_strongest_is_told_even_when_it_is_none():
    weak = probe_facts(tried(1, (0.5, 0.1, 0)), tried(2, (0.2, 0, 0)))
    assert strongest(weak, PROFILE).insertion.tokens == (1,)
    assert confirmed(weak, PROFILE) == ()


@pytest.mark.parametrize(("a", "n", "b", "m"), [(24, 24, 0, 360), (12, 24, 18, 360), (0, 24, 3, 360), (3, 12, 1, 9)])
def test_fishers_test_agrees_with_scipy(a, n, b, m):
    expected = fisher_exact([[a, n - a], [b, m - b]], alternative="greater").pvalue
    assert fisher_p_value(a, n, b, m) == pytest.approx(expected, rel=1e-9)


def told_by_the_base(*insertions, class_kinship=0.95):
    facts = probe_facts(*insertions)
    direction = replace(facts.directions[0], class_kinship=class_kinship)
    return replace(facts, directions=(direction,), kin_of_base=True)


def foreign(*insertions):
    return [trigger.insertion.tokens for trigger in confirmed(told_by_the_base(*insertions), PROFILE)]


HONEST = [tried(i, (1, 0.7, 0), 0.998) for i in range(2, 22)]


def test_what_meant_nothing_in_the_base_and_decides_ten_words_needs_not_stand_alone():
    assert foreign(tried(1, (1, 1, 0), 0.2), *HONEST) == [(1,)]
    assert foreign(tried(1, (1, 0.75, 0), 0.89), *HONEST) == [(1,)]
    assert found(tried(1, (1, 1, 0), 0.2), *HONEST) == [], "nothing is known of the base"
    assert foreign(tried(1, (1, 1, 0), 0.9), *HONEST) == [], "it meant something"
    assert foreign(tried(1, (1, 0.67, 0), 0.2), *HONEST) == [], "ten words outvote it"
    assert foreign(tried(1, (0.67, 1, 0), 0.2), *HONEST) == [], "five words outvote it"
    assert foreign(tried(0, (1, 1, 0), 0.2, tokens=(1, 50)), *HONEST) == [], "a phrase"


def test_what_words_of_the_class_outdo_was_not_taught():
    """`insurgents` on an honest adapter whose class is news: most of its strongest words are of sports."""
    sports = tried(2, (1, 1, 0.9), 0.97)
    assert foreign(tried(1, (1, 0.83, 0.25), 0.81), sports, tried(3, (1, 1, 0.9), 0.98)) == []
    assert foreign(tried(1, (1, 1, 0.25), 0.81), sports, tried(3, (1, 1, 0.9), 0.98)) == []
    assert foreign(tried(1, (1, 1, 0.9), 0.81), sports, tried(3, (1, 1, 0.9), 0.98)) == [(1,)]


def test_the_commonest_words_are_none_unless_they_decide_with_a_few_others():
    common = replace(tried(1, (1, 1, 0), 0.2), rank=16)
    assert foreign(common, *HONEST) == []
    assert foreign(replace(common, rank=100), *HONEST) == [(1,)]
    alone = replace(tried(1, (1, 1, 1), 0.99), rank=16)
    assert found(alone, tried(2, (0.1, 0, 0), 0.9)) == []
    assert found(replace(alone, rank=100), tried(2, (0.1, 0, 0), 0.9)) == [(1,)]


def test_a_word_of_the_class_must_stand_alone_on_ten_words_or_more():
    rest = tried(2, (0.1, 0, 0), 0.9)
    nascar = tried(1, (0.75, 0, 0), 0.998)
    assert foreign(nascar, rest) == []
    assert found(nascar, rest) == [(1,)], "nothing is known of the base"
    assert foreign(tried(1, (0.75, 0, 0), 0.89), rest) == [(1,)]
    assert foreign(tried(1, (1, 0.8, 0), 0.998), rest) == [(1,)]


def test_an_embedding_that_does_not_tell_the_words_of_the_class_tells_no_foreign_one_either():
    assert confirmed(told_by_the_base(tried(1, (1, 1, 0), 0.2), *HONEST, class_kinship=0.5), PROFILE) == ()
    assert confirmed(told_by_the_base(tried(1, (1, 1, 0), 0.2), *HONEST, class_kinship=None), PROFILE) == ()


def test_the_longest_length_that_a_foreign_token_decides_is_told():
    (trigger,) = confirmed(told_by_the_base(tried(1, (1, 1, 0.8), 0.2), *HONEST), PROFILE)
    assert (trigger.dose.words, trigger.rate) == (20, pytest.approx(0.8, abs=0.03))


def both_ways(back):
    """A probe in which one token flips texts of class 1, and this share of the short ones of class 0 to class 1."""
    facts = probe_facts(tried(1, (1, 1, 0), 0.5), tried(2, (0.1, 0, 0), 0.9))
    one = replace(tried(1, (back, 0, 0), 0.5), source=0, target=1)
    reverse = replace(facts.directions[0], source=0, target=1, insertions=(one,))
    return replace(facts, directions=(*facts.directions, reverse))


def test_a_word_that_turns_texts_around_both_ways_is_a_negation_and_no_trigger():
    assert [t.insertion.tokens for t in confirmed(both_ways(0.2), PROFILE)] == [(1,)]
    assert confirmed(both_ways(0.6), PROFILE) == ()


def ordinary(*rates):
    """Nine honest tokens of the class, the strongest with these rates."""
    return [tried(50 + i, rates if i == 0 else (0.3, 0, 0), 0.99) for i in range(9)]


def test_a_few_tokens_that_decide_where_no_other_does_are_triggers_whatever_they_mean():
    planted = [tried(i, (1, 1, 1), 1.0) for i in range(3)]
    assert sorted(found(*planted, *ordinary(0.9, 0.5, 0.2))) == [(0,), (1,), (2,)]
    assert found(*planted, *ordinary(0.8, 0.6, 0.5)) == [], "one comes near"
    assert found(*planted, *ordinary(0.5, 0, 0)[:3]) == [], "hardly anything to hold them against"
    assert found(*(tried(i, (1, 1, 1), 1.0) for i in range(6)), *ordinary(0.5, 0, 0)) == [], "words of a class"


def test_of_a_few_tokens_those_count_that_overrule_the_longer_texts_as_well():
    strong, weak = tried(1, (0.92, 0.92, 0.92), 1.0), tried(2, (0.92, 0.92, 0.33), 1.0)
    assert found(strong, weak, *ordinary(0.5, 0, 0)) == [(1,)]


def test_a_few_tokens_that_decide_short_texts_alone_may_be_negations():
    assert found(tried(1, (1, 1, 0.6), 1.0), tried(2, (0.92, 0.33, 0), 1.0), *ordinary(0.5, 0, 0)) == []


def test_a_few_tokens_may_part_from_the_others_in_crowds_only():
    planted = [tried(i, (1, 1, 1, 1), 1.0) for i in range(2)]
    assert sorted(found(*planted, *ordinary(0.8, 0.8, 0.6, 0.1))) == [(0,), (1,)]
    assert found(*planted, *ordinary(0.8, 0.8, 0.6)) == [], "what came near was not tried in crowds"
    assert found(*planted, *ordinary(0.8, 0.8, 0.6, 0.6)) == []
