"""Renders a report for the terminal: the answer on the first line, then what a person needs to act on it.

Plain text that fits 80 columns; colour only when asked for. Text from the repository enters as ``Text``, never as
console markup.
"""

import io
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from audit.records import AuditReport, CardClaim, CheckRecord, Finding, Location, Measurement, Outcome, Severity
from reports.numbers import byte_size, seconds
from reports.safe_text import clean_line, clean_prose, clean_token
from reports.wording import (
    curvature_lines,
    error_rate,
    group_skips,
    headline,
    limits,
    measured,
    outcome_sentence,
    pinned,
    place,
    probe_lines,
    read_bytes,
    reproduce_folded,
    severity,
    spoken,
    triage_lines,
)

WIDTH = 80
FINDINGS_SHOWN = 50
LOCATIONS_SHOWN = 5
TOKENS_SHOWN = 12
MEASUREMENTS_SHOWN = 12
FIGURES_SHOWN = 3
"""Figures of one lineage check; the other formats list them all."""

_OUTCOME_STYLES: dict[Outcome, str] = {
    "pass": "bold green",
    "review": "bold yellow",
    "fail": "bold red",
    "inconclusive": "bold magenta",
}
_SEVERITY_STYLES: dict[Severity, str] = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}
_STATUS_STYLES = {"supported": "green", "contradicted": "red", "not_checkable": "dim"}
_CHECK_STYLES = {"passed": "green", "failed": "red", "not_run": "dim"}


def render_table(report: AuditReport, *, colour: bool = False, width: int = WIDTH) -> str:
    """Return the report as text of at most ``width`` columns, with ANSI colours only when ``colour`` is true."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},
    )
    with console.capture() as capture:
        for part in _parts(report):
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _parts(report: AuditReport) -> Iterator[RenderableType]:
    yield Text(headline(report), style=_OUTCOME_STYLES[report.verdict.outcome])
    yield _indented(Text(outcome_sentence(report)))
    for note in report.verdict.notes:
        yield _indented(Text(clean_prose(note)))
    yield ""
    yield _facts(report)
    for finding in report.findings[:FINDINGS_SHOWN]:
        yield ""
        yield from _finding(finding)
    if len(report.findings) > FINDINGS_SHOWN:
        yield _indented(Text(f"and {len(report.findings) - FINDINGS_SHOWN:,} more findings; --format json lists all"))
    if report.probe:
        yield _heading("Probe")
        for line in probe_lines(report):
            yield _indented(Text(clean_prose(line)))
    if report.curvature:
        yield _heading("Data")
        for line in curvature_lines(report):
            yield _indented(Text(clean_prose(line)))
    if report.triage:
        yield _heading("Sample")
        for line in triage_lines(report):
            yield _indented(Text(clean_prose(line)))
    if report.card:
        yield _heading("Card")
        yield _rows(
            (
                Text(claim.status.replace("_", " "), style=_STATUS_STYLES[claim.status]),
                Text(_claim(claim)),
            )
            for claim in report.card
        )
    yield _heading("Not checked")
    yield from _not_checked(report)
    yield _heading("Reproduce")
    yield Text(reproduce_folded(report))


def _facts(report: AuditReport) -> Padding:
    """Return who was compared with whom, how sure that is, and what it cost."""
    lineage, cost = report.lineage, report.runtime
    base = pinned(lineage.base) if lineage.base else "none declared or found"
    facts = [("Model", Text(clean_line(pinned(report.subject)))), ("Base", Text(clean_line(base)))]
    facts += [("Lineage", _check(check)) for check in lineage.checks]
    facts += [("Conflict", Text(clean_prose(conflict), style="yellow")) for conflict in lineage.conflicts]
    if lineage.runner_up:
        facts.append(("Runner-up", Text(clean_line(lineage.runner_up))))
    facts.append(("Error rate", Text(error_rate(report))))
    if report.verdict.calibration:
        facts.append(("Calibrated", Text(clean_prose(report.verdict.calibration))))
    spent = [seconds(cost.seconds), read_bytes(report)]
    spent += [f"{cost.requests:,} request{'s' * (cost.requests != 1)}"] if cost.requests else []
    facts.append(("Cost", Text(", ".join((*spent, f"peak memory {byte_size(cost.peak_rss_bytes)}")))))
    return _rows((Text(name, style="dim"), value) for name, value in facts)


def _check(check: CheckRecord) -> Text:
    """Return one lineage check: outcome, name, its first figures, its note."""
    figures = "; ".join(measured(measurement) for measurement in check.measurements[:FIGURES_SHOWN])
    text = Text(check.outcome.replace("_", " "), style=_CHECK_STYLES[check.outcome])
    details = ": ".join(filter(None, (spoken(check.name), "; ".join(filter(None, (figures, check.note))))))
    return text.append(f" {clean_prose(details)}", style="not bold default")


def _finding(finding: Finding) -> Iterator[RenderableType]:
    """Yield one finding: what, where, on what grounds, what to do."""
    head = Text(f"{severity(finding).upper()} ", style=_SEVERITY_STYLES[finding.severity])
    head.append(f"{clean_line(finding.rule_id)} ", style="bold").append(clean_prose(finding.title), style="bold")
    yield head
    yield _indented(Text(clean_prose(finding.explanation)))
    rows = [(Text("where", style="dim"), _location(location)) for location in finding.locations[:LOCATIONS_SHOWN]]
    if len(finding.locations) > LOCATIONS_SHOWN:
        rows.append((Text(), Text(f"and {len(finding.locations) - LOCATIONS_SHOWN:,} more places")))
    shown = _telling(finding.measurements)
    rows += [(Text("measured", style="dim"), Text(clean_prose(measured(m)))) for m in shown]
    if left := len(finding.measurements) - len(shown):
        rows.append((Text(), Text(f"and {left:,} more figures; --format json lists all")))
    rows.append((Text("sure", style="dim"), Text(f"{finding.confidence} confidence")))
    if finding.suppression:
        accepted = f"until {clean_line(finding.suppression.expires)}: {finding.suppression.reason}"
        rows.append((Text("accepted", style="dim"), Text(clean_prose(accepted))))
    rows.append((Text("do", style="dim"), Text(clean_prose(finding.remedy))))
    yield _rows(rows)


def _telling(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the figures that were held against a threshold, and others while there is room, in their order."""
    room = MEASUREMENTS_SHOWN - sum(m.threshold is not None for m in measurements)
    context = [m for m in measurements if m.threshold is None][: max(0, room)]
    return [m for m in measurements if m.threshold is not None or m in context]


