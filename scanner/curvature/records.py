"""What a scan with data measured: plain frozen records without torch.

δ is candidate minus base, H the diagonal of the empirical Fisher matrix on the given examples at the candidate's
weights, in (nats per weight unit)². A dimension is **seen** when H > 0 there, **moved** when δ ≠ 0, **judged** when
both hold. The law: where δ ~ N(0, k·H^γ), r = δ²/H^γ is k times a χ² variable of one degree of freedom, that is
Γ(shape ½, scale 2k).
"""

from dataclasses import dataclass, field
from typing import Literal

from scanner.records import F64, PairSpec, Skip

Indicator = Literal["fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2"]
"""By what δ² is divided: H^γ with γ fitted tensor by tensor, H (plain SGD), √H, nothing (Adam)."""

INDICATORS: tuple[Indicator, ...] = ("fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2")


@dataclass(frozen=True, slots=True, kw_only=True)
class LawFit:
    """How one indicator of one tensor, or of all together, follows its law.

    ``scale`` is k = median(r)/0.455, None where each tensor has its own. ``straightness`` is the correlation of log
    quantiles, measured against law, in [−1, 1]. ``inflation`` is the share of judged dimensions beyond the law's upper
    1e-4 quantile, over 1e-4: 1 where the law holds.
    """

    indicator: Indicator
    scale: float | None
    straightness: float | None
    inflation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantilePlot:
    """Quantiles of r/k (each tensor divided by its own k) beside those of its law, over all judged dimensions.

    ``levels`` are in (0, 1), ascending; ``law`` and ``measured`` have as many entries and are multiples of k.
    """

    fit: LawFit
    dimensions: int
    levels: tuple[float, ...]
    law: tuple[float, ...]
    measured: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCurvature:
    """What was measured on one pair of tensors.

    ``exponent`` is γ of the robust fit log δ² = a + γ log H + log χ²₁; None, and ``fits`` empty, where too few
    dimensions are judged. ``mean_square`` and ``mean_curvature`` are means of δ² and of H over all dimensions.
    ``row_ratio`` is float64 ``[compared rows]``: the mean of r/k over the seen dimensions of a row (1 where the law
    holds), NaN where fewer than half of its dimensions are seen. ``row_energy`` is float64 ``[compared rows]``: Σ δ².
    """

    spec: PairSpec
    dimensions: int
    moved: int
    seen: int
    judged: int
    nonfinite: int
    mean_square: float
    mean_curvature: float
    exponent: float | None
    fits: tuple[LawFit, ...]
    row_ratio: F64
    row_energy: F64

    def fit(self, indicator: Indicator) -> LawFit | None:
        """The fit of that indicator, None where there is none."""
        return next((fit for fit in self.fits if fit.indicator == indicator), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenData:
    """The clean examples that were used: where they came from, how many, and what the candidate makes of them.

    ``digest`` is the SHA-256 (hex) of all usable samples, of which the first ``examples`` were used. ``loss`` is the
    mean of −log p in nats; ``accuracy`` the share of right answers in [0, 1], None for language models.
    """

    source: str
    digest: str
    examples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvatureFacts:
    """Everything one scan with data measured; ``bytes_read`` counts both sides, read for this alone."""

    data: GivenData
    tensors: tuple[TensorCurvature, ...]
    plots: tuple[QuantilePlot, ...]
    seconds: float
    bytes_read: int
    skips: tuple[Skip, ...] = field(default=())
