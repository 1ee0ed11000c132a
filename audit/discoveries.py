"""Which of many tests to believe, with a bound on the share of false ones among them.

Benjamini and Hochberg 1995 bound it for independent tests (and for positively dependent ones). Wang and Ramdas 2022
(e-BH) do so under any dependence, on e-values: numbers whose mean is at most 1 where nothing is there. A p-value is
made one through a calibrator (Vovk and Wang 2021), at a loss of power.
"""

import math
from collections.abc import Sequence

LEAST_P = 1e-300


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> tuple[bool, ...]:
    """Say of each test whether it is a discovery at false-discovery rate ``rate`` in (0, 1).

    The k smallest p-values, k being the largest number for which the k-th smallest is at most k·rate/n.
    """
    count = len(p_values)
    ranked = sorted(p_values)
    bound = max((p for place, p in enumerate(ranked, start=1) if p <= place * rate / count), default=-math.inf)
    return tuple(p <= bound for p in p_values)


def e_benjamini_hochberg(e_values: Sequence[float], rate: float) -> tuple[bool, ...]:
    """Say of each test whether it is a discovery at false-discovery rate ``rate`` in (0, 1), whatever the dependence.

    The k largest e-values, k being the largest number for which the k-th largest is at least n/(k·rate).
    """
    count = len(e_values)
    ranked = sorted(e_values, reverse=True)
    bound = min((e for place, e in enumerate(ranked, start=1) if e >= count / (place * rate)), default=math.inf)
    return tuple(e >= bound for e in e_values)


def e_value(p_value: float) -> float:
    """The e-value ½·p^(−½) of a p-value in [0, 1]: Vovk and Wang's calibrator κ·p^(κ−1) with κ = ½."""
    return 0.5 / math.sqrt(max(p_value, LEAST_P))
