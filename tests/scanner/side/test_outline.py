"""What the syntax tree of a template says: texts, conditions, reaches, and how dependences travel."""

import pytest

from scanner.side.outline import MAX_GUARDS, MAX_TAGS, BadTemplate, outline
from scanner.side.records import Reach


def conditions(text: str) -> set[tuple[str, tuple[str, ...]]]:
    return {(guard.kind, guard.needles) for guard in outline(text).conditions}


@pytest.mark.parametrize(
    "text",
    [
        "{% if 'word' in m.content %}{% endif %}",
        "{% if m['content'] == 'word' %}{% endif %}",
        "{% set c = m.content | lower %}{% if 'word' in c %}{% endif %}",
        "{% set ns = namespace() %}{% set ns.c = m.content %}{% if ns.c.startswith('word') %}{% endif %}",
        "{% for part in m.content.split() %}{% if part == 'word' %}{% endif %}{% endfor %}",
        "{% macro f(x) %}{% if x == 'word' %}{% endif %}{% endmacro %}{{ f(m.content) }}",
        "{% set w = 'word' %}{% if w in m.content %}{% endif %}",
        "{{ 'a' if m.content is eq('word') else 'b' }}",
        "{{ 'a' * (m.content == 'word') }}",
        "{{ m.content == 'word' and 'a' }}",
        "{{ {'word': 'a'}[m.content] }}",
        "{{ {'word': 'a'}.get(m.content) }}",
        "{{ m.content | replace('word', 'a') }}",
        "{{ m.content.replace('word', 'a') }}",
        "{% if messages | map(attribute='content') | select('equalto', 'word') | list %}{% endif %}",
        "{% for m in messages if m.content == 'word' %}{% endfor %}",
        "{% if not (m.content != 'word') %}{% endif %}",
        "{% filter replace('word', 'a') %}{{ m.content }}{% endfilter %}{% if 'word' in m.content %}{% endif %}",
    ],
)
def test_a_question_about_content_is_a_condition_however_it_is_put(text):
    assert ("content", ("word",)) in conditions(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ m.content }}",
        "{% if m.content %}a{% endif %}",
        "{% if m.content is string %}a{% endif %}",
        "{% if m.role == 'user' %}a{% endif %}",
        "{% if messages | length > 1 %}a{% endif %}",
        "{% if loop.index0 % 2 == 0 %}a{% endif %}",
        "{% if 'parts' in m.content %}{{ m.content.parts }}{% endif %}",
        "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}{% if users %}a{% endif %}",
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
        "{{ m.content.split('</think>')[-1] }}",
    ],
)
def test_formatting_is_no_condition_on_content(text):
    assert conditions(text) == set()


def test_a_decision_is_followed_to_where_it_acts():
    text = "{% if 'word' in m.content %}{% set seen = true %}{% endif %}{% if seen %}then{% endif %}"
    (emission,) = outline(text).emissions
    assert [(guard.kind, guard.needles) for guard in emission.guards if guard.kind == "content"] == [
        ("content", ("word",))
    ]


def test_pieces_are_one_text():
    assert [e.text for e in outline("a{{ 'b' + 'c' ~ 'd' }}e").emissions] == ["abcde"]
    assert [e.text for e in outline("{{ ['a', 'b'] | join }}").emissions] == ["ab"]


def test_roles_and_their_denial_are_told_apart():
    text = "{% if m.role == 'user' %}a{% elif m.role != 'system' %}b{% else %}c{% endif %}"
    roles = [[(g.needles, g.negated) for g in e.guards if g.kind == "role"] for e in outline(text).emissions]
    user, system = ("user",), ("system",)
    assert roles == [[(user, False)], [(user, True), (system, True)], [(user, True), (system, False)]]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{{ a.__class__ }}", "underscore"),
        ("{{ a['__class__'] }}", "underscore"),
        ("{{ a['__cl' + 'ass__'] }}", "underscore"),
        ("{{ a | attr('x') }}", "underscore"),
        ("{{ a | map(attribute='__class__') }}", "underscore"),
        ("{{ '{0.__class__}'.format(a) }}", "underscore"),
        ("{{ lipsum }}", "global"),
        ("{% include 'x' %}", "import"),
        ("{% from 'x' import y %}", "import"),
        ("{{ a | random }}", "random"),
        ("{{ helper() }}", "call"),
    ],
)
def test_reaches(text, kind):
    assert kind in {reach.kind for reach in outline(text).reaches}


def test_what_templates_use_is_no_reach():
    text = "{% macro f() %}{% endmacro %}{{ f() }}{{ raise_exception('x') }}{{ strftime_now('%Y') }}{% set n = namespace(a=1) %}"
    assert outline(text).reaches == {}
    assert Reach(kind="call", text="f") not in outline(text).reaches


@pytest.mark.parametrize(
    "text",
    [
        "{% if %}",
        "{{ a }}" * (MAX_TAGS + 1),
        "{{ " + "+".join(["a"] * 9_000) + " }}",
        "".join(f"{{% if m.content == 'w{i}' %}}" for i in range(MAX_GUARDS + 1))
        + "a"
        + "{% endif %}" * (MAX_GUARDS + 1),
        "{{ " + "(" * 3_000 + "a" + ")" * 3_000 + " }}",
        "x" * 70_000,
    ],
)
def test_what_is_out_of_bounds_is_refused(text):
    with pytest.raises(BadTemplate):
        outline(text)
