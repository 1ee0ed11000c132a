import re

import pytest
import sample_reports

from reports.formats import RENDERERS, UnknownFormat, render, renderer
from scanner.errors import BadReference


def test_the_formats_of_the_contract_are_there():
    assert list(RENDERERS) == ["table", "json", "markdown", "html", "sarif", "summary", "cyclonedx"]


@pytest.mark.parametrize("name", RENDERERS)
def test_each_renders_text_that_ends_in_a_newline(name):
    entry = RENDERERS[name]
    assert entry.name == name
    assert re.fullmatch(r"(\.\w+)+", entry.suffix)
    assert "/" in entry.media_type
    text = entry.render(sample_reports.honest())
    assert text.endswith("\n")
    assert text == entry.render(sample_reports.honest()), "the same report gives the same text"
    assert text == render(sample_reports.honest(), name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("htlm", "did you mean html?"), ("SARIF", "did you mean sarif?"), ("pdf\x1b", r"choose one of table, json")],
)
def test_an_unknown_format_suggests_the_nearest(name, hint):
    with pytest.raises(UnknownFormat, match=re.escape(hint)) as caught:
        renderer(name)
    assert isinstance(caught.value, BadReference)
    assert "\x1b" not in str(caught.value)


def test_colour_is_for_the_table_alone():
    report = sample_reports.honest()
    assert "\x1b[" in render(report, "table", colour=True)
    assert render(report, "json", colour=True) == render(report, "json")
    with pytest.raises(UnknownFormat):
        render(report, "jsno")
