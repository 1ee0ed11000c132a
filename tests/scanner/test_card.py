"""Model-card facts: ordinary cards, odd cards, and cards written to break the reader."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from stopwatch import at_most

from scanner.card import MAX_BASE_MODELS, parse_card
from scanner.plain_yaml import MAX_BYTES


def card(front: str, body: str = "\n# Title\n") -> str:
    return f"---\n{front}\n---\n{body}"


def test_reads_base_relation_and_metadata():
    facts = parse_card(card("base_model: org/base\nbase_model_relation: Finetune\nlicense: mit\ntags: [a, b]"))
    assert facts.base_models == ("org/base",)
    assert facts.relation == "finetune"
    assert facts.metadata == {
        "base_model": "org/base",
        "base_model_relation": "Finetune",
        "license": "mit",
        "tags": ["a", "b"],
    }
    assert facts.problem is None


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff---\nbase_model: org/base\n---\n",
        "---\r\nbase_model: org/base\r\n---\r\nbody\r\n",
        "---\rbase_model: org/base\r---\rbody",
        "\n\n---  \nbase_model: org/base\n--- \nbody",
        "---\nbase_model: org/base\n---",
    ],
    ids=["bom", "crlf", "cr", "blank lines and trailing spaces", "no final newline"],
)
def test_front_matter_boundaries(text):
    facts = parse_card(text)
    assert facts.base_models == ("org/base",)
    assert facts.problem is None
    assert facts.text == text


@pytest.mark.parametrize(
    "text", ["", "# No front matter\n", "text\n---\nbase_model: org/x\n---\n", "----\na: b\n---\n"]
)
def test_no_front_matter_is_not_a_problem(text):
    facts = parse_card(text)
    assert facts.metadata is None
    assert facts.base_models == ()
    assert facts.problem is None


def test_empty_front_matter_is_an_empty_mapping():
    assert parse_card("---\n---\n").metadata == {}
    assert parse_card("---\n# only a comment\n---\n").metadata == {}


def test_rule_in_the_body_ends_nothing():
    facts = parse_card(card("base_model: org/base", "text\n\n---\n\nbase_model: org/other\n---\n"))
    assert facts.base_models == ("org/base",)


def test_a_list_keeps_its_order_and_drops_repeats():
    facts = parse_card(card("base_model:\n- org/b\n- org/a\n- org/b"))
    assert facts.base_models == ("org/b", "org/a")


def test_a_long_list_is_cut_with_a_note():
    entries = "\n".join(f"- org/m{i}" for i in range(MAX_BASE_MODELS + 50))
    facts = parse_card(card(f"base_model:\n{entries}"))
    assert len(facts.base_models) == MAX_BASE_MODELS
    assert "150 base models" in facts.problem


@pytest.mark.parametrize(
    "value",
    ["7", "true", "{name: org/base}", "[[org/base]]", "[3.5]", "''", "[null]", "x" * 1000],
)
def test_junk_base_models_are_noted_and_left_out(value):
    facts = parse_card(card(f"base_model: {value}\nlicense: mit"))
    assert facts.base_models == ()
    assert "base_model" in facts.problem
    assert facts.metadata["license"] == "mit"


def test_good_entries_beside_junk_stay():
    facts = parse_card(card("base_model: [org/base, 7, {a: b}]"))
    assert facts.base_models == ("org/base",)
    assert facts.problem


def test_junk_relation_is_noted():
    facts = parse_card(card("base_model_relation: [a]"))
    assert facts.relation is None
    assert "base_model_relation" in facts.problem


@pytest.mark.parametrize(
    "front",
    [
        "base_model: [unclosed",
        "a: b: c",
        "\tkey: value",
        "- a\n- b",
        "just text",
        "a: !!python/object/apply:os.system ['echo']",
        "a: !!timestamp nonsense",
        "a: !!bool nonsense",
        "a: !!int nonsense",
        "a: !!binary é",
        "a: \x00",
        "a: \ud800",
        "? {a: b}\n: c",
        f"a: {'9' * 5000}",
        f"a: 0x{'f' * 5000}",
        "a: *missing",
        "a: 1\n... \nb: 2\n",
    ],
)
def test_broken_front_matter_is_a_problem_not_a_crash(front):
    facts = parse_card(card(front))
    assert facts.metadata is None
    assert facts.base_models == ()
    assert facts.problem.endswith(".")
    assert len(facts.problem) < 400
    assert "\n" not in facts.problem


def test_unclosed_front_matter_is_a_problem():
    facts = parse_card("---\nbase_model: org/base\n")
    assert facts.metadata is None
    assert "not closed" in facts.problem


def test_too_large_front_matter_is_a_problem():
    facts = parse_card(card("a: b\n" + "# padding\n" * (MAX_BYTES // 9)))
    assert facts.metadata is None
    assert "larger" in facts.problem


def test_ordinary_aliases_are_copied():
    facts = parse_card(card("a: &x [org/base]\nbase_model: *x"))
    assert facts.base_models == ("org/base",)
    assert facts.metadata["a"] is not facts.metadata["base_model"]


def test_alias_bombs_and_self_reference_end_quickly():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    with at_most(1):
        assert "too many values" in parse_card(card(bomb)).problem
        assert "inside itself" in parse_card(card("a: &a [*a]")).problem
        assert "inside itself" in parse_card(card("a: &a {b: *a}")).problem


def test_merge_key_bombs_end_quickly():
    bomb = "a: &a {k: v}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name}\n  <<: [{', '.join(['*' + before] * 9)}]\n"
    with at_most(1):
        assert parse_card(card(bomb)).metadata is None


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_ends_quickly(opening):
    with at_most(3):
        facts = parse_card(card("x:\n  " + opening * 100_000))
        assert facts.metadata is None


def test_values_are_plain():
    facts = parse_card(card("day: 2024-05-01\nnan: .nan\ninf: -.inf\n2: x\nyes: y\ns: !!set {a, b}\nb: !!binary aGk="))
    assert facts.metadata == {
        "day": "2024-05-01",
        "nan": "nan",
        "inf": "-inf",
        "2": "x",
        "True": "y",
        "s": ["a", "b"],
        "b": "hi",
    }


def test_a_key_given_twice_is_noted():
    facts = parse_card(card("base_model: org/a\nbase_model: org/b"))
    assert facts.base_models == ("org/b",)
    assert "more than once" in facts.problem


def test_a_large_result_table_is_read_in_reasonable_time():
    results = [{"task": {"type": "x"}, "metrics": [{"type": f"m{i}", "value": i / 7}]} for i in range(2000)]
    front = yaml.safe_dump({"base_model": "org/base", "model-index": [{"name": "n", "results": results}]})
    with at_most(5):
        facts = parse_card(card(front))
        assert facts.base_models == ("org/base",)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_never_raises_on_any_text(text):
    facts = parse_card(text)
    assert facts.text == text
    parse_card(card(text))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"-:[]{}&*a!?|>'\"#%,\n \t1", "<<", "!!", "base_model", "- "]), max_size=40))
def test_never_raises_on_yaml_like_text(parts):
    facts = parse_card(card("".join(parts)))
    assert (facts.metadata is None) <= (facts.problem is not None)
    assert all(isinstance(name, str) for name in facts.base_models)
