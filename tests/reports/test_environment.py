import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt
from markupsafe import Markup

from reports.environment import MarkdownSource, html_environment, markdown_environment


def html(source, **context):
    return html_environment().from_string(source).render(context)


def markdown(source, **context):
    return markdown_environment().from_string(source).render(context)


def test_html_is_escaped_and_cleaned_by_default():
    assert html("{{ x }}", x="<b>\x1b\u202e&\"'") == "&lt;b&gt;\\x1b\\u202e&amp;&#34;&#39;"
    assert html("{{ x }}", x=Markup("<b>ours</b>")) == "<b>ours</b>"
    assert html("{{ n }}", n=7) == "7"


def test_markdown_is_escaped_by_default():
    assert markdown("{{ x }}", x="*<b>*|") == r"\*&lt;b&gt;\*\|"
    assert markdown("{{ x }}", x=MarkdownSource("**ours**")) == "**ours**"
    assert markdown("{{ x | code }} {{ x | cell }}", x="a|b") == r"`a|b` `a\|b`"


@pytest.mark.parametrize("render", [html, markdown])
def test_an_undefined_name_is_an_error(render):
    with pytest.raises(UndefinedError):
        render("{{ nothing }}")
    with pytest.raises(UndefinedError):
        render("{% if x.y %}{% endif %}", x={})


@pytest.mark.parametrize("render", [html, markdown])
def test_values_are_never_templates(render):
    assert render("{{ x }}", x="{{ 7*7 }}").replace("\\", "") == "{{ 7*7 }}"


def test_advice_shows_commands_as_code():
    assert html("{{ x | advice }}", x="run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
    cell = markdown("{{ x | advice }}", x="run `a|b` *now*")
    assert MarkdownIt().enable("table").render(f"|x|\n|-|\n|{cell}|").count("<code>a|b</code>") == 1


def test_figures_do_not_break_across_lines():
    assert html("{{ x | figure }}", x="99.98 %<") == "99.98\u202f%&lt;"


def test_lines_in_code_blocks_cannot_end_them():
    assert markdown("{{ x | block }}", x="a\n```\n<!--") == "a\\n```\\n<\\!--"
