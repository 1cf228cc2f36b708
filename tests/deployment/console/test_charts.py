"""Charts say what the numbers say: lengths are right, everything is escaped, and colour is not all there is."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from deployment.console.charts.svg import HEIGHT, Series, bar, columns, compact, line, spark, swatch
from rewards.views.standing import FIRST_WIDTH_US

TOKEN = 1_000_000
MINUTE_US = FIRST_WIDTH_US
START_US = 1_790_000_040_000_000
EVIL = "\"><script>alert(1)</script>&'"
SVG = "{http://www.w3.org/2000/svg}"

amounts = st.integers(-(10**15), 10**18)


def parsed(markup: Markup) -> ET.Element:
    """The SVG as a tree, which is well-formed."""
    return ET.fromstring(str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def drawn(values: list[list[int]]) -> ET.Element:
    """A chart over time of some series."""
    starts = [START_US + place * MINUTE_US for place in range(len(values[0]))]
    series = [Series(f"client {number}", f"c{number}", each) for number, each in enumerate(values)]
    return parsed(columns("chart", "Title", "What there is", starts, MINUTE_US, series))


def boxes(chart: ET.Element) -> list[list[tuple[float, float]]]:
    """Top and bottom of each rectangle, column by column."""
    return [
        [
            (float(box.get("y", "")), float(box.get("y", "")) + float(box.get("height", "")))
            for box in column.iter(f"{SVG}rect")
        ]
        for column in chart.iter(f"{SVG}g")
    ]


def test_columns_are_stacked_to_scale() -> None:
    """Twice the credit is twice as high, and each series stands on the one before."""
    ((low, high), (twice,)) = boxes(drawn([[TOKEN, 2 * TOKEN], [TOKEN, 0]]))

    assert low[0] == pytest.approx(high[1], abs=0.02)
    assert (low[1], twice[1]) == (HEIGHT, HEIGHT)
    assert twice[1] - twice[0] == pytest.approx(2 * (low[1] - low[0]), abs=0.05)


def test_what_was_taken_back_hangs_below_the_line() -> None:
    """A column whose reversals outweigh what was booked goes down from zero, where the others stand."""
    ((up,), (down,)) = boxes(drawn([[3 * TOKEN, -2 * TOKEN]]))

    assert up[1] == pytest.approx(down[0], abs=0.02)
    assert down[1] <= HEIGHT + 0.1


@given(
    st.integers(1, 5).flatmap(
        lambda count: st.lists(st.lists(amounts, min_size=count, max_size=count), min_size=1, max_size=14)
    )
)
def test_any_numbers_can_be_drawn(values: list[list[int]]) -> None:
    """Whatever was booked, every box is within the chart, and each has its place from left to right."""
    chart = drawn(values)

    for column in boxes(chart):
        assert all(-0.5 <= top <= bottom <= HEIGHT + 0.5 for top, bottom in column)
    places = [float((box.get("x") or "").rstrip("%")) for column in chart.iter(f"{SVG}g") for box in [column[1]]]
    assert sorted(places) == places
    assert all(0 <= place < 100 for place in places)


@given(st.lists(amounts, min_size=1, max_size=60))
def test_any_line_can_be_drawn(values: list[int]) -> None:
    """A line and a sparkline have a point for each value, and the line one more, at nothing, before them."""
    starts = [START_US + place * MINUTE_US for place in range(len(values))]
    chart = parsed(line("own", "Title", "desc", starts, MINUTE_US, Series("a", "c1", values)))
    path = next(each for each in chart.iter(f"{SVG}path") if each.get("class") == "line c1")
    heights = [float(point.split()[1]) for point in (path.get("d") or "")[1:].split(" L")]

    assert len(values) + 1 == len(heights)
    assert all(-0.5 <= height <= HEIGHT + 0.5 for height in heights)
    assert len(values) == (next(parsed(spark(values, "c1")).iter(f"{SVG}path")).get("d") or "").count("L") + 1


def test_texts_are_escaped_everywhere() -> None:
    """A client may call itself what it likes: it stays text."""
    series = [Series(EVIL, "c0", [1, 2])]
    for markup in (
        columns(EVIL, EVIL, EVIL, [0, MINUTE_US], MINUTE_US, series),
        line(EVIL, EVIL, EVIL, [0, MINUTE_US], MINUTE_US, series[0]),
        bar(0.5, EVIL),
        swatch(EVIL, 1, EVIL),
        spark([1], EVIL),
    ):
        assert "<script" not in markup
        assert isinstance(markup, Markup)
        parsed(markup)


def test_a_chart_is_told_in_words_and_by_texture() -> None:
    """It has a title and a description, each column a text, and neighbours another texture as well as colour."""
    chart = drawn([[TOKEN] * 2 for _ in range(9)])
    named = {each.get("id"): each.text for each in chart if each.tag in (f"{SVG}title", f"{SVG}desc")}
    column = next(chart.iter(f"{SVG}g"))
    textures = {each.get("id"): ET.tostring(each[1]) for each in chart.iter(f"{SVG}pattern")}
    fills = [re.sub(r"url\(#(.*)\)", r"\1", box.get("fill", "")) for box in column.iter(f"{SVG}rect")]
    looks = [textures.get(fill) for fill in fills]

    assert named == {"chart-title": "Title", "chart-desc": "What there is"}
    assert "chart-title chart-desc" == chart.get("aria-labelledby")
    assert (column[0].text or "").startswith("2026-09-21 14:14 – 14:15\nclient 0 1\nclient 1 1")
    assert all(one != other for one, other in pairwise(looks))
    assert all(fill == "" or fill in textures for fill in fills), "every texture that is used is there"


def test_no_chart_has_a_style_of_its_own() -> None:
    """The page's policy forbids style attributes and scripts."""
    markup = drawn([[TOKEN, -TOKEN], [TOKEN, 0]])

    for each in markup.iter():
        assert not {name for name in each.attrib if name == "style" or name.startswith("on")}


