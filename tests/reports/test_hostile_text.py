"""Text of strangers, in every field of a report, in every format: shown, never obeyed.

The structural tests render one report twice, with harmless and with hostile text in front of every text field, and
demand the same structure: the same tags with the same attributes, the same Markdown tree, the same JSON keys.
"""

import json
import re
from functools import cache
from html.parser import HTMLParser

import pytest
import sample_reports
from any_report import reports
from hypothesis import HealthCheck, Phase, given, settings
from markdown_it import MarkdownIt

from reports.card_section import BEGIN, END
from reports.formats import RENDERERS, render
from reports.markdown import PR_MARKER, pr_body, pr_title

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg><script>x</script>",
    "--> <!-- hubaudit:end -->",
    "]]><!--",
    "{{ 7*7 }}{% raw %}{# #}",
    "${7*7} $x^2$ \\frac{1}{2}",
    "| a | b |\n|---|---|\n",
    "\n\n# Heading\n\n- list\n\n```\n",
    "[link](javascript:alert(1)) ![img](https://evil.example/x.png)",
    "<https://evil.example> https://evil.example www.evil.example a@evil.example",
    "@someone #123 org/repo#1 GH-1 :tada:",
    "\x1b[2J\x1b]8;;https://evil.example\x07x\x1b]8;;\x07",
    "\x9b31m\x07\x08\x00\x7f",
    "\u202etxet\u2066\u200b\ufeff\u2028\u2029",
    "\ud800 lone",
    "`` ` ``` \\` \\",
    "=cmd|' /C calc'!A0",
    "::error file=x::y\n::set-output name=a::b",
    "z" + "\u0301" * 40,
    "漢字 🦀 \U000e0041",
    "x" * 3000,
]
HARMLESS = "word "


class Structure(HTMLParser):
    """Tags with the names of their attributes, and the values of those that could load or run something."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags = []
        self.values = []
        self.text = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, data):
        self.tags.append(f"!{data}")

    def handle_decl(self, decl):
        self.tags.append(f"!{decl}")

    def handle_pi(self, data):
        self.tags.append(f"?{data}")

    def handle_data(self, data):
        self.text.append(data)


TRAPS = ("@someone", "#123", "://evil", "www.evil", "GH-1", ":tada:")
"""What renderers turn into mentions, references, links and pictures when it stands in plain text."""


@cache
def hostile(payload):
    return sample_reports.hostile(payload)


@cache
def page_of(payload):
    return render(hostile(payload), "html")


def without_code(tags):
    """Leave out <code>, which backticks in our own prose may ask for."""
    return [tag for tag in tags if tag not in {"/code", ("code", ())}]


LOADING = {"href", "src", "class", "id", "rel", "content", "http-equiv"}


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_html_has_the_same_tags_and_attributes_whatever_the_text(payload):
    harmless, page = Structure(page_of(HARMLESS)), Structure(page_of(payload))
    assert without_code(page.tags) == without_code(harmless.tags)
    assert [e for e in page.values if e[1] in LOADING] == [e for e in harmless.values if e[1] in LOADING]


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_html_loads_and_runs_nothing(payload):
    page = Structure(page_of(payload))
    names = {tag[0] for tag in page.tags if isinstance(tag, tuple)}
    assert not names & {"script", "iframe", "object", "embed", "img", "base", "form", "input", "foreignobject", "image"}
    for tag, name, value in page.values:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src"}:
            assert re.fullmatch(r"#[\w-]+|data:,|https://github\.com/hubaudit/hubaudit", value), (tag, name, value)
        if name == "style":
            assert "url(" not in value
    assert no_hidden_characters(page_of(payload), but="\n\u202f")


def no_hidden_characters(text, *, but="\n"):
    return all(char in but or char.isprintable() for char in text)


def tree_of(markdown):
    """The Markdown tree without texts: types, tags and levels of all tokens, inline ones included."""

    def walk(tokens):
        for token in tokens:
            if token.type not in {"text", "text_special", "softbreak"}:
                yield token.type, token.tag, token.level, tuple(sorted(token.attrs))
            yield from walk(token.children or [])

    return list(walk(MarkdownIt("commonmark").enable("table").parse(markdown)))


MARKDOWN = {
    "section": lambda report: render(report, "markdown"),
    "summary": lambda report: render(report, "summary"),
    "body": pr_body,
}


@pytest.mark.parametrize("document", MARKDOWN)
@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_markdown_has_the_same_tree_whatever_the_text(payload, document):
    render_it = MARKDOWN[document]
    text = render_it(hostile(payload))
    tree = [node for node in tree_of(text) if node[0] != "code_inline"]
    assert tree == [node for node in tree_of(render_it(hostile(HARMLESS))) if node[0] != "code_inline"]
    assert no_hidden_characters(text, but="\n\u2060")


@pytest.mark.parametrize("document", MARKDOWN)
@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_markdown_has_no_html_but_our_markers_and_links_to_us_alone(payload, document):
    text = MARKDOWN[document](hostile(payload))
    comments = {"section": {BEGIN, END}, "body": {PR_MARKER}, "summary": set()}[document]

    def walk(tokens):
        for token in tokens:
            if token.type in {"html_block", "html_inline"}:
                assert token.content.strip() in comments
            assert token.type != "image"
            if token.type == "link_open":
                assert token.attrs["href"] == "https://github.com/hubaudit/hubaudit"
            if token.type == "text":
                assert not any(trap in token.content for trap in TRAPS)
            walk(token.children or [])

    walk(MarkdownIt("commonmark").enable("table").parse(text))
    assert text.count("<!--") == len(comments)


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_tables_rows_keep_their_cells(payload):
    text = render(hostile(payload), "summary")
    html = MarkdownIt("commonmark").enable("table").render(text)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    assert [len(re.findall("<t[dh]>", row)) for row in rows] == [5] * 5 + [4] * 4


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
@pytest.mark.parametrize("colour", [False, True])
def test_the_terminal_sees_no_control_characters_of_strangers(payload, colour):
    text = render(hostile(payload), "table", colour=colour)
    ours = re.sub(r"\x1b\[[\d;]*m", "", text) if colour else text
    assert no_hidden_characters(ours)
    assert ("\x1b[" in text) == colour


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_sarif_messages_carry_no_control_characters_or_links(payload):
    text = render(hostile(payload), "sarif")
    assert text.isascii()

    def walk(value):
        if isinstance(value, str):
            assert no_hidden_characters(value), ascii(value)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    log = json.loads(text)
    walk(log)
    for result in log["runs"][0]["results"]:
        assert "](" not in result["message"]["text"]


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_titles_of_pull_requests_are_one_clean_line(payload):
    title = pr_title(hostile(payload))
    assert no_hidden_characters(title, but="")
    assert len(title) < 120


@given(reports())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # pages are too slow to shrink a report by drawing them
)
def test_every_format_renders_any_report_that_can_be_read(report):
    for name in RENDERERS:
        text = render(report, name)
        assert text.endswith("\n")
        text.encode("utf-8")
        assert no_hidden_characters(text, but="\n\u2060\u202f"), name


def test_every_field_of_the_hostile_report_is_hostile():
    fields = []

    def collect(text):
        fields.append(text)
        return text

    sample_reports.with_every_text(hostile("PAYLOAD"), collect)
    assert len(fields) > 200
    assert all(field.startswith("PAYLOAD") for field in fields)
