"""One line in the metadata: every other byte stays, and where that is not certain nothing is changed."""

import pytest
import sample_reports
from hypothesis import example, given
from hypothesis import strategies as st

from reports.front_matter import Entry, FrontMatterKept, entry_of, has_entry, undated, with_entry
from scanner.card import parse_card
from scanner.errors import BadReference

ENTRY = Entry(verdict="pass", date="2026-11-20", report="https://example.org/report.html?a=1#b")
OTHER = Entry(verdict="fail", date="2027-01-02")
LINE = b'hubaudit: {verdict: "pass", date: "2026-11-20", report: "https://example.org/report.html?a=1#b"}'

CARDS = {
    "plain": b"---\nlicense: mit\n---\n# T\n",
    "comments and numbers": b"---\n# why\nlicense: mit  # kept\nversion: 1.10\nn: 0x1F\nd: 2026-01-01\n---\nText",
    "crlf": b"---\r\nlicense: mit\r\n---\r\n# T\r\n",
    "cr": b"---\rlicense: mit\r---\r# T\r",
    "bom": b"\xef\xbb\xbf---\nlicense: mit\n---\n",
    "blank lines first": b"\n\n---\nlicense: mit\n---\n",
    "trailing spaces": b"---  \nlicense: mit   \n---\t\n",
    "empty block": b"---\n---\n# T\n",
    "only comments": b"---\n# nothing yet\n---\n# T\n",
    "no text behind": b"---\nlicense: mit\n---",
    "open scalar": b"---\ndescription: |+\n  one\n\n  two\n\n---\n# T\n",
    "folded at the end": b"---\na: >\n  one\n  two\n---\n",
    "list at the end": b"---\ntags:\n- a\n- b\n---\n",
    "anchors": b"---\na: &x [1, 2]\nb: *x\n---\n",
    "repeated keys": b"---\na: 1\na: 2\n---\n",
    "dashes in the text": b"---\na: 1\n---\n\n---\nb: 2\n---\n",
    "unicode": "---\ntitle: é \u2028 x\n---\n".encode(),
}
KEPT = {
    "empty": b"",
    "no block": b"# Title\n",
    "not closed": b"---\nlicense: mit\n",
    "a flow mapping": b"---\n{license: mit}\n---\n",
    "a list": b"---\n- a\n---\n",
    "broken": b"---\na: [\n---\n",
    "an indented block": b"---\n  license: mit\n---\n",
    "a key that is not ours": b"---\nhubaudit: {publish: true}\n---\n",
    "a no": b"---\nhubaudit: false\n---\n",
    "ours, but in a block of its own": b'---\nhubaudit:\n  verdict: "pass"\n---\n',
    "ours, but inside a text": b"---\na: |\n  x\nhubaudit: x\nb: |\n " + LINE + b"\n---\n",
    "a document end": b"---\na: 1\n...\n---\n",
    "not utf-8": b"---\na: \xff\n---\n",
    "too large": b"---\na: " + b"x" * (1 << 21) + b"\n---\n",
}


@pytest.mark.parametrize("name", CARDS)
def test_one_line_is_added_and_every_other_byte_stays(name: str) -> None:
    card = CARDS[name]
    done = with_entry(card, ENTRY)
    eol = next(end for end in (b"\r\n", b"\n", b"\r") if end in card)
    where = done.index(LINE)
    assert done[:where] + done[where + len(LINE) + len(eol) :] == card
    assert done[where + len(LINE) :].startswith(eol)
    assert with_entry(done, ENTRY) == done
    assert has_entry(done)
    assert not has_entry(card)
    metadata = parse_card(done.decode()).metadata
    assert metadata is not None
    assert metadata["hubaudit"] == {"verdict": "pass", "date": "2026-11-20", "report": ENTRY.report}


@pytest.mark.parametrize("name", CARDS)
def test_it_is_updated_in_place(name: str) -> None:
    card = CARDS[name]
    assert with_entry(with_entry(card, ENTRY), OTHER) == with_entry(card, OTHER)


def test_the_line_may_be_moved_by_its_owner() -> None:
    card = b"---\n" + LINE + b"  \nlicense: mit\n---\n"
    assert with_entry(card, OTHER) == b"---\n" + OTHER.line() + b"\nlicense: mit\n---\n"


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_certain_is_left_alone(name: str) -> None:
    with pytest.raises(FrontMatterKept) as caught:
        with_entry(KEPT[name], ENTRY)
    assert "left" in str(caught.value)
    assert str(caught.value).isprintable()
    assert not has_entry(KEPT[name])


PIECES = st.sampled_from(
    [
        b"---\n",
        b"---\r\n",
        b"---",
        b"license: mit\n",
        b"a: |\n",
        b"  text\n",
        b"\n",
        b"\r",
        b"# c\n",
        b"b: [1,\n",
        b"2]\n",
        b"\xef\xbb\xbf",
        b" ",
        b"x: 1.10\r\n",
        LINE + b"\n",
        b"hubaudit: no\n",
        b"...\n",
        "é\u2028".encode(),
    ]
)


@given(
    st.lists(PIECES, max_size=14).map(b"".join) | st.binary(max_size=60).map(lambda raw: b"---\n" + raw + b"\n---\n")
)
@example(b"---\na: |\n  x\n---\n")
def test_whatever_the_card_is_only_our_line_changes(card: bytes) -> None:
    try:
        done = with_entry(card, OTHER)
    except FrontMatterKept:
        return
    line = OTHER.line()
    where = done.index(line)
    eol = next(end for end in (b"\r\n", b"\n", b"\r") if done[where + len(line) :].startswith(end))
    head, tail = done[:where], done[where + len(line) + len(eol) :]
    assert card.startswith(head)
    assert card.endswith(tail)
    replaced = card[len(head) : len(card) - len(tail)]
    assert replaced.rstrip() in {b"", LINE}
    assert with_entry(done, OTHER) == done
    before, after = parse_card(card.decode()).metadata, parse_card(done.decode()).metadata
    assert before is not None
    assert after == before | {"hubaudit": OTHER.values()}


def test_another_date_alone_is_no_news() -> None:
    one, two = (with_entry(CARDS["crlf"], Entry(verdict="pass", date=day)) for day in ("2026-11-20", "2026-12-20"))
    assert one != two
    assert undated(one) == undated(two)
    assert undated(one) != undated(with_entry(CARDS["crlf"], Entry(verdict="fail", date="2026-11-20")))


def test_the_entry_of_a_report() -> None:
    assert entry_of(sample_reports.honest()) == Entry(verdict="pass", date="2026-11-20")
    url = "https://example.org/r.html"
    assert entry_of(sample_reports.poisoned_row(), url=url) == Entry(verdict="fail", date="2026-11-20", report=url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.org",
        "https://",
        'https://x/"}',
        "https://x/a b",
        "https://x/\n",
        "https://x/" + "a" * 500,
        "javascript:x",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BadReference):
        entry_of(sample_reports.honest(), url=url)
