"""Error rates from counts, with the bound that small counts deserve."""

from math import comb

_HALVINGS = 60


def upper_bound(events: int, trials: int, *, level: float = 0.95) -> float:
    """Return the one-sided Clopper-Pearson upper bound of a rate, in [0, 1].

    The largest p for which seeing at most ``events`` of ``trials`` still has probability 1 − ``level`` (Clopper &
    Pearson 1934); 1 without trials. With no event it is close to 3 / trials.
    """
    if trials <= 0 or events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1.0 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, trials: int, rate: float) -> float:
    """P(X ≤ events) for X binomial."""
    return sum(comb(trials, k) * rate**k * (1.0 - rate) ** (trials - k) for k in range(events + 1))
