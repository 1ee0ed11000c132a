"""Every page for people who do not see it or do not use a mouse: read as a screen reader reads it, from the markup."""

import dataclasses
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import sample_reports

from audit.policy import CARD_ALONE
from audit.records import AuditReport, PurificationRecord, PurifiedState
from reports.fleet_page import FamilyRow, FleetOverview, FleetRow, TrendPoint, render_fleet
from reports.page import render_page

VOID = {"meta", "link", "br", "img", "hr"}
LANDMARKS = ("header", "nav", "main", "footer")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parents: tuple["Element", ...]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    @property
    def hidden(self) -> bool:
        return any(one.attributes.get("aria-hidden") == "true" for one in (self, *self.parents))

    def inside(self, *tags: str) -> bool:
        return any(parent.tag in tags for parent in self.parents)


class Tree(HTMLParser):
    """The elements of a page in order, each with all text below it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), tuple(self._open))
        self.elements.append(element)
        if self._open:
            self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]


def card_alone() -> AuditReport:
    report = sample_reports.poisoned_row()
    return dataclasses.replace(report, drift=(), verdict=dataclasses.replace(report.verdict, policy=CARD_ALONE))


def purified() -> AuditReport:
    before = PurifiedState(outcome="fail", score=0.9, accuracy=0.9, attack_success=0.99)
    after = PurifiedState(outcome="pass", score=0.1, accuracy=0.89, attack_success=0.02)
    record = PurificationRecord(method="restore", chosen="rows", before=before, after=after)
    return dataclasses.replace(sample_reports.everything(), purification=record)


def fleet() -> str:
    row = FleetRow(
        repo_id="org/a", revision="a" * 40, outcome="review", score=0.7, false_positive_rate=0.01, base="org/base",
        relation="finetune", status="verified", coverage=0.9, rules=("HA201",), created_at="2026-11-20T00:00:00Z",
    )  # fmt: skip
    counts = {"fail": 1, "review": 2, "pass": 4}
    moments = ("2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")
    return render_fleet(
        FleetOverview(
            title="pico", generated_at="2026-11-20T08:00:00Z", repos=7, pending=0, counts=counts, requests=70,
            bytes_read=5, scan_seconds=1.0, worst=[row], failures=[("RepoGated", 1, "org/x is gated.")],
            families=[FamilyRow(base="org/base", members=7, counts=counts, worst_score=0.9)],
            rules=[("HA201", "Token rows", 3)], trend=[TrendPoint(when=when, counts=counts) for when in moments],
        )
    )  # fmt: skip


MAKERS = {**sample_reports.SAMPLES, "card": card_alone, "purified": purified}
NAMES = (*MAKERS, "fleet")


@pytest.fixture(scope="module")
def trees() -> dict[str, Tree]:
    pages = {name: render_page(make()) for name, make in MAKERS.items()}
    return {name: Tree(page) for name, page in (pages | {"fleet": fleet()}).items()}


@pytest.mark.parametrize("name", NAMES)
def test_landmarks_stand_once_and_hold_everything(trees: dict[str, Tree], name: str) -> None:
    tree = trees[name]
    assert [element.tag for element in tree.all(*LANDMARKS)] == list(LANDMARKS)
    assert tree.all("html")[0].attributes["lang"] == "en"
    assert tree.all("title")[0].text.strip()
    outside = [e for e in tree.all("p", "h1", "h2", "h3", "table", "figure", "ul") if not e.inside(*LANDMARKS)]
    assert not outside
    labelled = [
        e.attributes.get("aria-label") or e.attributes.get("aria-labelledby") for e in tree.all("nav", "section")
    ]
    assert all(labelled)
    assert len(labelled) == len(set(labelled))


@pytest.mark.parametrize("name", NAMES)
def test_headings_step_down_one_at_a_time(trees: dict[str, Tree], name: str) -> None:
    levels = [int(e.tag[1]) for e in trees[name].all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(e.text.strip() for e in trees[name].all("h1", "h2", "h3"))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_thing_to_focus_jumps_over_the_head(trees: dict[str, Tree], name: str) -> None:
    links = trees[name].all("a")
    assert links[0].attributes["class"] == "skip"
    ids = {e.attributes["id"]: e for e in trees[name].elements if "id" in e.attributes}
    assert ids[str(links[0].attributes["href"])[1:]].inside("main")
    assert all(link.text.strip() for link in links), "a link that says nothing"
    assert not [e for e in trees[name].elements if (e.attributes.get("tabindex") or "0") not in {"0", "-1"}]
    focusable = [e for e in trees[name].elements if e.tag in {"a", "summary"} or "tabindex" in e.attributes]
    assert not [e for e in focusable if e.hidden]


@pytest.mark.parametrize("name", NAMES)
def test_tables_have_headers_of_columns_and_rows(trees: dict[str, Tree], name: str) -> None:
    for table in trees[name].all("table"):
        inside = [e for e in trees[name].elements if any(p is table for p in e.parents)]
        columns = [e for e in inside if e.tag == "th" and e.inside("thead")]
        assert columns
        assert all(e.attributes["scope"] == "col" and e.text.strip() for e in columns)
        for row in (e for e in inside if e.tag == "tr" and e.inside("tbody")):
            assert len(row.children) == len(columns)
            assert row.children[0].attributes.get("scope") == "row"
        region = next(p for p in reversed(table.parents) if p.attributes.get("role") == "region")
        assert region.attributes["tabindex"] == "0", "what scrolls is reached by the keyboard"
        assert region.attributes["aria-label"]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_say_what_they_show_or_are_left_out(trees: dict[str, Tree], name: str) -> None:
    tree = trees[name]
    assert not tree.all("img")
    for picture in [*tree.all("svg"), *(e for e in tree.elements if "stack" in (e.attributes.get("class") or ""))]:
        if picture.hidden:
            continue
        assert picture.attributes["role"] == "img"
        named = picture.attributes.get("aria-label") or picture.attributes.get("aria-labelledby")
        titles = {e.attributes.get("id") for e in tree.elements if any(p is picture for p in e.parents)}
        assert named
        assert picture.attributes.get("aria-label") or set(str(named).split()) <= titles


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_told_by_colour_alone(trees: dict[str, Tree], name: str) -> None:
    for tag in (e for e in trees[name].elements if "tag" in (e.attributes.get("class") or "").split()):
        assert tag.text.strip()
    assert all(e.text.strip() for e in trees[name].elements if e.attributes.get("class") == "severity")


def test_the_status_of_a_claim_stands_once_at_every_width(trees: dict[str, Tree]) -> None:
    """On a phone it moves below the claim, so that it is not off the screen; one of the two is never displayed."""
    style = trees["card"].all("style")[0].text
    narrow = style[style.index("@media (max-width: 40rem)") : style.index("@media print")]
    assert ".narrow { display: none; }" in style
    assert ".claims .narrow { display: block; }" in narrow
    assert ".claims tr > :nth-child(4) { display: none; }" in narrow
    table = next(e for e in trees["card"].all("table") if e.attributes.get("class") == "claims")
    for row in (e for e in trees["card"].all("tr") if any(p is table for p in e.parents) and e.inside("tbody")):
        assert row.children[3].text.strip() == row.children[0].children[-1].text.strip()


def test_focus_is_shown_and_motion_can_be_refused(trees: dict[str, Tree]) -> None:
    for name in ("honest", "fleet"):
        style = trees[name].all("style")[0].text
        assert re.search(r":focus-visible \{ outline: \dpx solid", style)
        assert not re.search(r"outline:\s*(none|0)", style)
        assert "prefers-reduced-motion" in style
        assert "prefers-color-scheme: dark" in style
        assert "@media print" in style