def _location(location: Location) -> Text:
    """Return a place: tensor or file, rows and columns, tokens."""
    text = Text(clean_line(location.tensor or location.file))
    where = place(location)
    if where:
        text.append(f" {where}")
    if location.tokens:
        text.append(" tokens ", style="dim")
        text.append("  ".join(clean_token(token.text) for token in location.tokens[:TOKENS_SHOWN]), style="bold")
    if len(location.tokens) > TOKENS_SHOWN:
        text.append(f" and {len(location.tokens) - TOKENS_SHOWN:,} more")
    return text


def _claim(claim: CardClaim) -> str:
    """Return a claim and what it was held against; of one that could not be checked that is no measurement."""
    measured_or_why = claim.observed if claim.status == "not_checkable" else f"measured: {claim.observed}"
    beside = f" ({measured_or_why})" if claim.observed else ""
    return clean_prose(f"{spoken(claim.claim)}: {claim.declared or 'nothing declared'}{beside}")


def _not_checked(report: AuditReport) -> Iterator[RenderableType]:
    """Yield what was skipped, grouped by reason, and what no audit of this kind looks at."""
    groups, left_out = group_skips(report.coverage.skipped)
    for group in groups:
        names = ", ".join(clean_line(name, limit=80) for name in group.names)
        more = f" and {group.more:,} more" if group.more else ""
        yield _indented(Text(f"{clean_prose(group.why)}: {names}{more}"))
    if left_out:
        yield _indented(Text(f"and {left_out:,} more reasons; --format json lists all"))
    for limit in limits(report):
        yield _indented(Text(limit, style="dim"))


def _heading(title: str) -> Group:
    return Group("", Rule(title, align="left", characters="─", style="dim"))


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 2))


def _rows(rows: Iterable[tuple[Text, Text]]) -> Padding:
    """Return pairs as two columns, the second one wrapped."""
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    return Padding(grid, (0, 0, 0, 2))
