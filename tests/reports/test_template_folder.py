"""A user's own templates: form is theirs, values stay escaped, and every mistake is one sentence."""

from pathlib import Path

import pytest
import sample_reports
from click.testing import CliRunner, Result
from localhub.server import LocalHub
from publishing import CARD, REPO
from publishing import report as publishable

from pipelines.cli import cli
from reports.card_section import BEGIN, END
from reports.formats import render
from reports.json_v1 import dump
from reports.markdown import PR_MARKER, pr_body
from reports.template_folder import BadTemplate, in_use, templates_of

SUMMARY = "summary.md.jinja"
PAGE = "report.html.jinja"
SECTION = "card_section.md.jinja"


def folder(path: Path, **templates: str) -> Path:
    """A folder of templates, by the stem of the names."""
    path.mkdir(exist_ok=True)
    names = {"summary": SUMMARY, "page": PAGE, "section": SECTION, "body": "pr_body.md.jinja", "css": "report.css"}
    for name, text in templates.items():
        (path / names.get(name, name)).write_text(text, encoding="utf-8")
    return path


def test_a_template_takes_the_place_of_ours_and_the_others_stay(tmp_path: Path) -> None:
    report = sample_reports.honest()
    ours = render(report, "html")
    with templates_of(folder(tmp_path, summary="Verdict: {{ headline }}\n")):
        assert render(report, "summary").startswith("Verdict: PASS: nothing found")
        assert render(report, "html") == ours
    assert in_use() == ()
    assert render(report, "summary").startswith("## PASS")


def test_it_may_include_a_neighbour_and_extend_nothing_else(tmp_path: Path) -> None:
    made = folder(tmp_path, summary="{% include 'foot.md.jinja' %}")
    (made / "foot.md.jinja").write_text("from {{ tool }}")
    with templates_of(made):
        assert render(sample_reports.honest(), "summary") == "from hubaudit 0.1.0"
    for name in ("../secret.md.jinja", "/etc/passwd", "nothing.md.jinja"):
        (made / "secret.md.jinja").write_text("x")
        with templates_of(folder(tmp_path, summary=f"{{% include '{name}' %}}")), pytest.raises(BadTemplate):
            render(sample_reports.honest(), "summary")


def test_the_style_sheet_can_be_ones_own(tmp_path: Path) -> None:
    with templates_of(folder(tmp_path, css="body { color: #123456 }")):
        assert "color: #123456" in render(sample_reports.honest(), "html")


HOSTILE = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ report.subject.name }}",
        "{{ '<b>' ~ report.subject.name }}",
        "{% set x %}<b>{{ report.subject.name }}</b>{% endset %}{{ x }}",
        "{% set x %}<b>%s</b>{% endset %}{{ x % report.subject.name }}",
        "{% set x %}<b>NAME</b>{% endset %}{{ x | replace('NAME', report.subject.name) }}",
        "{{ (report.subject.name | e).unescape() }}",
        "{{ report.subject.name | string | join('') }}",
        "{% macro m(x) %}<i>{{ x }}</i>{% endmacro %}{{ m(report.subject.name) }}",
        "{{ report.subject.name | format }}",
        "<p title='{{ report.subject.name | line }}'>{{ headline | prose }}</p>",
    ],
)
def test_values_stay_escaped_whatever_a_page_does_with_them(tmp_path: Path, template: str) -> None:
    with templates_of(folder(tmp_path, page=template)):
        assert "<script" not in render(sample_reports.hostile(HOSTILE), "html")


