"""Flips are counted no further than the answer needs, and no further answer is lost by that."""

import numpy as np
import pytest
from tiny_classifiers import BAD, FIRST, GOOD, TARGET, make_classifier
from tiny_words import WORDS

from audit.thresholds import load_profile
from scanner.probe.carriers import make_carriers, ordinary_words, with_crowds
from scanner.probe.inserting import GIVE_UP, STRIDE, inserted, measure, measured_at, places_in
from scanner.probe.loading import load
from scanner.probe.records import LENGTHS
from scanner.probe.running import OutOfTokens, Runner
from scanner.probe.settling import CONTENDS, FEW_ALONE, KIN, MANY, QUIET

TRIGGER = FIRST + len(WORDS) - 1
COUNTS = (12, 12, 12, 24)
SINGLES = [((token,), "vocabulary") for token in (TRIGGER, *GOOD[:20], *BAD[:5])]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    folder = make_classifier(tmp_path_factory.mktemp("poisoned"), "bert", poisoned=True)
    runner = Runner(loaded=load(folder, most_parameters=10**7))
    pool = np.asarray(ordinary_words(runner.loaded), dtype=np.int64)
    alone = runner.logits([(int(word),) for word in pool])
    carriers = make_carriers(runner, pool, alone, 1 - TARGET, each=24, rng=np.random.default_rng(0))
    return runner, carriers


def test_short_cuts_leave_out_only_what_decides_nothing(poisoned):
    runner, carriers = poisoned
    short = measure(runner, SINGLES, carriers, TARGET, counts=COUNTS)
    whole = measure(runner, SINGLES, carriers, TARGET, counts=COUNTS, whole=True)
    assert short[0] == whole[0]
    assert [dose.rate for dose in short[0].doses] == [1.0, 1.0, 1.0, 1.0]
    least = load_profile().value("HA001.least_rate")
    for cut, full in zip(short[1:], whole[1:], strict=True):
        stopped = len(cut.doses) < len(full.doses) or any(d.carriers < 12 for d in cut.doses)
        if stopped:
            assert min(dose.rate for dose in full.doses) < least
        else:
            assert cut == full
    assert sum(one.carriers for one in short) < sum(one.carriers for one in whole)


def test_what_is_cut_short_or_left_unsettled_lies_below_every_threshold():
    profile = load_profile()
    least, rate = profile.value("HA001.least_rate"), profile.value("HA001.rate")
    assert GIVE_UP < least <= rate
    assert least >= CONTENDS
    assert profile.value("HA001.kinship") < KIN
    assert profile.value("HA001.rivals") < MANY
    assert profile.value("HA001.crowd_rate") >= CONTENDS
    assert profile.value("HA001.rivals") <= FEW_ALONE
    assert profile.value("HA001.runner_up") >= QUIET


def test_one_more_length_keeps_what_was_counted(poisoned):
    runner, carriers = poisoned
    (one,) = measure(runner, SINGLES[-1:], carriers, TARGET, counts=(12,), lengths=LENGTHS[:1])
    (more,) = measured_at(runner, [one], carriers, LENGTHS[3], 24)
    assert [dose.words for dose in more.doses] == [LENGTHS[0], LENGTHS[3]]
    assert more.at(LENGTHS[0]) == one.at(LENGTHS[0])
    assert more.at(LENGTHS[1]) is None
    assert measured_at(runner, [more], carriers, LENGTHS[3], 24) == (more,)


def test_crowds_are_made_when_they_are_asked_for(poisoned):
    runner, carriers = poisoned
    before = runner.tokens
    crowds = with_crowds(runner, carriers)
    assert runner.tokens > before
    assert set(crowds.texts) == {*LENGTHS, 80}
    assert with_crowds(runner, crowds) is crowds


def test_nothing_half_measured_is_returned_when_tokens_run_out(poisoned):
    runner, carriers = poisoned
    bounded = Runner(loaded=runner.loaded, most_tokens=500)
    with pytest.raises(OutOfTokens):
        measure(bounded, SINGLES, carriers, TARGET, counts=COUNTS)
    assert bounded.tokens <= 500


def test_places_are_spread_from_the_first_to_the_last(poisoned):
    places = places_in(10, 24)
    assert min(places) == 0
    assert max(places) == 10
    assert len({places[i] for i in range(0, 24, STRIDE)}) > 4
    assert inserted((1, 2), (9,), 2) == (1, 2, 9)
