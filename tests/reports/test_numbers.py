import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.numbers import byte_size, count, intervals, number, rate, seconds, share


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (17.123456, "17.12"),
        (3.0, "3"),
        (30522, "30,522"),
        (1.2e-7, "1.2e-07"),
        (0.99995, "0.99995"),
        (0.9999999, "0.9999999"),
        (1 - 1e-12, "1"),
        (None, "not available"),
        (1e308, "1e+308"),
    ],
)
def test_number(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (22_713_216, "22.7 M"),
        (999_950, "1 M"),
        (7_000_000_000, "7 B"),
        (123_456, "123 k"),
        (10**16, "10,000 T"),
    ],
)
def test_count(value, expected):
    assert count(value) == expected


def test_byte_size():
    assert byte_size(90_868_376) == "90.9 MB"
    assert byte_size(12) == "12 B"


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (1.0, "100 %"),
        (0.999999, "99.99 %"),
        (0.29, "29.00 %"),
        (0.00001, "< 0.01 %"),
        (0.0, "0 %"),
        (1.5, "150 %"),
        (-0.5, "-50.00 %"),
        (-1e308, "-inf %"),
        (-1e20, "-1e+22 %"),
    ],
)
def test_share(fraction, expected):
    assert share(fraction) == expected


@given(st.floats(0.0, 1.0))
def test_a_share_never_flatters(fraction):
    assert (share(fraction) == "100 %") == (fraction == 1.0)
    assert (share(fraction) == "0 %") == (fraction == 0.0)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, "0 %"),
        (1 / 49, "2.0 %"),
        (0.0061, "0.61 %"),
        (0.1402, "14 %"),
        (1.0, "100 %"),
        (0.0995, "10 %"),
        (1e9, "1e+11 %"),
    ],
)
def test_rate(fraction, expected):
    assert rate(fraction) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.84, "0.8 s"), (74.4, "74 s"), (200, "3 min 20 s"), (9000, "2 h 30 min"), (1e300, "1e+300 s")],
)
def test_seconds(value, expected):
    assert seconds(value) == expected


def test_intervals_are_written_with_both_ends():
    assert intervals("row", ()) == ""
    assert intervals("row", ((3, 4),)) == "row 3"
    assert intervals("row", ((3, 4), (7, 10))) == "rows 3, 7–9"
    assert intervals("column", ((0, 1536),)) == "columns 0–1,535"
    assert intervals("row", tuple((n, n + 1) for n in range(10))).endswith("5, 6, 7 and 2 more")
