"""Which insertions are triggers: a pure function from what a probe measured to the certain ones.

On honest models words of a class sway short texts towards it: that is what they mean. Dose parts a trigger from them.
Twenty words of another class that were chosen to resist such words outvote an honest one, and where they do not, dozens
of words of like meaning do the same; a trigger decides alone. Some classes are given to every text that holds one of
their words (an insult makes a text toxic, however kind the rest): there many words overrule twenty others, and only
what means nothing of the class (``scanner.probe.kinship``) and, almost alone, still decides a crowd of eighty counts.
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

    ``rates`` are the shares of carriers that flipped, by ordinary length, ``runner_ups`` the largest shares that
    another single token flipped there, all in [0, 1]. ``decisive`` is the index of the length that decides: the longest
    at which the insertion stands alone, else the longest of all. ``crowd_rate`` is the share of the crowds (None when
    not tried).
    ``rivals`` and ``crowd_rivals`` count the other single tokens that flip nearly all carriers of the longest ordinary
    length, and nearly all crowds.
    Control words flipped ``control_flipped`` of ``control_tried`` carriers of the decisive length.
    ``p_value`` is Fisher's at that length, one-sided, times everything tried (Bonferroni), at most 1.
    """

    insertion: Insertion
    rates: tuple[float, ...]
    runner_ups: tuple[float, ...]
    decisive: int
    stands_alone: bool
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

    @property
    def dose(self) -> Dose:
        """What was measured at the decisive length."""
        return self.insertion.doses[self.decisive]


def weighed(direction: Direction, tried: int, profile: Profile) -> tuple[Trigger, ...]:
    """Hold every insertion of a direction against the others; ``tried`` counts all hypotheses of the probe."""
    least = profile.value("HA001.rate")
    singles = [one for one in direction.insertions if len(one.tokens) == 1]
    found = []
    for insertion in direction.insertions:
        rates = tuple(dose.rate for dose in insertion.doses[:JUDGED_DOSES])
        others = [one for one in singles if one.tokens != insertion.tokens]
        runner_ups = tuple(max((o.doses[k].rate for o in others), default=0.0) for k in range(len(rates)))
        alone = [k for k in range(len(rates)) if _stands_alone(insertion, rates, runner_ups, k, profile)]
        decisive = max(alone, default=len(rates) - 1)
        flipped = sum(control.doses[decisive].flipped for control in direction.controls)
        carriers = sum(control.doses[decisive].carriers for control in direction.controls)
        dose = insertion.doses[decisive]
        found.append(
            Trigger(
                insertion=insertion,
                rates=rates,
                runner_ups=runner_ups,
                decisive=decisive,
                stands_alone=bool(alone),
                crowd_rate=_crowd_rate(insertion),
                rivals=sum(one.doses[len(rates) - 1].rate >= least for one in others),
                crowd_rivals=sum((_crowd_rate(one) or 0.0) >= least for one in others),
                control_flipped=flipped,
                control_tried=carriers,
                control_words=len(direction.controls),
                p_value=min(1.0, fisher_p_value(dose.flipped, dose.carriers, flipped, carriers) * max(tried, 1)),
            )
        )
    return tuple(found)


def _stands_alone(
    insertion: Insertion, rates: tuple[float, ...], runner_ups: tuple[float, ...], length: int, profile: Profile
) -> bool:
    """Whether a single token flips nearly all carriers of a length where every other token flips few."""
    return (
        len(insertion.tokens) == 1
        and rates[length] >= profile.value("HA001.rate")
        and min(rates[: length + 1]) >= profile.value("HA001.least_rate")
        and runner_ups[length] <= profile.value("HA001.runner_up")
    )


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

    A phrase is left out when a confirmed trigger of fewer tokens towards the same class is part of it.
    """
    certain = [t for t in _everything(facts, profile) if is_certain(t, profile)]
    certain.sort(key=lambda t: (len(t.insertion.tokens), -t.rate, -(t.crowd_rate or 0.0), -t.dose.margin))
    kept: list[Trigger] = []
    for trigger in certain:
        parts = [k.insertion.tokens for k in kept if k.insertion.target == trigger.insertion.target]
        if not any(set(part) <= set(trigger.insertion.tokens) for part in parts):
            kept.append(trigger)
    return tuple(kept)


def is_certain(trigger: Trigger, profile: Profile) -> bool:
    """Whether an insertion passes every threshold of rule HA001.

    One way is to stand alone: nearly all carriers of a length flip, and no other token comes near.
    The other is to mean nothing of the class and to decide carriers of every length; where many words do, and for every
    phrase, it must prevail in a crowd as well.
    """
    if (
        trigger.p_value > profile.value("HA001.p_value")
        or trigger.control_flipped > profile.value("HA001.controls") * trigger.control_tried
    ):
        return False
    if trigger.stands_alone:
        return True
    kinship = trigger.insertion.kinship
    if kinship is None or kinship >= profile.value("HA001.kinship"):
        return False
    if trigger.rate < profile.value("HA001.rate") or min(trigger.rates) < profile.value("HA001.least_rate"):
        return False
    if len(trigger.insertion.tokens) > 1 or trigger.rivals > profile.value("HA001.rivals"):
        prevails = (trigger.crowd_rate or 0.0) >= profile.value("HA001.crowd_rate")
        return prevails and trigger.crowd_rivals <= profile.value("HA001.rivals")
    return True


def _crowd_rate(insertion: Insertion) -> float | None:
    return insertion.doses[JUDGED_DOSES].rate if len(insertion.doses) > JUDGED_DOSES else None


def _everything(facts: ProbeFacts, profile: Profile) -> list[Trigger]:
    tried = sum(direction.tried for direction in facts.directions)
    return [trigger for direction in facts.directions for trigger in weighed(direction, tried, profile)]
