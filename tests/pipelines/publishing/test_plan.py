import dataclasses

import pytest
from publishing import REPO, report, with_finding

from pipelines.publishing.hub_writer import Thread
from pipelines.publishing.plan import differs_only_in_when, ended_by_others, findings_gone, told_and_gone, with_reasons
from reports.markdown import card_section

A, B = "a" * 40, "b" * 40


def thread(number: int = 1, *, text: str = "", **changes) -> Thread:
    plain = Thread(
        number=number,
        is_pull_request=True,
        state="open",
        comment_id="1",
        text=text,
        closed_by=None,
        conflicts=False,
        only_ours=True,
    )
    return dataclasses.replace(plain, **changes)


def test_reasons_are_hidden_in_the_text_and_found_again() -> None:
    found = with_finding(report())
    text = with_reasons("Hello", found)
    assert text.startswith("Hello\n<!-- hubaudit:reasons 8f3a1c0b5d7e9f21 -->")
    assert findings_gone(thread(text=text), report())
    assert not findings_gone(thread(text=text), found)
    assert not findings_gone(thread(text=with_reasons("Hello", report())), report())


def test_a_fingerprint_cannot_end_the_comment() -> None:
    bad = dataclasses.replace(report().verdict, reasons=("--> <b>", "8f3a1c0b5d7e9f21 -->", "8F3A1C0B", "x" * 9))
    assert with_reasons("T", dataclasses.replace(report(), verdict=bad)) == "T\n<!-- hubaudit:reasons -->\n"


@pytest.mark.parametrize("outcome", ["review", "fail", "inconclusive"])
def test_only_a_finished_audit_without_findings_says_gone(outcome) -> None:
    text = with_reasons("", with_finding(report()))
    verdict = dataclasses.replace(report().verdict, outcome=outcome)
    assert not findings_gone(thread(text=text), dataclasses.replace(report(), verdict=verdict))


def test_who_closed_it_decides() -> None:
    ours = thread(1, state="closed", closed_by="bot")
    theirs = thread(2, state="closed", closed_by="owner")
    unknown = thread(3, state="closed", closed_by="")
    merged = thread(4, state="merged")
    assert ended_by_others([ours, merged], "bot") is None
    assert ended_by_others([ours, theirs, merged], "bot") == theirs
    assert ended_by_others([unknown], "bot") == unknown


def test_what_was_told_and_is_gone_needs_no_second_thread() -> None:
    told = with_reasons("", with_finding(report()))
    closed = thread(3, state="closed", closed_by="bot", text=told)
    assert told_and_gone([thread(1), closed], "bot", report()) == closed
    assert told_and_gone([closed], "bot", with_finding(report())) is None
    assert told_and_gone([closed, thread(4)], "bot", report()) is None
    assert told_and_gone([thread(3, state="closed", closed_by="bot")], "bot", report()) is None
    assert told_and_gone([], "bot", report()) is None


def test_a_date_and_a_commit_are_no_difference() -> None:
    old = report(revision=A)
    new = dataclasses.replace(report(revision=B), created_at="2027-01-02T03:04:00+00:00")
    assert differs_only_in_when(card_section(old), card_section(new), new) == A
    assert (
        differs_only_in_when(card_section(old).replace("\n", "\r\n"), card_section(new).replace("\n", "\r\n"), new) == A
    )
    assert differs_only_in_when("", card_section(new), new) is None
    assert differs_only_in_when(card_section(with_finding(old)), card_section(new), new) is None


def test_another_base_is_a_difference() -> None:
    old = report(revision=A)
    base = dataclasses.replace(old.lineage.base, revision=B)
    new = dataclasses.replace(old, lineage=dataclasses.replace(old.lineage, base=base))
    assert differs_only_in_when(card_section(old), card_section(new), new) is None


def test_a_name_with_special_characters_is_matched_as_it_stands() -> None:
    new = report("demo/r.viewsxhonest", revision=A)
    assert differs_only_in_when(f"{REPO}@{A}", f"{REPO}@{A}", new) is None
