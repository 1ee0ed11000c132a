"""Renders the overview of a fleet as one self-contained HTML page: worst first, families, the trend over runs.

Like the page of a single report it has no scripts, loads nothing, and escapes everything that strangers wrote. What it
shows is prepared by the caller (``FleetOverview``), who knows where it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from markupsafe import Markup

from reports.environment import html_environment
from reports.numbers import byte_size, number, seconds, share
from reports.svg import FLAG, GRID, HEAT, INK, MUTED, new_figure, to_svg
from reports.wording import HOMEPAGE, moment

OUTCOMES = ("fail", "review", "inconclusive", "pass", "failed")
"""Verdicts, the worst first, and scans that came to none."""
WORDS: Mapping[str, str] = {
    "fail": "findings, severe",
    "review": "findings to review",
    "inconclusive": "inconclusive",
    "pass": "nothing found",
    "failed": "not scanned",
}
RUNS_SHOWN = 30
_COLOURS = dict(zip(OUTCOMES, (FLAG, HEAT[6], HEAT[3], HEAT[1], MUTED), strict=True))
_WIDTH, _HEIGHT = 9.4, 2.6


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One repository, as the table of the worst shows it. ``rules`` are those that found something, the worst first."""

    repo_id: str
    revision: str
    outcome: str
    score: float
    false_positive_rate: float | None
    base: str | None
    relation: str
    status: str
    coverage: float
    rules: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """The members of one base by verdict."""

    base: str
    members: int
    counts: Mapping[str, int]
    worst_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """The verdicts that were on record when a run ended; ``when`` is ISO 8601."""

    when: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOverview:
    """Everything the page shows. ``repos`` counts distinct repositories; ``counts`` are jobs by verdict.

    ``failures`` are cause, count and one example; ``rules`` are id, title and the repositories it was found in.
    """

    title: str
    generated_at: str
    repos: int
    pending: int
    counts: Mapping[str, int]
    requests: int
    bytes_read: int
    scan_seconds: float
    worst: Sequence[FleetRow] = ()
    families: Sequence[FamilyRow] = ()
    failures: Sequence[tuple[str, int, str]] = ()
    rules: Sequence[tuple[str, str, int]] = ()
    trend: Sequence[TrendPoint] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One stretch of a bar: the verdict, its width in percent, and what a pointer over it says."""

    outcome: str
    width: str
    tip: str


def render_fleet(overview: FleetOverview) -> str:
    """Return the page; the same overview gives the same bytes."""
    return (
        html_environment()
        .get_template("fleet.html.jinja")
        .render(
            overview=overview,
            css=Markup(files(__package__).joinpath("templates", "report.css").read_text(encoding="utf-8")),  # noqa: S704
            homepage=HOMEPAGE,
            tone=_tone(overview),
            sentence=_sentence(overview),
            when=moment(overview.generated_at),
            tiles=_tiles(overview),
            bar=parts(overview.counts),
            parts=parts,
            words=WORDS,
            share=share,
            number=number,
            trend=trend_plot(overview.trend),
            score="{:.2f}".format,
        )
    )


def parts(counts: Mapping[str, int]) -> list[Part]:
    """Return the stretches of a bar that shows counts, the worst first; widths add up to 100 percent."""
    total = sum(counts.get(outcome, 0) for outcome in OUTCOMES)
    return [
        Part(outcome=outcome, width=f"{100 * counts[outcome] / total:.3f}%", tip=f"{number(counts[outcome])} {word}")
        for outcome, word in WORDS.items()
        if counts.get(outcome)
    ]


def trend_plot(points: Sequence[TrendPoint]) -> Markup | None:
    """Draw the verdicts at the end of each run as stacked bars, the worst at the bottom; None below two runs."""
    shown = points[-RUNS_SHOWN:]
    if len(shown) < 2:
        return None
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.add_axes((0.07, 0.16, 0.92, 0.72))
    floor = [0] * len(shown)
    places = list(range(len(shown)))
    for outcome in OUTCOMES:
        heights = [point.counts.get(outcome, 0) for point in shown]
        if any(heights):
            axes.bar(places, heights, bottom=floor, color=_COLOURS[outcome], width=0.8, label=WORDS[outcome])
        floor = [below + height for below, height in zip(floor, heights, strict=True)]
    step = max(1, len(shown) // 8)
    axes.set_xticks(places[::step], [point.when[:10] for point in shown[::step]])
    axes.set(xlim=(-0.6, max(5.5, len(shown) - 0.4)), ylim=(0, max(*floor, 1) * 1.05))
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(INK)
    axes.set_ylabel("repositories", color=MUTED, fontsize=8)
    return to_svg(figure, name="trend", title=f"Verdicts at the end of the last {len(shown)} runs")


def _tone(overview: FleetOverview) -> str:
    """Return the worst verdict on record, which sets the colour of the page: what is not scanned is not clean."""
    counts = overview.counts
    whole = counts.get("pass") and not counts.get("failed") and not overview.pending
    return next((outcome for outcome in OUTCOMES[:3] if counts.get(outcome)), "pass" if whole else "inconclusive")


def _sentence(overview: FleetOverview) -> str:
    flagged = overview.counts.get("fail", 0) + overview.counts.get("review", 0)
    scanned = sum(overview.counts.get(outcome, 0) for outcome in OUTCOMES[:4])
    if not scanned:
        return "Nothing has been scanned yet."
    found = f"{number(flagged)} of {number(scanned)} scanned repositories have findings."
    open_ends = []
    if overview.counts.get("inconclusive"):
        open_ends.append(f"{_are(overview.counts['inconclusive'])} inconclusive, which is not clean")
    if overview.counts.get("failed"):
        open_ends.append(f"{number(overview.counts['failed'])} could not be scanned")
    if overview.pending:
        open_ends.append(f"{_are(overview.pending)} still to be scanned")
    return f"{found} {'; '.join(open_ends)}." if open_ends else found


def _are(count: int) -> str:
    return f"{number(count)} {'is' if count == 1 else 'are'}"


def _tiles(overview: FleetOverview) -> list[tuple[str, str, str]]:
    """Name, value and note of each figure at the top."""
    scanned = sum(overview.counts.get(outcome, 0) for outcome in OUTCOMES[:4])
    per_repo = f"{overview.requests / scanned:.1f} a scan" if scanned else ""
    return [
        ("Repositories", number(overview.repos), f"{number(overview.pending)} pending"),
        ("Scans", number(scanned), f"{seconds(overview.scan_seconds)} of work"),
        ("Weights read", byte_size(overview.bytes_read), "of candidates and bases"),
        ("Requests", number(overview.requests), per_repo),
    ]
