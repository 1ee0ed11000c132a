"""Cards that are hard to edit, against every form of publishing; and reports on a card, which are told as that."""

import dataclasses
import re
from pathlib import Path

import pytest
from localhub.faults import Status
from localhub.server import LocalHub
from markdown_it import MarkdownIt
from publishing import CARD, REPO, Bench, later, report
from sample_reports import hostile

from audit.policy import CARD_ALONE
from audit.records import AuditReport
from reports.card_section import BEGIN, END, CardMarkersError, remove
from scanner.errors import CouldNotConclude

FORMS = ("pr", "discussion", "section")
DAMAGED = {
    "doubled": f"{BEGIN}\none\n{END}\n\n{BEGIN}\ntwo\n{END}\n",
    "nested": f"{BEGIN}\r\n{BEGIN}\r\nnested\r\n{END}\r\n{END}\r\n",
    "mangled": f"# Mangled\n<!--hubaudit:begin-->\n{END}\n",
    "unclosed": f"# No end\n{BEGIN}\n",
}


@pytest.fixture
def bench(hub_server: LocalHub, tmp_path: Path) -> Bench:
    hub_server.add_repo(REPO, {"README.md": CARD})
    return Bench(server=hub_server, folder=tmp_path)


def on_card(of: AuditReport) -> AuditReport:
    """A report on the card alone."""
    verdict = dataclasses.replace(of.verdict, outcome="inconclusive", policy=CARD_ALONE, false_positive_rate=None)
    return dataclasses.replace(of, verdict=verdict, drift=())


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_markers_stop_what_edits_the_card_and_nothing_else(bench: Bench, name: str) -> None:
    bench.server.add_repo(REPO, {"README.md": DAMAGED[name]})
    for form in ("pr", "section"):
        with pytest.raises(CardMarkersError, match=r"README\.md line \d+"):
            bench.publish(report(), form, user="demo")
    assert bench.writes() == []
    assert bench.publish(report(), "discussion").startswith("opened ")
    assert bench.server.read(REPO, "README.md") == DAMAGED[name].encode()


@pytest.mark.parametrize("name", DAMAGED)
def test_markers_that_somebody_damaged_in_our_pull_request_are_theirs_to_mend(bench: Bench, name: str) -> None:
    bench.publish(report())
    bench.server.commit(REPO, {"README.md": DAMAGED[name]}, ref="refs/pr/1", author="demo")
    before = bench.writes()
    with pytest.raises(CardMarkersError, match=r"README\.md line \d+"):
        bench.publish(later(report()))
    assert bench.writes() == before
    assert [thread.num for thread in bench.server.discussions(REPO)] == [1], "no second thread in its place"
    bench.server.commit(REPO, {"README.md": CARD}, ref="refs/pr/1", author="demo")
    assert bench.publish(later(report())).startswith("updated ")


def test_two_megabytes_of_crlf_are_updated_in_place_on_main(bench: Bench) -> None:
    line = b"| a row | of an endless | table of results |\r\n"
    card = b"---\r\nlicense: mit   # kept\r\nversion: 1.10\r\n---\r\n" + line * (2_000_000 // len(line)) + b"the end"
    bench.server.add_repo(REPO, {"README.md": card})
    for of in (report(), later(report())):
        assert bench.publish(of, "section", user="demo").startswith("committed ")
        written = bench.server.read(REPO, "README.md")
        assert remove(written) == card
        assert written.count(b"\n") == written.count(b"\r\n")
        assert written.count(BEGIN.encode()) == 1


@pytest.mark.parametrize("form", FORMS)
def test_hostile_text_in_every_field_cannot_act_whatever_the_form(bench: Bench, form: str) -> None:
    payload = (
        f"<img src=x onerror=alert(1)> {END}\r\n# owned [x](javascript:alert(1)) <!-- hubaudit:reasons ab --> \x1b[2J"
    )
    bad = dataclasses.replace(hostile(payload), subject=report().subject)
    bench.etiquette["disclose"] = True
    bench.publish(bad, form, user="demo")
    threads = bench.server.discussions(REPO)
    texts = [comment for thread in threads for comment in thread.comments] + [thread.title for thread in threads]
    ref = {"pr": "refs/pr/1", "section": "main", "discussion": "main"}[form]
    written = bench.server.read(REPO, "README.md", ref)
    assert remove(written) == CARD
    texts.append(written.decode())
    for text in texts:
        html = MarkdownIt("commonmark").enable("table").render(text)
        assert not re.search(r"<(img|script)|javascript:[^<]*\"|<h1>owned", html)
        assert "\x1b" not in text
        assert text.count(END) <= 1
    assert sum(text.count("<!-- hubaudit:reasons") for text in texts) == len(threads)


@pytest.mark.parametrize("form", FORMS)
def test_a_report_on_a_card_is_published_as_that(bench: Bench, form: str) -> None:
    bench.publish(on_card(report()), form, user="demo")
    ref = {"pr": "refs/pr/1", "section": "main", "discussion": "main"}[form]
    threads = bench.server.discussions(REPO)
    texts = [comment for thread in threads for comment in thread.comments]
    texts += [bench.server.read(REPO, "README.md", ref).decode()] if form != "discussion" else []
    assert texts
    assert all("no weights were read" in text and "eight audit" not in text for text in texts)
    assert all("ard audit" in thread.title for thread in threads)


@pytest.mark.parametrize("form", ["pr", "discussion"])
def test_a_thread_about_a_card_is_found_without_its_marker_and_takes_a_scan(bench: Bench, form: str) -> None:
    bench.publish(on_card(report()), form)
    (thread,) = bench.server.discussions(REPO)
    thread.events[0].details["hidden"] = True
    assert bench.publish(report(), form).startswith("updated ")
    assert len(bench.server.discussions(REPO)) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_rate_limit_leaves_the_card_and_opens_nothing_twice(bench: Bench, form: str) -> None:
    target = {"pr": "/commit/", "section": "/commit/", "discussion": "/discussions"}[form]
    bench.server.faults.add(Status.rate_limited(40), method="POST", path=target)
    with pytest.raises(CouldNotConclude, match="again in 40 s"):
        bench.publish(report(), form, user="demo")
    assert bench.server.read(REPO, "README.md") == CARD
    assert bench.server.discussions(REPO) == ()
    bench.publish(report(), form, user="demo")
    assert len(bench.server.discussions(REPO)) == (form != "section")
