"""How likely chance alone is: p-values whose null is *independent training with the same architecture*.

Training treats hidden units alike: it starts them from one distribution and its rule does not depend on their number,
so under independence any order of the units of a layer is as likely as any other. An order statistic over units then
has an exact null, whatever the data, the optimiser and the width (Zhu et al. 2025, arXiv 2502.12292). All values are
decimal logarithms, since the interesting ones lie far below the smallest double.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp, stdtr

from scanner.records import F64

_LN10 = float(np.log(10.0))
NEVER = -300.0
"""Logarithms are cut here: smaller probabilities say nothing more."""


def order_log10_p(order: npt.NDArray[np.intp]) -> float:
    """Return log₁₀ of the one-sided p-value of Spearman's ρ between an order and the identity.

    Uses t = ρ √((n − 2) / (1 − ρ²)) with n − 2 degrees of freedom, but never less than 1 / n!, the probability of one
    order among all. 0 (p = 1) for fewer than four units.

    Args:
        order: a permutation of 0 … n − 1.
    """
    count = len(order)
    if count < 4:
        return 0.0
    gaps = order.astype(np.float64) - np.arange(count)
    rho = 1.0 - 6.0 * float(np.sum(gaps**2)) / (count * (count**2 - 1.0))
    floor = -float(gammaln(count + 1)) / _LN10
    if rho >= 1.0:
        return max(floor, NEVER)
    t = rho * float(np.sqrt((count - 2.0) / max(1.0 - rho**2, np.finfo(np.float64).eps)))
    tail = float(stdtr(count - 2.0, -t))
    return max(floor, NEVER, float(np.log10(tail)) if tail > 0 else NEVER)


def correlation_log10_p(correlation: float, count: int) -> float:
    """Return log₁₀ of the one-sided p-value of a correlation over ``count`` exchangeable places, by the same t."""
    if count < 4:
        return 0.0
    rest = max(1.0 - correlation**2, np.finfo(np.float64).eps)
    tail = float(stdtr(count - 2.0, -correlation * float(np.sqrt((count - 2.0) / rest))))
    return max(NEVER, float(np.log10(tail)) if tail > 0 else NEVER)


def fisher_log10_p(parts: Sequence[float]) -> float:
    """Combine independent p-values: −2 Σ ln p is chi-squared with 2k degrees of freedom (Fisher 1925).

    The tail of an even number of degrees is a finite sum, e^(−x) Σ_{j<k} xʲ / j! with x = −Σ ln p, exact in logarithms.
    """
    if not parts:
        return 0.0
    x = -sum(parts) * _LN10
    if x <= 0:
        return 0.0
    terms = np.arange(len(parts))
    log_tail = float(logsumexp(terms * np.log(x) - gammaln(terms + 1.0))) - x
    return float(np.clip(log_tail / _LN10, NEVER, 0.0))


def centred_correlation(one: F64, two: F64) -> float:
    """Correlation of two vectors of one length, each minus its mean, in [−1, 1]; 0 when either is constant.

    NOTE: never the uncentred cosine. Gains of norms lie near one in every model, so their cosine is near one for any
    two models, related or not.
    """
    first, second = one - one.mean(), two - two.mean()
    size = float(np.sqrt(np.sum(first * first) * np.sum(second * second)))
    floor = np.finfo(np.float64).eps * float(np.sum(np.abs(one)) * np.sum(np.abs(two)) + np.finfo(np.float64).tiny)
    return float(np.clip(np.sum(first * second) / size, -1.0, 1.0)) if size > floor else 0.0
