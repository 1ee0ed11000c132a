"""Renders a report as one self-contained HTML page: no scripts, no external loads, light, dark and print.

The template is free of logic; what it shows is prepared here. Everything it prints is cleaned and escaped by its
environment. The policy in the page's head forbids loading anything, should any of that ever fail.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from audit.curvature_fields import CurvedTensor
from audit.records import SEVERITIES, AuditReport, BaseRecord, ClaimStatus, DriftRecord, Finding, Measurement, Subject
from reports.environment import html_environment, rendered
from reports.heat_map import COLUMNS, heat_map
from reports.numbers import byte_size, count, number, rate, seconds, share
from reports.plots import row_distribution, spectra
from reports.quantiles import quantile_figure
from reports.template_folder import STYLE_SHEET, in_use, template_text
from reports.wording import (
    HOMEPAGE,
    base_status,
    card_alone,
    curvature_lines,
    error_rate,
    found,
    group_skips,
    headline,
    limits,
    moment,
    outcome_sentence,
    outcome_words,
    place,
    probe_lines,
    quantity,
    read_bytes,
    reproduce,
    spoken,
    threshold,
    triage_lines,
)

FINDINGS_SHOWN = 100
LOCATIONS_SHOWN = 12
TOKENS_SHOWN = 40
TENSORS_SHOWN = 200
CLAIMS_SHOWN = 100
CURVED_SHOWN = 12
LEAST_CURVED = 3
CURVED_ROWS_SHOWN = 4
DISTRIBUTIONS_SHOWN = 2
MARKED = SEVERITIES.index("medium")
"""Findings below this severity are not marked in the figures, where the eye would take them for the verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number behind a finding. ``fill`` and ``mark`` are where value and threshold lie on a bar, in percent."""

    name: str
    value: str
    unit: str
    threshold: str
    fill: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One model of the family line, from the root to the candidate; ``link`` says what joins it to the one before."""

    name: str
    revision: str
    part: str
    link: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """The figures of the page; None where the report has nothing to draw."""

    heat: Markup | None
    rows: tuple[tuple[str, Markup], ...]
    spectra: Markup | None
    quantiles: Markup | None


def render_page(report: AuditReport) -> str:
    """Return the page; the same report gives the same bytes."""
    skips, more_skips = group_skips(report.coverage.skipped)
    return rendered(
        html_environment(),
        "report.html.jinja",
        report=report,
        css=_style_sheet(),
        homepage=HOMEPAGE,
        headline=headline(report),
        card_alone=card_alone(report),
        outcome_words=outcome_words(report),
        outcome_sentence=outcome_sentence(report),
        when=moment(report.created_at),
        triage=triage_lines(report),
        probe=probe_lines(report),
        curvature=curvature_lines(report),
        curved=_curved(report),
        curved_rows=CURVED_ROWS_SHOWN,
        found=found(report.findings),
        tiles=_tiles(report),
        family=_family(report),
        findings=report.findings[:FINDINGS_SHOWN],
        more_findings=max(0, len(report.findings) - FINDINGS_SHOWN),
        locations_shown=LOCATIONS_SHOWN,
        tokens_shown=TOKENS_SHOWN,
        figures=_figures,
        place=place,
        plots=_plots(report),
        tensors=_tensors(report.drift),
        more_tensors=max(0, len(report.drift) - TENSORS_SHOWN),
        roles=COLUMNS,
        rate=rate,
        share=share,
        number=number,
        spoken=spoken,
        quantity=quantity,
        claims=report.card[:CLAIMS_SHOWN],
        more_claims=max(0, len(report.card) - CLAIMS_SHOWN),
        skips=skips,
        more_skips=more_skips,
        limits=limits(report),
        command=reproduce(report),
        profile={
            key: number(value) if isinstance(value, float) else str(value)
            for key, value in report.profile.items()
            if isinstance(value, str | int | float)
        },
    )


def _style_sheet() -> Markup:
    return Markup(template_text(STYLE_SHEET, in_use()))  # noqa: S704


def _tiles(report: AuditReport) -> list[dict[str, Any]]:
    """Return the four key figures: what was compared, with whom, how often clean models look so, what it cost."""
    reach, verdict, cost = report.coverage, report.verdict, report.runtime
    false_positives = verdict.false_positive_rate
    rarity = {
        "name": "Clean models scoring this high",
        "value": rate(false_positives) if false_positives is not None else "not known",
        "note": verdict.calibration or error_rate(report),
        "bar": "",
        "tone": "plain",
    }
    return [
        {
            "name": "Coverage",
            "value": share(reach.fraction) if reach.parameters_total else "none",
            "note": f"of {count(reach.parameters_total)} parameters compared",
            "bar": f"{min(max(reach.fraction, 0.0), 1.0):.2%}",
            "tone": "plain",
        },
        {
            "name": "Base",
            "value": report.lineage.status if report.lineage.base else "none",
            "note": report.lineage.base.name if report.lineage.base else base_status(report),
            "bar": "",
            "tone": report.lineage.status if report.lineage.base else "unverified",
        },
        _claims_tile(report) if card_alone(report) else rarity,
        {
            "name": "Effort",
            "value": seconds(cost.seconds),
            "note": f"{read_bytes(report)}, peak memory {byte_size(cost.peak_rss_bytes)}",
            "bar": "",
            "tone": "plain",
        },
    ]


