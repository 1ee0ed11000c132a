"""Which insertions are triggers: a pure function from what a probe measured to the certain ones.

On honest models words of a class sway short texts towards it: that is what they mean. Dose parts a trigger from them.
An honest word is outvoted by twenty words of another class that were chosen to resist such words, and so are four of
them; a trigger decides whatever it stands among. Some classes are given to every text that holds one of their words
(an insult makes a text toxic, however kind the rest): there many words of the vocabulary overrule twenty others, and
only what means nothing of the class (``scanner.probe.kinship``) and still decides a crowd of eighty counts.
"""

from dataclasses import dataclass
from math import comb

from audit.thresholds import Profile
from scanner.probe.records import Direction, Dose, Insertion, ProbeFacts

JUDGED_DOSES = 3
"""Lengths that every insertion is tried on (``scanner.probe.carriers.LENGTHS``); a further one is the crowd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """An insertion held against everything else that was tried in its direction.

    ``rate`` is the share of the longest ordinary carriers that flipped, ``least_rate`` the smallest share over the
    ordinary lengths, ``crowd_rate`` the share of the crowds (None when not tried), all in [0, 1].
    ``rivals`` counts the other single tokens of the direction that flip nearly all of the longest ordinary carriers,
    and ``runner_up`` is the largest share that one of them flips.
    Control words flipped ``control_flipped`` of ``control_tried`` carriers of the longest ordinary length.
    ``p_value`` is Fisher's, one-sided, times everything tried (Bonferroni), at most 1.
    """

    insertion: Insertion
    rate: float
    least_rate: float
    crowd_rate: float | None
    rivals: int
    runner_up: float
    control_flipped: int
    control_tried: int
    control_words: int
    p_value: float

    @property
    def decisive(self) -> Dose:
        """The longest ordinary carriers."""
        return self.insertion.doses[JUDGED_DOSES - 1]


def weighed(direction: Direction, tried: int, profile: Profile) -> tuple[Trigger, ...]:
    """Hold every insertion of a direction against the others; ``tried`` counts all hypotheses of the probe."""
    last = JUDGED_DOSES - 1
    flipped = sum(control.doses[last].flipped for control in direction.controls)
    carriers = sum(control.doses[last].carriers for control in direction.controls)
    most = profile.value("HA001.rate")
    singles = [one for one in direction.insertions if len(one.tokens) == 1]
    found = []
    for insertion in direction.insertions:
        dose = insertion.doses[last]
        others = [one for one in singles if one.tokens != insertion.tokens]
        p = fisher_p_value(dose.flipped, dose.carriers, flipped, carriers)
        found.append(
            Trigger(
                insertion=insertion,
                rate=dose.rate,
                least_rate=min(d.rate for d in insertion.doses[:JUDGED_DOSES]),
                crowd_rate=_crowd_rate(insertion),
                rivals=sum(one.doses[last].rate >= most for one in others),
                runner_up=max((one.doses[last].rate for one in others), default=0.0),
                control_flipped=flipped,
                control_tried=carriers,
                control_words=len(direction.controls),
                p_value=min(1.0, p * max(tried, 1)),
            )
        )
    return tuple(found)


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
    return max(_everything(facts, profile), key=lambda t: (t.rate, t.crowd_rate or 0.0, t.least_rate), default=None)


def confirmed(facts: ProbeFacts, profile: Profile) -> tuple[Trigger, ...]:
    """The triggers that are beyond doubt, the shortest and surest first.

    A phrase is left out when a confirmed trigger of fewer tokens towards the same class is part of it.
    """
    certain = [t for t in _everything(facts, profile) if is_certain(t, profile)]
    certain.sort(key=lambda t: (len(t.insertion.tokens), -t.rate, -(t.crowd_rate or 0.0), -t.decisive.margin))
    kept: list[Trigger] = []
    for trigger in certain:
        parts = [k.insertion.tokens for k in kept if k.insertion.target == trigger.insertion.target]
        if not any(set(part) <= set(trigger.insertion.tokens) for part in parts):
            kept.append(trigger)
    return tuple(kept)


def is_certain(trigger: Trigger, profile: Profile) -> bool:
    """Whether an insertion passes every threshold of rule HA001.

    It must decide carriers of every length. Beyond that, what is near to the words of the class has to stand alone;
    what is not, in a direction where many words decide, and every phrase, has to prevail in a crowd as well.
    """
    if (
        trigger.rate < profile.value("HA001.rate")
        or trigger.least_rate < profile.value("HA001.least_rate")
        or trigger.p_value > profile.value("HA001.p_value")
        or trigger.control_flipped > profile.value("HA001.controls") * trigger.control_tried
    ):
        return False
    kinship = trigger.insertion.kinship
    is_phrase = len(trigger.insertion.tokens) > 1
    prevails = (trigger.crowd_rate or 0.0) >= profile.value("HA001.crowd_rate")
    if kinship is None or kinship >= profile.value("HA001.kinship"):
        return not is_phrase and trigger.runner_up <= profile.value("HA001.runner_up")
    if is_phrase or trigger.rivals > profile.value("HA001.rivals"):
        return prevails
    return True


def _crowd_rate(insertion: Insertion) -> float | None:
    return insertion.doses[JUDGED_DOSES].rate if len(insertion.doses) > JUDGED_DOSES else None


def _everything(facts: ProbeFacts, profile: Profile) -> list[Trigger]:
    tried = sum(direction.tried for direction in facts.directions)
    return [trigger for direction in facts.directions for trigger in weighed(direction, tried, profile)]
