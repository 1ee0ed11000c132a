"""The bounded YAML loader; cards and recipes test it through their own readers too."""

import pytest

from scanner.plain_yaml import BadYaml, load_mapping


def test_values_and_repeated_keys():
    values, repeated = load_mapping("a: 1\nb: [x, 2024-01-01, .inf]\na: 2\n")
    assert values == {"a": 2, "b": ["x", "2024-01-01", "inf"]}
    assert repeated == ("a",)
    assert load_mapping("a: !!timestamp 2024-01-01\nb: !!omap [{x: 1}]")[0] == {"a": "2024-01-01", "b": [["x", 1]]}


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_nothing_is_an_empty_mapping(text):
    assert load_mapping(text) == ({}, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a", "is not a mapping"),
        ("a: &a [*a]", "inside itself"),
        ("a: 0x" + "f" * 40, "more than 64 bits"),
        ("a: [", "is not valid YAML"),
        ("a: b\nc: d: e\n", "(line 2)"),
        ("a: b\n" * 300_000, "larger than"),
        ("a: [" + "1," * 250_000 + "]", "too many values"),
    ],
)
def test_reasons(text, reason):
    with pytest.raises(BadYaml) as caught:
        load_mapping(text)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_the_parser_quotes_is_printable():
    with pytest.raises(BadYaml) as caught:
        load_mapping("a: !<\u202eevil\u200b> x")
    assert str(caught.value).isprintable()