def test_values_stay_escaped_in_markdown(tmp_path: Path) -> None:
    with templates_of(folder(tmp_path, summary="{{ subject }} {{ subject ~ '' }} {{ '%s' % subject }}")):
        assert "<script" not in render(sample_reports.hostile(HOSTILE), "summary")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\n{% if %}", "report.html.jinja, line 2: "),
        ("{{ x", "line 1"),
        ("{{ report.subject.name | safe }}", "line 1: No filter named 'safe'"),
        ("{{ report.subject.name | urlize }}", "No filter named 'urlize'"),
        ("a\n\n{% autoescape false %}{{ headline }}{% endautoescape %}", "line 3: the blocks autoescape and filter"),
        ("{% include 'report.html.jinja' %}", "report.html.jinja loads itself"),
        ("{% include headline %}", "write the name of a template to load as a text"),
        ("{% filter upper %}{{ headline }}{% endfilter %}", "line 1: the blocks"),
    ],
)
def test_a_mistake_is_found_before_anything_is_done(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises(BadTemplate) as caught, templates_of(folder(tmp_path, page=template)):
        pytest.fail("the templates were taken")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\n{{ nothing }}", "report.html.jinja, line 2: 'nothing' is undefined"),
        ("{{ report.nothing }}", "line 1"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ headline.__class__.__mro__ }}", "line 1"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "line 1"),
        ("{{ place.__globals__ }}", "line 1"),
        ("{% for i in range(10000000) %}{% endfor %}", "line 1"),
        ("{{ report.findings.append(1) }}", "line 1"),
    ],
)
def test_what_fails_while_rendering_is_one_sentence_with_the_line(tmp_path: Path, template: str, said: str) -> None:
    with templates_of(folder(tmp_path, page=template)), pytest.raises(BadTemplate) as caught:
        render(sample_reports.honest(), "html")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_markers_have_to_be_printed(tmp_path: Path) -> None:
    report = sample_reports.honest()
    for text in ("no marker", "{{ begin }}", "{{ end }}{{ begin }}", "{{ begin }}{{ begin }}{{ end }}"):
        with templates_of(folder(tmp_path, section=text)), pytest.raises(BadTemplate, match="hubaudit:begin"):
            render(report, "markdown")
    with templates_of(folder(tmp_path, section="x\n{{ begin }}\n{{ end }}\n")), pytest.raises(BadTemplate):
        render(report, "markdown")
    with templates_of(folder(tmp_path, section="{{ begin }}\nshort: {{ outcome }}\n{{ end }}\n")):
        assert render(report, "markdown") == f"{BEGIN}\nshort: Nothing found.\n{END}\n"
    with templates_of(folder(tmp_path, body="hello")), pytest.raises(BadTemplate, match="hubaudit:thread"):
        pr_body(report)
    with templates_of(folder(tmp_path, body="hello {{ marker }}")):
        assert pr_body(report) == f"hello {PR_MARKER}"


def test_a_folder_without_a_template_of_ours(tmp_path: Path) -> None:
    for name, said in (("sumary.md.jinja", "did you mean summary.md.jinja"), ("notes.txt", "the names are")):
        made = tmp_path / name[:3]
        made.mkdir()
        (made / name).write_text("x")
        with pytest.raises(BadTemplate, match=said), templates_of(made):
            pass


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (folder(tmp_path) / SUMMARY).write_bytes(b"\xff")
    with pytest.raises(BadTemplate, match="UTF-8"), templates_of(tmp_path):
        pass
    (tmp_path / SUMMARY).write_bytes(b"x" * (2 << 20))
    with pytest.raises(BadTemplate, match="larger"), templates_of(tmp_path):
        pass


def run(*arguments: object, **environment: str) -> Result:
    done = CliRunner().invoke(cli, [str(one) for one in arguments], env=environment)
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    return done


def test_the_commands_take_a_folder(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_bytes(dump(sample_reports.honest()))
    made = folder(tmp_path / "own", summary="Verdict: {{ headline }}\n")
    done = run("report", report, "--format", "summary", "--template-dir", made)
    assert done.exit_code == 0
    assert done.stdout.startswith("Verdict: PASS")
    folder(tmp_path / "own", summary="a\n{{ nothing }}")
    done = run("report", report, "--format", "summary", "--template-dir", made)
    assert done.exit_code == 2
    assert "summary.md.jinja, line 2: 'nothing' is undefined; correct the template." in done.stderr
    folder(tmp_path / "own", summary="{% if %}")
    # Before anything is read: this model does not exist.
    done = run("scan", tmp_path / "nowhere", "--base", tmp_path, "--template-dir", made)
    assert done.exit_code == 2
    assert "summary.md.jinja, line 1" in done.stderr


def test_publishing_uses_them(tmp_path: Path, hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": CARD})
    report = tmp_path / "report.json"
    report.write_bytes(dump(publishable()))
    made = folder(tmp_path / "own", section="{{ begin }}\nOURS {{ outcome }}\n{{ end }}\n", body="Hello.\n{{ marker }}")
    environment = {"HF_TOKEN": hub_server.token("audit-bot"), "HUBAUDIT_STATE": str(tmp_path / "state")}
    for _ in range(2):
        done = run("publish", report, "--yes", "--template-dir", made, **environment)
        assert done.exit_code == 0, done.output
    assert len(hub_server.discussions(REPO)) == 1
    assert b"OURS Nothing found." in hub_server.read(REPO, "README.md", "refs/pr/1")
    folder(tmp_path / "own", section="no markers")
    done = run("publish", report, "--yes", "--template-dir", made, **environment)
    assert done.exit_code == 2
    assert len(hub_server.discussions(REPO)) == 1
