"""The drawing of quantiles against their law."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import sample_reports

from reports.quantiles import NAMES, quantile_figure

PLOTS = sample_reports.given_data().plots


def test_every_indicator_is_drawn_and_named():
    svg = quantile_figure(PLOTS, name="q")
    root = ET.fromstring(svg)
    texts = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for plot in PLOTS:
        assert NAMES[plot.indicator] in texts
    assert "tail 630 ×" in texts
    assert root.get("aria-label") == "Quantiles of the change against their law"
    assert svg == quantile_figure(PLOTS, name="q")


@pytest.mark.parametrize(
    "changes",
    [
        {"law": ()},
        {"measured": (0.0, -1.0)},
        {"law": (1e300, 1e301), "measured": (1e300, 1e302)},
        {"law": (1e-300,), "measured": (1.0,)},
    ],
)
def test_numbers_that_cannot_be_drawn_leave_nothing(changes):
    assert quantile_figure((replace(PLOTS[0], **changes),), name="q") is None
    assert quantile_figure((), name="q") is None


def test_what_cannot_be_drawn_does_not_hide_the_rest():
    svg = quantile_figure((replace(PLOTS[0], law=()), PLOTS[1]), name="q")
    assert NAMES["delta2_over_H"] in svg
    assert NAMES["fitted"] not in svg
