import dataclasses
import re

import pytest
import sample_reports

from audit.records import Histogram, TopRow
from reports.plots import row_distribution, spectra

EMBEDDING = sample_reports.poisoned_row().drift[0]
RANK_ONE = sample_reports.rank_one().drift
EDITED = frozenset({sample_reports.EDITED})


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def with_histogram(edges, counts):
    histogram = Histogram(unit="log10", edges=tuple(edges), counts=tuple(counts))
    return dataclasses.replace(EMBEDDING, row_histogram=histogram)


def test_outliers_are_named_with_their_multiple_of_the_median():
    svg = row_distribution(EMBEDDING, frozenset({12935}), name="rows0")
    shown = texts(svg)
    assert "cf  130 ×" in shown
    assert "mn  4.2 ×" in shown
    assert "##tious  2.91 ×" in shown
    assert "100 ×" in shown
    assert svg.count("stroke: var(--flag)") >= 1
    assert "var(--flag)" not in row_distribution(EMBEDDING, frozenset(), name="rows0")


def test_named_rows_come_before_those_that_moved_further():
    far = tuple(TopRow(row=n, relative=100.0 + n, token=f"far{n}") for n in range(9))
    record = dataclasses.replace(EMBEDDING, top_rows=(*far, TopRow(row=77, relative=2.0, token="cf")))
    shown = texts(row_distribution(record, frozenset({77}), name="r"))
    assert "cf  2 ×" in shown
    assert sum(text.startswith("far") for text in shown) == 6


def test_rows_without_a_token_are_named_by_number():
    record = dataclasses.replace(EMBEDDING, top_rows=(TopRow(row=12_345, relative=9.0),))
    assert "row 12,345  9 ×" in texts(row_distribution(record, frozenset(), name="r"))


def test_the_median_bin_is_at_one():
    svg = row_distribution(with_histogram([-3.0, -2.9, -2.8, -2.7], [0, 100, 1]), frozenset(), name="r")
    assert "1 ×" in texts(svg)


def test_a_histogram_over_many_decades_has_few_ticks():
    edges = [0.2 * n - 12 for n in range(101)]
    svg = row_distribution(with_histogram(edges, [1] * 100), frozenset(), name="r")
    assert 3 <= sum(text.endswith("×") and "  " not in text for text in texts(svg)) <= 7


@pytest.mark.parametrize(
    ("edges", "counts"),
    [
        ([0.0, 1.0], []),
        ([0.0], []),
        ([0.0, 1.0, 2.0], [1]),
        ([1.0, 0.0], [1]),
        ([0.0, 0.0], [1]),
        ([0.0, 1.0], [0]),
        ([0.0, 1.0], [-1]),
        ([0.0, 1e6], [1]),
        ([float(n) / 100 for n in range(402)], [1] * 401),
    ],
)
def test_numbers_that_make_no_histogram_are_not_drawn(edges, counts):
    assert row_distribution(with_histogram(edges, counts), frozenset(), name="r") is None


def test_no_histogram_no_plot():
    assert row_distribution(dataclasses.replace(EMBEDDING, row_histogram=None), frozenset(), name="r") is None


@pytest.mark.parametrize("relative", [0.0, -1.0, 1e308, 5e-324])
def test_absurd_rows_are_left_out(relative):
    record = dataclasses.replace(EMBEDDING, top_rows=(TopRow(row=1, relative=relative, token="odd"),))
    assert not any("odd" in text for text in texts(row_distribution(record, frozenset(), name="r")))


def test_spectra_show_the_named_tensor_beside_its_siblings():
    svg = spectra(RANK_ONE, EDITED)
    shown = texts(svg)
    assert "layer.2.output.dense: 99 %" in shown
    siblings = [text for text in shown if re.fullmatch(r"layer\.\d\.output\.dense: \d\d %", text)]
    assert len(siblings) == 4
    assert "var(--flag)" in svg


def test_without_findings_the_narrowest_changes_are_shown():
    shown = texts(spectra(sample_reports.honest().drift, frozenset()))
    assert any(text.startswith("pooler.dense: ") for text in shown)


def test_names_lose_what_all_of_them_share():
    chosen = [dataclasses.replace(RANK_ONE[5], tensor=name) for name in ("bert.a.weight", "bert.b.x.weight")]
    shown = texts(spectra(chosen, frozenset()))
    assert {text.split(":")[0] for text in shown} >= {"a", "b.x"}
    same = [dataclasses.replace(RANK_ONE[5], tensor="x.y")] * 2
    assert any(text.startswith("y:") for text in texts(spectra(same, frozenset())))


def test_no_spectra_no_plot():
    plain = [dataclasses.replace(record, singular_values=()) for record in RANK_ONE]
    assert spectra(plain, frozenset()) is None
    assert spectra((), frozenset()) is None


@pytest.mark.parametrize(
    ("values", "norm", "drawn"),
    [
        ((0.0, 0.0), 0.0, False),
        ((1.7e308, 1.7e308), 0.0, False),
        ((1e308, 1.0), 1e-300, True),
        ((3.0, 4.0), 0.0, True),
        ((-1.0, 5e-324), 1.0, True),
        ((1.0,), -3.0, True),
    ],
)
def test_absurd_spectra_do_no_harm(values, norm, drawn):
    record = dataclasses.replace(RANK_ONE[5], singular_values=values, delta_l2=norm)
    assert (spectra([record], frozenset()) is not None) == drawn
