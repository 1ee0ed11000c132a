import pytest

from scanner.config_json import MAX_DEPTH, BadConfig, parse_object


def test_an_object_is_parsed() -> None:
    text = ' {"a": [1, 2.5, null, true], "ü": {"b": "\\ud83d\\ude00"}, "big": 12345678901234567890}\n'
    assert parse_object(text) == {"a": [1, 2.5, None, True], "ü": {"b": "😀"}, "big": 12345678901234567890}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("\ufeff{}", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("3", "is not a JSON object"),
        ('{"a": 1, "a": 2}', "gives the key 'a' twice"),
        ('{"x": {"a\\u001b": 1, "a\\u001b": 2}}', r"gives the key 'a\\x1b' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ('{"a":' + "[" * 200_000, "nested deeper than 64"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper than 64"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadConfig, match=reason):
        parse_object(text)


def test_the_deepest_allowed_object_passes() -> None:
    assert parse_object('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)
