import dataclasses
import re
from html.parser import HTMLParser

import pytest
import sample_reports

from audit.records import CardClaim, ClaimRecord, SkipRecord, Token
from reports.page import render_page
from reports.wording import headline

PAGES = sample_reports.SAMPLES


@pytest.fixture(scope="module")
def pages():
    return {name: render_page(make()) for name, make in PAGES.items()}


def text_of(page):
    parts = []

    class Text(HTMLParser):
        def handle_data(self, data):
            parts.append(data)

    parser = Text()
    parser.feed(re.sub(r"(?s)<style>.*?</style>", "", page))
    return " ".join("".join(parts).replace("\u202f", " ").split())


@pytest.mark.parametrize("name", PAGES)
def test_the_answer_comes_first(pages, name):
    text = text_of(pages[name])
    line = headline(PAGES[name]())
    assert line in text
    assert text.index(line) < text.index("Family")
    assert re.search(r'<meta http-equiv="Content-Security-Policy" content="default-src \'none\';', pages[name])


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_well_formed_and_its_anchors_and_ids_hold(pages, name):
    void = {"meta", "link", "br", "img", "hr"}
    stack, ids, anchors, labels = [], [], [], []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            values = dict(attrs)
            ids.extend([values["id"]] if "id" in values else [])
            anchors.extend([values["href"]] if values.get("href", "").startswith("#") else [])
            labels.extend([values["aria-labelledby"]] if "aria-labelledby" in values else [])
            if tag not in void:
                stack.append(tag)

        def handle_startendtag(self, tag, attrs):
            raise AssertionError(f"<{tag}/>")

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    checker = Checker()
    checker.feed(pages[name])
    checker.close()
    assert not stack
    assert len(ids) == len(set(ids))
    assert {anchor[1:] for anchor in anchors} <= set(ids)
    assert set(labels) <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_readers_without_eyes_find_their_way(pages, name):
    page = pages[name]
    assert '<html lang="en">' in page
    assert page.count("<h1>") == 1
    assert page.count("<main>") == 1
    for landmark in ("<header>", "<nav aria-label", "<footer>", 'class="skip"'):
        assert landmark in page
    assert page.count("<table") == page.count("<caption>")
    assert not re.search(r"<th(?! scope)[ >]", page)
    for svg in re.findall(r"<svg[^>]*>", page):
        assert 'role="img"' in svg or 'aria-hidden="true"' in svg
    for region in re.findall(r'<div class="scroll[^>]*>', page):
        assert 'tabindex="0" role="region" aria-label="' in region


def test_findings_show_explanation_evidence_remedy_and_tokens(pages):
    text = text_of(pages["poisoned-row"])
    assert "A token's row moved far beyond what its frequency explains" in text
    assert "17.1 σ flagged when > 6" in text
    assert "cf12935" in text
    assert "What to do Do not feed untrusted text" in text
    assert "<code>hubaudit purify --method e-pur</code>" in pages["poisoned-row"]
    assert 'class="fill" style="width: 86.96%"' in pages["poisoned-row"]


def test_the_family_line_runs_from_the_root_to_the_candidate(pages):
    text = text_of(pages["honest"])
    family = text[text.index("Family F") if "Family F" in text else text.rindex("Family") :]
    order = [family.index(name) for name in ("demo/tiny-pretrained", "demo/small-encoder", "demo/reviews-honest")]
    assert order == sorted(order)
    assert "finetune, verified" in text
    wrong = text_of(pages["wrong-base"])
    assert "Nearest other model: demo/small-encoder" in wrong
    assert "README.md names demo/other-encoder" in wrong
    assert 'class="candidate contradicted"' in pages["wrong-base"]


def test_figures_are_there_when_there_is_drift_and_only_then(pages):
    assert pages["poisoned-row"].count('class="plot"') == 3
    assert "var(--flag)" in pages["poisoned-row"].split("</style>")[1]
    assert 'class="plot"' not in pages["wrong-base"]
    assert "#drift" not in pages["wrong-base"]
    assert "cf  130 ×" in pages["poisoned-row"]


