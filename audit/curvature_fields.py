"""What a report says of a scan with data: fields of the wire format v1."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvaturePlot:
    """Quantiles of r/k over all judged dimensions beside those of Γ(shape ½, scale 2), the law.

    ``indicator`` says what r is: δ² over H^γ with γ fitted tensor by tensor, over H, over √H, or alone; k is each
    tensor's own median over that of the law. ``levels`` in (0, 1) ascend. ``straightness`` is the correlation of log
    quantiles, ``inflation`` the share of dimensions beyond the law's upper 1e-4 quantile over 1e-4.
    """

    indicator: Literal["fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2"]
    dimensions: int
    straightness: float | None
    inflation: float
    levels: tuple[float, ...] = ()
    law: tuple[float, ...] = ()
    measured: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvedRowRecord:
    """One row that stands out among those that the data reach: ``ratio`` is the mean of r/k over it (law: 1).

    ``p_value`` comes from the tail of the other rows of the tensor, not from the law. ``token`` is the text of a
    token's row.
    """

    row: int
    ratio: float
    p_value: float
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvedTensor:
    """One tensor: how its change follows the curvature, and whether rows of it stand out.

    ``reached`` is the share of its dimensions in which H > 0, ``exponent`` γ, ``inflation`` that of its own r/k.
    ``p_value`` and ``e_value`` are those of its rows together (None where it has too few), ``by_bh`` and ``by_e_bh``
    whether it is a discovery among all tensors.
    """

    tensor: str
    role: str
    layer: int | None
    reached: float
    exponent: float | None
    inflation: float | None
    p_value: float | None = None
    e_value: float | None = None
    by_bh: bool = False
    by_e_bh: bool = False
    rows: tuple[CurvedRowRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvatureRecord:
    """What the given clean examples say about how the model moved.

    ``source`` and ``digest`` (SHA-256, hex) name the samples; ``examples`` of them were used. ``loss`` (nats) and
    ``accuracy`` (None for language models) are the candidate's on them. ``exponent`` is the median γ of the matrices.
    ``tensors`` are those that stand out most, most telling first, of ``tested`` whose rows were tested at
    ``false_discovery_rate``; ``by_bh`` and ``by_e_bh`` count the discoveries.
    """

    source: str
    digest: str
    examples: int
    loss: float
    accuracy: float | None
    exponent: float | None
    false_discovery_rate: float
    tested: int
    by_bh: int
    by_e_bh: int
    seconds: float
    bytes_read: int
    plots: tuple[CurvaturePlot, ...] = ()
    tensors: tuple[CurvedTensor, ...] = ()
