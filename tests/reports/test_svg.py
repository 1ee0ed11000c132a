import re
import warnings

import pytest

from reports.svg import ACCENT, FLAG, HEAT, INK, inch_axes, new_figure, to_svg


def draw(name="a", **texts):
    figure = new_figure(3, 2)
    axes = inch_axes(figure)
    axes.plot([0, 1], [0, 1], color=ACCENT, marker="o", clip_on=True, gid="line")
    axes.text(0.5, 0.5, "xxxx", color=INK, gid="label")
    axes.fill_between([0, 1], [1, 1], color=HEAT[3])
    axes.axhline(0.3, color=FLAG)
    return to_svg(figure, name=name, title="A <title>", **texts)


def test_colours_become_variables_and_none_is_left_over():
    svg = draw()
    assert "var(--accent)" in svg
    assert "var(--ink)" in svg
    assert "var(--flag)" in svg
    assert "var(--heat-3)" in svg
    assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)


def test_texts_are_put_in_escaped_and_are_never_mathematics():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = draw(labels={"label": "<b>$x^2$ 漢字 🦀"}, tips={"line": 'a"b<c'})
    assert ">&lt;b&gt;$x^2$ 漢字 🦀</text>" in svg
    assert '<title>a"b&lt;c</title>' in svg
    assert 'aria-label="A &lt;title&gt;"' in svg
    assert svg.startswith('<svg viewBox="0 0 216 144" role="img" class="plot"')


def test_nothing_reaches_the_page_around_it():
    svg = draw()
    for leak in ("<style", "metadata", "DOCTYPE", "xmlns", "font-family", "stroke-linejoin: round;}", "<?xml"):
        assert leak not in svg


def test_identifiers_are_prefixed_referred_to_and_unique_between_figures():
    first, second = draw("a"), draw("b")
    ids = set(re.findall(r' id="([^"]+)"', first))
    assert ids
    assert all(found.startswith("a-") for found in ids)
    targets = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first))
    assert {a or b for a, b in targets} == ids
    assert not ids & set(re.findall(r' id="([^"]+)"', second))


def test_the_same_drawing_gives_the_same_bytes():
    assert draw() == draw()


def test_a_colour_outside_the_palette_is_a_mistake_of_ours():
    figure = new_figure(1, 1)
    inch_axes(figure).plot([0, 1], [0, 1], color="#123456")
    with pytest.raises(KeyError):
        to_svg(figure, name="x", title="x")