def test_remarks_are_not_marked_in_the_figures(pages):
    tips = re.findall(r"<title>pooler: [^<]*</title>.*?</g>", pages["poisoned-row"], re.DOTALL)
    assert tips
    assert "var(--flag)" not in tips[0]


def test_an_inconclusive_page_never_looks_like_a_pass(pages):
    text = text_of(pages["inconclusive"])
    assert "This is not a pass." in text
    assert "too little was compared for that to mean anything" in text
    assert "Nothing found" not in text
    assert "not known" in text
    assert "Nothing found by these tests." in text_of(pages["honest"])


def test_error_rate_coverage_card_and_command_are_quoted(pages):
    text = text_of(pages["poisoned-row"])
    assert "2.0 % 48 clean fine-tunes of one encoder" in text
    assert "99.99 % of 22.7 M parameters compared" in text
    assert "licence not checkable apache-2.0 – not checkable" in text, "the status once more, for narrow screens"
    assert f"hubaudit scan demo/reviews-poisoned-row@{sample_reports.CANDIDATE_SHA}" in text
    assert "Profile digest" in text


def test_the_profile_is_told_in_words_and_short_numbers():
    report = sample_reports.honest()
    profile = {"clean_models": 56, "likeness": 28 / 57, "bank": None}
    page = render_page(dataclasses.replace(report, profile=profile))
    assert "<dt>Profile clean models</dt><dd>56</dd>" in page
    assert "<dt>Profile likeness</dt><dd>0.4912</dd>" in page
    assert "<dt>Profile bank" not in page


def test_the_same_report_gives_the_same_bytes():
    assert render_page(sample_reports.rank_one()) == render_page(sample_reports.rank_one())


def test_long_lists_are_cut_and_say_so():
    report = sample_reports.poisoned_row()
    finding = report.findings[0]
    location = dataclasses.replace(finding.locations[0], tokens=tuple(Token(id=n, text=f"t{n}") for n in range(45)))
    finding = dataclasses.replace(finding, locations=(location,) * 14)
    report = dataclasses.replace(
        report,
        findings=(finding, *(report.findings[1],) * 104),
        card=(CardClaim(claim="c", declared="d", observed="o", status="supported"),) * 103,
        drift=report.drift[:1] * 3 + report.drift[1:] * 3,
        coverage=dataclasses.replace(
            report.coverage, skipped=tuple(SkipRecord(what="w", why=f"reason {n}") for n in range(22))
        ),
        lineage=dataclasses.replace(report.lineage, claims=(ClaimRecord(source="s", value="v"),) * 300),
    )
    page = render_page(report)
    text = text_of(page)
    assert "and 5 more" in text
    assert "and 2 more places" in text
    assert "5 more findings are in the JSON report." in text
    assert "3 more claims are in the JSON report." in text
    assert "109 more are in the JSON report" in text
    assert "and 2 more reasons" in text
    assert page.count('class="plot"') == 4, "one map, two distributions, one of spectra"
    assert len(page) < 2_000_000


def variables(css, scheme):
    light, dark = css.split("@media (prefers-color-scheme: dark)")[0], css.split("prefers-color-scheme: dark)")[1]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", dark.split("\n* {")[0]))
    return found


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


PAIRS = [(text, ground) for text in ("ink", "muted", "link") for ground in ("page", "surface")]
PAIRS += [("muted", f"{tone}-soft") for tone in ("good", "warn", "flag", "open")]
PAIRS += [(tone, ground) for tone in ("good", "warn", "flag", "open") for ground in ("surface", f"{tone}-soft")]
PAIRS += [("accent", "sunken"), ("muted", "sunken"), ("muted", "quiet")]
PAIRS += [("heat-ink-weak", f"heat-{step}") for step in range(5)]
PAIRS += [("heat-ink-strong", f"heat-{step}") for step in range(5, 9)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_is_readable_on_its_ground(pages, scheme, text, ground):
    css = pages["wrong-base"].split("<style>")[1].split("</style>")[0]
    colours = variables(css, scheme)
    assert contrast(colours[text], colours[ground]) >= 4.5
