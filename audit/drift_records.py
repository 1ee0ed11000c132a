"""The drift of each tensor as reports show it: numbers of a fixed form, token tables with named rows."""

from collections.abc import Iterator

import numpy as np

from audit.detectors.token_rows import TOKEN_ROLES
from audit.evidence import Evidence
from audit.records import DriftRecord, Histogram, SkipRecord, TopRow
from audit.row_drift import adjusted_row_drift
from scanner.records import F64, TensorDrift

_TOP_TOKENS = 16
_TOP_ROWS = 3
_BINS_PER_DECADE = 10
_MOST_BINS = 120
_UNIT = "log10 of row drift in weight units"


def drift_records(evidence: Evidence) -> Iterator[DriftRecord | SkipRecord]:
    """Yield a record per compared tensor, in order; a tensor whose sums overflowed becomes a skip."""
    if evidence.drift is None:
        return
    for tensor in evidence.drift.tensors:
        if not all(np.isfinite([tensor.delta_l2, tensor.base_l2, tensor.relative_l2, tensor.rounding_floor])):
            yield SkipRecord(what=tensor.spec.name, why="its sums exceed the range of double precision")
            continue
        yield _record(tensor, evidence)


def _record(tensor: TensorDrift, evidence: Evidence) -> DriftRecord:
    table = tensor.spec.role in TOKEN_ROLES and len(tensor.row_delta_sq) > 1
    rows = np.sqrt(tensor.row_delta_sq)
    return DriftRecord(
        tensor=tensor.spec.name,
        role=tensor.spec.role,
        layer=tensor.spec.layer,
        shape=tensor.spec.shape,
        base_dtype=tensor.spec.base.dtype,
        candidate_dtype=tensor.spec.candidate.dtype,
        relative_l2=tensor.relative_l2,
        delta_l2=tensor.delta_l2,
        base_l2=tensor.base_l2,
        cosine=tensor.cosine,
        changed_fraction=tensor.changed_fraction,
        nonfinite=tensor.nonfinite,
        rounding_floor=tensor.rounding_floor,
        residual_max=tensor.residual.maximum if tensor.residual else None,
        residual_mean_square=tensor.residual.mean_square if tensor.residual else None,
        top_share=tensor.spectrum.top_share if tensor.spectrum else None,
        singular_values=tensor.spectrum.values if tensor.spectrum else (),
        top_rows=_top_tokens(tensor, evidence) if table else _top_rows(tensor, rows),
        row_histogram=_histogram(rows) if table else None,
    )


def _top_rows(tensor: TensorDrift, rows: F64) -> tuple[TopRow, ...]:
    moved = rows[rows > 0]
    if len(rows) < 2 or len(moved) == 0:
        return ()
    typical = float(np.median(moved))
    order = [int(i) for i in np.argsort(-rows)[:_TOP_ROWS] if rows[i] > 0]
    return tuple(TopRow(row=tensor.spec.row_at(i), relative=float(rows[i]) / typical) for i in order)


def _top_tokens(tensor: TensorDrift, evidence: Evidence) -> tuple[TopRow, ...]:
    """The rows with the largest adjusted drift, else with the largest drift."""
    adjusted = adjusted_row_drift(tensor, evidence.tokens, least=int(evidence.profile.value("rows.least")))
    moved = adjusted.drift[adjusted.touched]
    if len(moved) == 0:
        return ()
    typical = float(np.median(moved))
    key = np.where(np.isfinite(adjusted.z), adjusted.z, -np.inf) if adjusted.judged else adjusted.drift
    order = [int(i) for i in np.argsort(-key)[:_TOP_TOKENS] if np.isfinite(key[i]) and adjusted.touched[i]]
    texts = evidence.tokens.texts if evidence.tokens else ()
    ids = [tensor.spec.row_at(i) for i in order]
    return tuple(
        TopRow(
            row=row,
            relative=float(adjusted.drift[i]) / typical,
            z=float(adjusted.z[i]) if np.isfinite(adjusted.z[i]) else None,
            token=texts[row] if row < len(texts) else None,
        )
        for i, row in zip(order, ids, strict=True)
    )


def _histogram(rows: F64) -> Histogram | None:
    """Rows that moved, by log10 of their drift, ten bins a decade; None when none moved."""
    logs = np.log10(rows[rows > 0])
    if len(logs) == 0:
        return None
    low = int(np.floor(logs.min() * _BINS_PER_DECADE))
    high = int(np.floor(logs.max() * _BINS_PER_DECADE)) + 1
    # Subnormal dust far below the rest would make the axis endless; it is counted in the first bin.
    low = max(low, high - _MOST_BINS)
    edges = np.arange(low, high + 1) / _BINS_PER_DECADE
    counts, _ = np.histogram(np.clip(logs, edges[0], None), bins=edges)
    return Histogram(unit=_UNIT, edges=tuple(edges.tolist()), counts=tuple(int(c) for c in counts))