def _claims_tile(report: AuditReport) -> dict[str, Any]:
    """Return how the claims came out, which takes the place of an error rate where no weights were read."""
    counts = Counter(claim.status for claim in report.card)
    first: ClaimStatus = "contradicted" if counts["contradicted"] else "supported"
    second: ClaimStatus = "supported" if counts["contradicted"] else "contradicted"
    return {
        "name": "Claims of the card",
        "value": f"{counts[first]} {first}",
        "note": f"{counts[second]} {second}, {counts['not_checkable']} not checkable",
        "bar": "",
        "tone": "contradicted" if counts["contradicted"] else "plain",
    }


def _family(report: AuditReport) -> list[Station]:
    """Return the family line, root first."""
    lineage = report.lineage
    if lineage.base is None:
        return [_station(report.subject, "candidate", "", "")]
    relation = lineage.status if lineage.relation == "unknown" else f"{lineage.relation}, {lineage.status}"
    roots = [name for name in reversed(lineage.chain) if name != lineage.base.name]
    return [
        *(
            Station(name=name, revision="", part="ancestor", link="declared" if place else "", status="")
            for place, name in enumerate(roots)
        ),
        _station(lineage.base, "base", "declared" if roots else "", ""),
        _station(report.subject, "candidate", relation, lineage.status),
    ]


def _station(repo: Subject | BaseRecord, part: str, link: str, status: str) -> Station:
    return Station(name=repo.name, revision=(repo.revision or "")[:12], part=part, link=link, status=status)


def _figures(finding: Finding) -> list[Figure]:
    return [_figure(measurement) for measurement in finding.measurements]


def _figure(measurement: Measurement) -> Figure:
    """Prepare one measurement; a bar is drawn where value and threshold are positive and can be compared."""
    value, limit = measurement.value, measurement.threshold
    fill = mark = ""
    if value is not None and limit is not None and value >= 0 and limit > 0:
        longest = 1.15 * max(value, limit)
        fill, mark = f"{value / longest:.2%}", f"{limit / longest:.2%}"
    written, unit = quantity(value, measurement.unit)
    return Figure(
        name=spoken(measurement.name),
        value=written,
        unit=unit,
        threshold=threshold(measurement),
        fill=fill,
        mark=mark,
    )


def _plots(report: AuditReport) -> Plots:
    """Draw the figures; what findings of weight name comes first and is marked."""
    serious = [finding for finding in report.findings if SEVERITIES.index(finding.severity) >= MARKED]
    places = [location for finding in serious for location in finding.locations if location.tensor]
    flagged = frozenset(location.tensor for location in places if location.tensor)
    rows: dict[str, set[int]] = {}
    for location in places:
        named = rows.setdefault(location.tensor or "", set())
        named |= {row for start, end in location.rows for row in range(start, min(end, start + TOKENS_SHOWN))}
    drawn: list[tuple[str, Markup]] = []
    for record in sorted(report.drift, key=lambda record: record.tensor not in flagged):
        if record.row_histogram is None or len(drawn) == DISTRIBUTIONS_SHOWN:
            continue
        plot = row_distribution(record, frozenset(rows.get(record.tensor, ())), name=f"rows{len(drawn)}")
        drawn += [(record.tensor, plot)] if plot else []
    return Plots(
        heat=heat_map(report.drift, flagged),
        rows=tuple(drawn),
        spectra=spectra(report.drift, flagged),
        quantiles=quantile_figure(report.curvature.plots, name="quantiles") if report.curvature else None,
    )


def _curved(report: AuditReport) -> list[CurvedTensor]:
    """Return the matrices whose rows stand out most; those of probability 1 only where nothing else is there."""
    ranked = report.curvature.tensors if report.curvature else ()
    telling = [tensor for tensor in ranked if tensor.p_value is not None and tensor.p_value < 1]
    return telling[:CURVED_SHOWN] or list(ranked[:LEAST_CURVED])


def _tensors(drift: tuple[DriftRecord, ...]) -> list[DriftRecord]:
    """Return the tensors that moved furthest, relative to their size."""
    return sorted(drift, key=lambda record: -record.relative_l2)[:TENSORS_SHOWN]
