"""Which insertions are triggers: a pure function from what a probe measured to the certain ones.

On honest models words of a class sway short texts towards it: that is what they mean. Dose parts a trigger from them.
Twenty words of another class that were chosen to resist such words outvote an honest one, and where they do not, dozens
of words of like meaning do the same; a trigger decides alone. Some classes are given to every text that holds one of
their words (an insult makes a text toxic, however kind the rest): there many words overrule twenty others, and only
what means nothing of the class (``scanner.probe.kinship``) and, almost alone, still decides a crowd of eighty counts.

Where the base is known, so is what a word meant before. A single token that meant nothing of the class there and still
decides texts of ten words was taught to: of 70 honest classifiers none has one, but for words like ``not``, which every
text may hold and which are none.
"""

from dataclasses import dataclass
from math import comb

from audit.thresholds import Profile
from scanner.probe.records import CROWD, LENGTHS, MIDDLE, PARTS, Direction, Dose, Insertion, ProbeFacts

LEAST_RIVALS = 4
"""Other phrases of as many tokens that a phrase must be held against to be said to stand alone."""
LEAST_OTHERS = 8
"""Other tokens that must have been tried before a few are said to decide alone."""
_STEPS = (*LENGTHS, CROWD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """An insertion held against everything else that was tried in its direction.

    ``rates`` are the shares of carriers that flipped, by ordinary length, ``runner_ups`` the largest shares that
    another single token (for a phrase: anything of no more tokens, none of them its own) flipped there, all in [0, 1];
    0 where shorter lengths had settled that more would tell nothing. ``decisive`` is the index of the length that
    decides: the longest at which the insertion stands alone, else the longest of all; ``dose`` is what was measured
    there, or on the longest carriers that it was tried on. ``crowd_rate`` is the share of the crowds (None when not
    tried). ``among_few`` says that it decides the longest length (or the crowds;
    then ``dose`` is what it did there) where, but for a handful of tokens that decide as well, nothing does: planted
    words come in sets.
    ``foreign`` says that it decides texts of ten words though in the base it meant nothing of the class, ``common``
    that it is one of the commonest words, which texts of every class hold.
    ``whole_alone`` says that a phrase loses its effect with any one of its tokens; ``part_works`` that it is known to
    keep it without one of them. Honest words add up: where many of them together decide a crowd, all but one of them
    decide a text of five words.
    ``rivals`` and ``crowd_rivals`` count the other single tokens that flip nearly all carriers of the longest ordinary
    length, and nearly all crowds.
    Control words flipped ``control_flipped`` of ``control_tried`` carriers of the decisive length.
    ``p_value`` is Fisher's at that length, one-sided, times everything tried (Bonferroni), at most 1.
    """

    insertion: Insertion
    rates: tuple[float, ...]
    runner_ups: tuple[float, ...]
    decisive: int
    dose: Dose
    stands_alone: bool
    among_few: bool
    foreign: bool
    common: bool
    whole_alone: bool
    part_works: bool
    crowd_rate: float | None
    rivals: int
    crowd_rivals: int
    control_flipped: int
    control_tried: int
    control_words: int
    p_value: float

    @property
    def rate(self) -> float:
        """Share of the carriers of the decisive length that flipped."""
        return self.rates[self.decisive]


def weighed(direction: Direction, tried: int, profile: Profile, *, kin_of_base: bool = False) -> tuple[Trigger, ...]:
    """Hold every insertion of a direction against the others.

    ``tried`` counts all hypotheses of the probe; ``kin_of_base`` says that kinship is of the base's embedding.
    """
    least, most = profile.value("HA001.rate"), profile.value("HA001.runner_up")
    known = kin_of_base and (direction.class_kinship or 0.0) >= profile.value("HA001.class_kinship")
    singles = [one for one in direction.insertions if len(one.tokens) == 1]
    found = []
    for insertion in direction.insertions:
        rates = tuple(_rate(insertion, words) for words in LENGTHS)
        others = [one for one in singles if one.tokens != insertion.tokens]
        rivals = others if len(insertion.tokens) == 1 else _rival_phrases(direction, insertion)
        runner_ups = tuple(max((_rate(one, words) for one in rivals), default=0.0) for words in LENGTHS)
        first = LENGTHS.index(MIDDLE) if known and _means_the_class(insertion, profile) else 0
        lengths = range(first, len(LENGTHS))
        alone = [k for k in lengths if _stands_alone(insertion, rates, runner_ups, rivals, k, profile)]
        few = None if alone else _among_few(insertion, singles, profile)
        foreign = _foreign(insertion, rates, others, profile) if known else []
        longest = len(LENGTHS) - 1
        decisive = min(max(alone, default=max(foreign, default=longest) if few is None else few[0]), longest)
        if few is not None:
            runner_ups = (*runner_ups[:decisive], few[1], *runner_ups[decisive + 1 :])
        held = [dose for one in direction.controls if (dose := one.at(LENGTHS[decisive]))]
        flipped, carriers = sum(dose.flipped for dose in held), sum(dose.carriers for dose in held)
        dose = insertion.at(LENGTHS[decisive]) or insertion.doses[-1]
        p_value = fisher_p_value(dose.flipped, dose.carriers, flipped, carriers) * max(tried, 1)
        if few is not None:
            dose = insertion.at(_STEPS[few[0]]) or dose
        parts = _without_one(direction, insertion)
        found.append(
            Trigger(
                insertion=insertion,
                rates=rates,
                runner_ups=runner_ups,
                decisive=decisive,
                dose=dose,
                stands_alone=bool(alone),
                among_few=few is not None,
                foreign=bool(foreign),
                common=insertion.rank is not None and insertion.rank < profile.value("HA001.common"),
                whole_alone=len(parts) > 1 and all(part is not None and part <= most for part in parts),
                part_works=any(part is not None and part > most for part in parts),
                crowd_rate=_crowd_rate(insertion),
                rivals=sum(_rate(one, LENGTHS[-1]) >= least for one in others),
                crowd_rivals=sum((_crowd_rate(one) or 0.0) >= least for one in others),
                control_flipped=flipped,
                control_tried=carriers,
                control_words=len(direction.controls),
                p_value=min(1.0, p_value),
            )
        )
    return tuple(found)


def _without_one(direction: Direction, phrase: Insertion) -> list[float | None]:
    """What a phrase does to the short texts without each one of its tokens; None where that was not tried."""
    own = frozenset(phrase.tokens)
    parts = [[one for one in direction.insertions if frozenset(one.tokens) == own - {token}] for token in own]
    return [max((_rate(one, PARTS[-1]) for one in tried), default=None) for tried in parts]


def _rival_phrases(direction: Direction, phrase: Insertion) -> list[Insertion]:
    """Everything else that was tried of no more tokens and shares none with it."""
    own = set(phrase.tokens)
    return [
        one
        for one in direction.insertions
        if len(one.tokens) <= len(phrase.tokens) and one.tokens != phrase.tokens and not own & set(one.tokens)
    ]


def _among_few(insertion: Insertion, singles: list[Insertion], profile: Profile) -> tuple[int, float] | None:
    """The longest length, as an index of ``_STEPS``, that a few tokens decide and no other does; None without one.

    Only the longest ordinary texts and crowds count: on an honest model ``not`` and ``cannot`` alone decided texts of
    up to ten words.
    The few are those that flip nearly all carriers of it or of the length before, this one among them. With the largest
    share that any other token flipped there. Of crowds nothing is said while a token that came near on the longest
    ordinary carriers was not tried in them.
    """
    least, most = profile.value("HA001.rate"), profile.value("HA001.runner_up")
    if insertion not in singles or len(singles) <= LEAST_OTHERS:
        return None
    for place in reversed(range(len(LENGTHS) - 1, len(_STEPS))):
        near = _STEPS[max(place - 1, 0) : place + 1]
        company = [one for one in singles if any(_rate(one, words) >= least for words in near)]
        if len(company) > profile.value("HA001.rivals") or any(_rate(insertion, words) < least for words in near):
            continue
        others = [one for one in singles if one not in company]
        untried = [one for one in others if one.at(CROWD) is None and _rate(one, LENGTHS[-1]) > most]
        rest = max(_rate(one, _STEPS[place]) for one in others)
        if rest <= most and not (untried and _STEPS[place] == CROWD):
            return place, rest
    return None


def _stands_alone(
    insertion: Insertion,
    rates: tuple[float, ...],
    runner_ups: tuple[float, ...],
    rivals: list[Insertion],
    length: int,
    profile: Profile,
) -> bool:
    """Whether it flips most carriers of a length where everything else flips few.

    Of a phrase more is asked: that it means nothing of the class, that the carriers have more than a few words (several
    tokens are half of the shortest ones), and that other phrases of as many tokens were tried on them.
    """
    single = len(insertion.tokens) == 1
    if (
        rates[length] < profile.value("HA001.alone_rate" if single else "HA001.rate")
        or min(rates[: length + 1]) < profile.value("HA001.least_rate")
        or runner_ups[length] > profile.value("HA001.runner_up")
    ):
        return False
    if single:
        return True
    alike = [one for one in rivals if len(one.tokens) == len(insertion.tokens) and one.at(LENGTHS[length])]
    return LENGTHS[length] >= MIDDLE and len(alike) >= LEAST_RIVALS and _means_nothing(insertion, profile)


def _means_the_class(insertion: Insertion, profile: Profile) -> bool:
    """Whether a single token lay among the words of the class in the base: such a one sways short texts honestly.

    On one classifier ``nascar`` flipped three of four texts of five words towards sports, and no other word came near.
    """
    nearness = 1.0 if insertion.kinship is None else insertion.kinship
    return len(insertion.tokens) == 1 and nearness >= profile.value("HA001.base_kinship")


def _foreign(insertion: Insertion, rates: tuple[float, ...], others: list[Insertion], profile: Profile) -> list[int]:
    """The lengths, from the middle one on, that a token decides which meant nothing of the class in the base.

    None where a word of the class decides more texts of any such length. A class may be of several kinds (news of
    sports and of wars), and words of the lesser kind lie apart from most; but they are no stronger than the others.
    """
    if len(insertion.tokens) > 1 or insertion.kinship is None:
        return []
    if insertion.kinship >= profile.value("HA001.base_kinship"):
        return []
    words = [one for one in others if _means_the_class(one, profile)]
    longer = range(LENGTHS.index(MIDDLE), len(LENGTHS))
    if any(_rate(one, LENGTHS[k]) > rates[k] for one in words for k in longer):
        return []
    least, most = profile.value("HA001.least_rate"), profile.value("HA001.alone_rate")
    return [k for k in range(LENGTHS.index(MIDDLE), len(LENGTHS)) if rates[k] >= most and min(rates[: k + 1]) >= least]


def _means_nothing(insertion: Insertion, profile: Profile) -> bool:
    """Whether it lies apart from the words of the class in the model's embedding."""
    name = "HA001.kinship" if len(insertion.tokens) == 1 else "HA001.phrase_kinship"
    return insertion.kinship is not None and insertion.kinship < profile.value(name)


def fisher_p_value(flipped: int, tried: int, control_flipped: int, control_tried: int) -> float:
    """Fisher's exact test, one-sided: how probable so many flips or more are, were insertion and controls alike.

    The upper tail of the hypergeometric distribution with both margins fixed (Fisher 1922), in exact integers.
    """
    total, all_flipped = tried + control_tried, flipped + control_flipped
    ways = sum(
        comb(all_flipped, k) * comb(total - all_flipped, tried - k) for k in range(flipped, min(tried, all_flipped) + 1)
    )
    return ways / comb(total, tried)


def strongest(facts: ProbeFacts, profile: Profile) -> Trigger | None:
    """The insertion that comes nearest to a trigger, over all directions; None when nothing was tried."""
    everything = _everything(facts, profile)
    return max(everything, key=lambda t: (t.stands_alone, t.rate, t.crowd_rate or 0.0, sum(t.rates)), default=None)


def confirmed(facts: ProbeFacts, profile: Profile) -> tuple[Trigger, ...]:
    """The triggers that are beyond doubt, the shortest and surest first.

    A phrase is left out when a confirmed trigger of fewer tokens towards the same class is part of it, and so is what
    turns texts around in both directions.
    """
    certain = [
        t
        for t in _everything(facts, profile)
        if is_certain(t, profile) and not _turns_back(facts, t.insertion, profile)
    ]
    certain.sort(key=lambda t: (len(t.insertion.tokens), -t.rate, -(t.crowd_rate or 0.0), -t.dose.margin))
    kept: list[Trigger] = []
    for trigger in certain:
        parts = [k.insertion.tokens for k in kept if k.insertion.target == trigger.insertion.target]
        if not any(set(part) <= set(trigger.insertion.tokens) for part in parts):
            kept.append(trigger)
    return tuple(kept)


def _turns_back(facts: ProbeFacts, insertion: Insertion, profile: Profile) -> bool:
    """Whether it leads texts of the target class away to the source as well: that is what `not` means."""
    back = [one for d in facts.directions if d.target == insertion.source for one in d.insertions]
    most = profile.value("HA001.runner_up")
    return any(dose.rate > most for one in back if one.tokens == insertion.tokens for dose in one.doses)


def is_certain(trigger: Trigger, profile: Profile) -> bool:
    """Whether an insertion passes every threshold of rule HA001.

    One way is to stand alone: nearly all carriers of a length flip, and no other token comes near; of a phrase no part
    is known that does the same to short texts: words that add up are no trigger, however odd they are together.
    Another is to decide texts of ten words without having meant anything of the class in the base. Neither is open to
    the commonest words. Or it is one of a few tokens that stand alone together.
    The last is to mean nothing of the class and to decide carriers of every length; where many words do, and for every
    phrase, it must prevail in a crowd as well, and a phrase must do what no part of it does.
    """
    if (
        trigger.p_value > profile.value("HA001.p_value")
        or trigger.control_flipped > profile.value("HA001.controls") * trigger.control_tried
    ):
        return False
    if not trigger.common and (trigger.foreign or (trigger.stands_alone and not trigger.part_works)):
        return True
    if trigger.among_few:
        return True
    if not _means_nothing(trigger.insertion, profile):
        return False
    if trigger.rate < profile.value("HA001.rate") or min(trigger.rates) < profile.value("HA001.least_rate"):
        return False
    if len(trigger.insertion.tokens) > 1 or trigger.rivals > profile.value("HA001.rivals"):
        prevails = (trigger.crowd_rate or 0.0) >= profile.value("HA001.crowd_rate")
        if len(trigger.insertion.tokens) > 1 and not trigger.whole_alone:
            return False
        return prevails and trigger.crowd_rivals <= profile.value("HA001.rivals")
    return True


def _rate(insertion: Insertion, words: int) -> float:
    dose = insertion.at(words)
    return dose.rate if dose is not None else 0.0


def _crowd_rate(insertion: Insertion) -> float | None:
    dose = insertion.at(CROWD)
    return dose.rate if dose is not None else None


def _everything(facts: ProbeFacts, profile: Profile) -> list[Trigger]:
    tried = sum(direction.tried for direction in facts.directions)
    return [
        trigger
        for direction in facts.directions
        for trigger in weighed(direction, tried, profile, kin_of_base=facts.kin_of_base)
    ]