def test_a_bar_is_as_long_as_its_part() -> None:
    """Percent of its cell, and never more."""
    for part, width in ((0.0, "0.00%"), (0.125, "12.50%"), (1.0, "100.00%"), (7.0, "100.00%"), (-1.0, "0.00%")):
        assert f'<rect width="{width}"' in bar(part, "c3")


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0"),
        (1, "0"),
        (50_000, "0.05"),
        (TOKEN, "1"),
        (1_500_000, "1.5"),
        (-2 * TOKEN, "−2"),
        (950 * TOKEN, "950"),
        (1_000 * TOKEN, "1k"),
        (1_240 * TOKEN, "1.24k"),
        (19_948_934_595, "19.9k"),
        (20_000 * TOKEN, "20k"),
        (3 * 10**6 * TOKEN, "3M"),
        (250 * 10**9 * TOKEN, "250G"),
    ],
)
def test_an_axis_has_short_numbers(micro: int, text: str) -> None:
    """Three digits that count, and what they count."""
    assert text == compact(micro)


@pytest.mark.parametrize(
    ("minutes", "labels"),
    [
        (12, ["21 Sep 14:14", "14:17", "14:20", "14:23", "14:26"]),
        (60 * 24 * 12, ["21 Sep", "24 Sep", "27 Sep", "30 Sep", "3 Oct"]),
        (60 * 24 * 600, ["Sep 2026", "Feb 2027", "Jul 2027", "Dec 2027", "May 2028"]),
    ],
)
def test_moments_are_named_as_the_chart_is_long(minutes: int, labels: list[str]) -> None:
    """To the minute, the day or the month."""
    width_us = minutes * MINUTE_US // 12
    starts = [START_US + place * width_us for place in range(12)]
    chart = parsed(line("own", "", "", starts, width_us, Series("a", "c1", [TOKEN] * 12)))

    assert labels == [each.text for each in chart.iter(f"{SVG}text") if (each.get("x") or "").endswith("%")]
