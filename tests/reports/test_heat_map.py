import dataclasses
import re

import pytest
import sample_reports

from reports.heat_map import BANDS, COLUMNS_SHOWN, heat_map
from scanner.records import Role

DRIFT = sample_reports.honest().drift


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def tips(svg):
    return re.findall(r"<g>\s*<title>([^<]*)</title>", svg)


def record(**changes):
    return dataclasses.replace(DRIFT[10], **{"role": "query", **changes})


def test_no_drift_no_map():
    assert heat_map((), frozenset()) is None


def test_a_cell_is_the_tensor_of_its_kind_that_moved_furthest():
    svg = heat_map(DRIFT, frozenset())
    shown = texts(svg)
    assert [text for text in shown if text.startswith("layer")] == [f"layer {n}" for n in range(6)]
    headings = ["query", "key", "value", "attn out", "MLP in", "MLP out", "norm", "bias"]
    assert [text for text in shown if text in headings][: len(headings)] == headings
    norms = [r for r in DRIFT if r.layer == 3 and r.role == "norm"]
    furthest = max(norms, key=lambda r: r.relative_l2)
    tip = next(tip for tip in tips(svg) if tip.startswith("layer 3, norm"))
    assert furthest.tensor in tip
    assert len(tips(svg)) == 6 * 8 + 5
    assert "elsewhere" in shown
    assert "named by a finding" not in shown


def test_what_a_finding_names_is_outlined_even_when_another_moved_further():
    quiet = next(r for r in DRIFT if r.tensor == "encoder.layer.3.attention.output.LayerNorm.weight")
    svg = heat_map(DRIFT, frozenset({quiet.tensor}))
    assert svg.count("stroke: var(--flag)") == 2  # the cell and its legend
    assert any(quiet.tensor in tip for tip in tips(svg))
    assert "named by a finding" in texts(svg)


def test_colours_compare_with_the_same_kind_in_other_layers():
    drift = [
        record(layer=n, tensor=f"t{n}", relative_l2=0.01 * factor) for n, factor in enumerate((1, 1, 1, 4, 40, 0.1))
    ]
    biases = [record(layer=n, tensor=f"b{n}", role="bias", relative_l2=0.5) for n in range(6)]
    svg = heat_map([*drift, *biases], frozenset())
    steps = dict(re.findall(r"<title>layer (\d), query.*?var\(--heat-(\d)\)", svg, re.DOTALL))
    assert steps == {"0": "2", "1": "2", "2": "2", "3": "5", "4": "8", "5": "0"}
    assert set(re.findall(r"<title>layer \d, bias.*?var\(--heat-(\d)\)", svg, re.DOTALL)) == {"2"}


def test_few_siblings_and_tensors_outside_the_layers_have_no_colour():
    svg = heat_map([record(layer=n, tensor=f"t{n}") for n in (0, 1, None)], frozenset())
    cells = re.findall(r"<title>(?:layer \d, query|query).*?var\(--([\w-]+)\)", svg, re.DOTALL)
    assert cells == ["quiet"] * 3


def test_what_did_not_move_is_said_and_has_its_own_colour():
    svg = heat_map([record(relative_l2=0.0, layer=0)], frozenset())
    assert "unchanged" in tips(svg)[0]
    assert "var(--quiet)" in svg
    assert "0" in texts(svg)


def test_deep_models_are_drawn_in_bands_and_wide_ones_share_the_last_column():
    drift = [record(layer=layer, tensor=f"t{layer}") for layer in range(126)]
    svg = heat_map(drift, frozenset())
    assert len(tips(svg)) <= BANDS
    assert "0–3" in texts(svg)
    roles = [record(layer=0, role=f"role{n}", tensor=f"r{n}", relative_l2=n + 1.0) for n in range(20)]
    svg = heat_map(roles, frozenset())
    assert len(tips(svg)) == COLUMNS_SHOWN
    assert "others" in texts(svg)
    assert any("r19" in tip for tip in tips(svg))


def test_every_role_has_a_heading():
    for role in Role.__args__:
        svg = heat_map([record(role=role, layer=0)], frozenset())
        assert not any("_" in text for text in texts(svg))


@pytest.mark.parametrize("value", [1e308, 5e-324, -1.0, 1e-30])
def test_absurd_values_are_drawn_all_the_same(value):
    assert heat_map([record(relative_l2=value, layer=10**18), record(layer=-5)], frozenset()) is not None


def test_layers_alone_need_no_strip_below():
    svg = heat_map([record(layer=0)], frozenset())
    assert "elsewhere" not in texts(svg)
