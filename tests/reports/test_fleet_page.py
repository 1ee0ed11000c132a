import re
from html.parser import HTMLParser

import pytest

from reports.fleet_page import FamilyRow, FleetOverview, FleetRow, TrendPoint, parts, render_fleet, trend_plot

EVIL = "org/<script>alert(1)</script>\x1b[31m{{ 7*7 }}"


def row(repo_id: str = "org/a", outcome: str = "review", score: float = 0.7) -> FleetRow:
    return FleetRow(
        repo_id=repo_id,
        revision="a" * 40,
        outcome=outcome,
        score=score,
        false_positive_rate=0.01,
        base="org/base",
        relation="finetune",
        status="verified",
        coverage=0.875,
        rules=("HA201",),
        created_at="2026-11-20T00:00:00Z",
    )


def overview(**changes: object) -> FleetOverview:
    fields: dict[str, object] = {
        "title": "pico",
        "generated_at": "2026-11-20T08:00:00Z",
        "repos": 12,
        "pending": 1,
        "counts": {"fail": 1, "review": 2, "inconclusive": 3, "pass": 4, "failed": 1},
        "requests": 70,
        "bytes_read": 5_000_000,
        "scan_seconds": 12.5,
        "worst": [row("org/worst", "fail", 0.99), row()],
        "families": [FamilyRow(base="org/base", members=10, counts={"fail": 1, "pass": 9}, worst_score=0.99)],
        "failures": [("RepoGated", 1, "org/x is gated.")],
        "rules": [("HA201", "Token rows that stand out", 3)],
        "trend": [
            TrendPoint(when=f"2026-11-{day:02}T00:00:00Z", counts={"pass": day, "fail": day // 2}) for day in (1, 2, 9)
        ],
    }
    return FleetOverview(**{**fields, **changes})


class Strict(HTMLParser):
    """Notes open tags, so that a page which does not close them is found."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "br", "path", "use", "circle", "rect", "line", "image"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def parsed(page: str) -> Strict:
    reader = Strict()
    reader.feed(page)
    return reader


def test_the_page_is_whole_and_shows_the_worst_first() -> None:
    page = render_fleet(overview())
    assert parsed(page).open == []
    assert page.index("org/worst") < page.index("org/a<")
    assert "3 of 10 scanned repositories have findings." in page
    assert "3 are inconclusive, which is not clean" in page
    assert "1 could not be scanned" in page
    assert "1 is still to be scanned" in page
    assert "87.5" in page
    assert "safe" not in page.lower().replace("unsafe", "")
    assert "malicious" not in page


def test_repositories_are_counted_in_full() -> None:
    """60 of 1.99 k is no figure that anyone can check."""
    page = render_fleet(overview(counts={"fail": 60, "pass": 1934}))
    assert "60 of 1,994 scanned repositories have findings." in page


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = render_fleet(overview())
    assert "script" not in parsed(page).tags
    assert not re.search(r"""(?:src|href)=["'](?!#|data:,|https://github\.com/hubaudit)""", page)
    assert "default-src 'none'" in page


def test_strangers_text_is_text() -> None:
    evil = overview(
        title=EVIL,
        worst=[row(EVIL)],
        families=[FamilyRow(base=EVIL, members=1, counts={"fail": 1}, worst_score=1.0)],
        failures=[(EVIL, 1, EVIL)],
        rules=[(EVIL, EVIL, 1)],
    )
    page = render_fleet(evil)
    assert "script" not in parsed(page).tags
    assert "\x1b" not in page
    assert "49" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL).replace("{{ 7*7 }}", "")
    assert parsed(page).open == []


def test_the_same_overview_gives_the_same_bytes() -> None:
    assert render_fleet(overview()) == render_fleet(overview())


def test_an_empty_fleet_has_a_page() -> None:
    page = render_fleet(
        overview(repos=0, pending=0, counts={}, worst=(), families=(), failures=(), rules=(), trend=(), requests=0)
    )
    assert "Nothing has been scanned yet." in page
    assert parsed(page).open == []


@pytest.mark.parametrize(
    ("counts", "tone"),
    [({"fail": 1, "pass": 9}, "fail"), ({"review": 1}, "review"), ({"inconclusive": 1, "pass": 1}, "inconclusive"),
     ({"pass": 3}, "pass"), ({"failed": 3}, "inconclusive"), ({"pass": 3, "failed": 1}, "inconclusive")],
)  # fmt: skip
def test_the_worst_verdict_sets_the_tone(counts: dict[str, int], tone: str) -> None:
    assert f'<body class="{tone}">' in render_fleet(overview(counts=counts, pending=0))


def test_what_is_still_to_be_scanned_is_not_called_clean() -> None:
    page = render_fleet(overview(counts={"pass": 3}, pending=1))
    assert '<body class="inconclusive">' in page
    assert "1 is still to be scanned" in page


def test_bars_add_up() -> None:
    widths = [float(part.width.rstrip("%")) for part in parts({"fail": 1, "pass": 2, "failed": 4})]
    assert sum(widths) == pytest.approx(100, abs=0.01)
    assert parts({}) == []


def test_a_trend_needs_two_runs() -> None:
    assert trend_plot([]) is None
    assert trend_plot([TrendPoint(when="2026-11-20T00:00:00Z", counts={"pass": 1})]) is None
    drawn = trend_plot([TrendPoint(when=f"2026-11-{day:02}T00:00:00Z", counts={"pass": 1}) for day in range(1, 29)])
    assert drawn is not None
    assert "Verdicts at the end of the last 28 runs" in drawn
