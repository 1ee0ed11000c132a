"""Copies what a scan with data measured into the record of a report, and ranks what stands out."""

from statistics import median

from audit.curvature_fields import CurvaturePlot, CurvatureRecord, CurvedRowRecord, CurvedTensor
from audit.curved_rows import Discoveries, RowTest, discoveries
from audit.evidence import Evidence
from scanner.curvature.records import QuantilePlot, TensorCurvature

MOST_TENSORS = 20
"""Tensors that a report ranks."""
MOST_ROWS = 10
"""Rows that it lists of each."""
RATE = "data.false_discovery_rate"


def curvature_record(evidence: Evidence) -> CurvatureRecord | None:
    """Return the record, None when no data were given, or nothing could be measured with them."""
    facts = evidence.curvature
    if facts is None:
        return None
    rate = evidence.profile.value(RATE)
    found = discoveries(facts.tensors, evidence.tokens, rate=rate)
    texts = evidence.tokens.texts if evidence.tokens is not None else ()
    exponents = [t.exponent for t in facts.tensors if t.exponent is not None and len(t.spec.shape) > 1]
    return CurvatureRecord(
        source=facts.data.source,
        digest=facts.data.digest,
        examples=facts.data.examples,
        loss=facts.data.loss,
        accuracy=facts.data.accuracy,
        exponent=median(exponents) if exponents else None,
        false_discovery_rate=rate,
        tested=len(found.tests),
        by_bh=sum(found.by_bh),
        by_e_bh=sum(found.by_e_bh),
        seconds=facts.seconds,
        bytes_read=facts.bytes_read,
        plots=tuple(_plot(plot) for plot in facts.plots),
        tensors=tuple(_tensor(found, number, texts) for number in range(min(len(found.tests), MOST_TENSORS))),
    )


def _plot(plot: QuantilePlot) -> CurvaturePlot:
    return CurvaturePlot(
        indicator=plot.fit.indicator,
        dimensions=plot.dimensions,
        straightness=plot.fit.straightness,
        inflation=plot.fit.inflation,
        levels=plot.levels,
        law=plot.law,
        measured=plot.measured,
    )


def _tensor(found: Discoveries, number: int, texts: tuple[str, ...]) -> CurvedTensor:
    test = found.tests[number]
    tensor, fit = test.tensor, test.tensor.fit("fitted")
    return CurvedTensor(
        tensor=tensor.spec.name,
        role=tensor.spec.role,
        layer=tensor.spec.layer,
        reached=tensor.seen / tensor.dimensions,
        exponent=tensor.exponent,
        inflation=fit.inflation if fit is not None else None,
        p_value=test.p_value,
        e_value=test.e_value,
        by_bh=found.by_bh[number],
        by_e_bh=found.by_e_bh[number],
        rows=_rows(test, texts),
    )


def _rows(test: RowTest, texts: tuple[str, ...]) -> tuple[CurvedRowRecord, ...]:
    return tuple(
        CurvedRowRecord(
            row=row.row,
            ratio=row.ratio,
            p_value=row.p_value,
            token=texts[row.row] if is_token_table(test.tensor) and row.row < len(texts) else None,
        )
        for row in test.rows[:MOST_ROWS]
    )


def is_token_table(tensor: TensorCurvature) -> bool:
    """Whether the tensor's rows are tokens."""
    return tensor.spec.role in {"embedding", "unembedding"}
