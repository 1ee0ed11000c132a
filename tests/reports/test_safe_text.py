import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports.safe_text import (
    WORD_JOINER,
    clean_line,
    clean_prose,
    clean_token,
    code_parts,
    defuse_comments,
    markdown_cell,
    markdown_code,
    markdown_text,
    shorten,
)

ANY_TEXT = st.text(st.characters(), max_size=80)
SPITEFUL = st.text(st.sampled_from("`|\\<>&[]()!*_~#@$:-.=+1aw \n\x1b\u202e\u200b/"), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("ünïcödé 漢字", "ünïcödé 漢字"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ufeffbom", "\\ufeffbom"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("filler\u3164", "filler\\u3164"),
        ("emoji\ufe0f", "emoji\\ufe0f"),
        ("no\xa0break", "no\\xa0break"),
        ("lone\ud800", "lone\\ud800"),
        ("e\u0301", "e\u0301"),
        ("z" + "\u0301" * 5, "z" + "\u0301" * 3 + "\\u0301" * 2),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_becomes_visible(text, expected):
    assert clean_line(text) == expected


@given(ANY_TEXT)
def test_a_clean_line_has_nothing_invisible_and_is_bounded(text):
    cleaned = clean_line(text, limit=50)
    assert cleaned.isprintable()
    assert len(cleaned) <= 50
    assert all(unicodedata.category(char)[0] != "C" for char in cleaned)
    cleaned.encode()


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text):
    assert clean_line(clean_line(text)) == clean_line(text)


def test_different_names_stay_different():
    assert clean_line("a\u200bb") != clean_line("ab")


def test_the_middle_of_a_long_text_gives_way():
    short = shorten("model.layers.31." + "x" * 300 + ".down_proj.weight", 40)
    assert len(short) == 40
    assert short.startswith("model.layers.31.")
    assert "…" in short
    assert short.endswith("proj.weight"[-9:])


def test_prose_is_one_line_and_huge_texts_cost_nothing():
    assert clean_prose("one\n\n  two\u2028three ") == "one two three"
    assert len(clean_prose("word " * 10**6)) <= 2000


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" cf", "␣cf"), ("a ", "a␣"), ("  ", "␣␣"), ("", "(empty)"), ("in side", "in side"), ("\n", "\\n")],
)
def test_outer_spaces_of_tokens_are_visible(token, shown):
    assert clean_token(token) == shown


def rendered(source: str) -> str:
    """Render as the Hub does: CommonMark with tables."""
    return MarkdownIt("commonmark").enable("table").render(source)


def visible(html: str) -> str:
    text = re.sub(r"</?(p|code|table|thead|tbody|tr|th|td)>|\n", "", html)
    assert "<" not in text, html
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, char)
    return text.replace(WORD_JOINER, "")


@given(st.one_of(SPITEFUL, ANY_TEXT))
def test_markdown_text_shows_the_text_and_nothing_else(text):
    assert visible(rendered(markdown_text(text))) == clean_prose(text)


@given(st.one_of(SPITEFUL, ANY_TEXT))
def test_a_code_span_shows_the_text_and_nothing_else(text):
    html = rendered("x" + markdown_code(text) + "x")
    shown = visible(html).removeprefix("x").removesuffix("x")
    assert shown.strip() == defuse_comments(clean_line(text)).strip()
    assert html.count("<code>") == 1


@given(st.one_of(SPITEFUL, ANY_TEXT))
def test_a_table_cell_stays_one_cell(text):
    html = rendered(f"| a | b |\n|---|---|\n| {markdown_cell(text)} | {markdown_text(text)} |\n")
    assert html.count("<td>") == 2
    assert html.count("<code>") == 1
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert visible(cells[1]) == clean_prose(text)
    assert "<!--" not in markdown_cell(text)


@pytest.mark.parametrize(
    "source", ["@someone", "#123", "x/y#7", "https://evil.example", "www.evil.example", ":tada:", "GH-7"]
)
def test_nothing_in_text_links_or_notifies(source):
    escaped = markdown_text(source)
    assert source not in escaped
    assert escaped.replace(WORD_JOINER, "").replace("\\", "") == source


@pytest.mark.parametrize("source", ["99.98 % of it", "12:30:45", "org/name", "a-b", "3.5"])
def test_ordinary_text_is_left_alone(source):
    assert markdown_text(source) == source


@pytest.mark.parametrize("start", ["# h", "- item", "+ item", "1. item", "2) item", "===", "---", "> quote", "* item"])
def test_no_text_opens_a_block(start):
    assert re.fullmatch(r"<p>.*</p>\n", rendered(markdown_text(start)))


def test_a_pipe_after_a_backslash_is_written_out():
    assert markdown_cell("a\\|b") == r"`a\\x7cb`"
    assert markdown_code("a|b") == "`a|b`"


def test_comment_delimiters_are_broken_in_code():
    assert "<!--" not in markdown_code("<!-- hubaudit:end -->")
    assert "-->" not in markdown_code("<!-- hubaudit:end -->")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("run `x y` now", [(False, "run "), (True, "x y"), (False, " now")]),
        ("`x`", [(True, "x")]),
        ("one ` alone", [(False, "one ` alone")]),
        ("`a` and ` b", [(True, "a"), (False, " and ` b")]),
        ("", []),
    ],
)
def test_code_between_backticks(text, parts):
    assert code_parts(text) == parts
