"""Charts are well-formed XML, stay in their frame, and show every text as text."""

import re
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.axis import Axis
from qwen_edge.core.svg import WIDTH, Bar, Group, Line, Panel, draw_bars, draw_lines

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\"'&\x00\x1b[31m\ud800\ufffe\u202e]]>"

texts = st.text(st.characters(), max_size=40) | st.just(HOSTILE)
numbers = st.none() | st.floats() | st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float)
bars = st.builds(Bar, texts, numbers, numbers, numbers, st.none() | texts)
groups = st.lists(st.builds(Group, texts, st.lists(bars, max_size=5), texts, numbers), max_size=4)
xs = st.floats() | st.floats(0, 2e9)
lines = st.builds(Line, texts, st.lists(st.tuples(xs, numbers), max_size=30), st.booleans())
panels = st.lists(st.builds(Panel, texts, st.lists(lines, max_size=10), numbers, texts, st.booleans()), max_size=3)
zones = st.none() | st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def points(element: ET.Element) -> list[tuple[float, float]]:
    """The points of a shape; of a path, which has absolute M, L, H and relative h, v."""
    at = {name: float(value) for name, value in element.attrib.items() if re.fullmatch(r"-?\d+(\.\d+)?", value)}
    if element.tag == f"{SVG}rect" and "x" in at:
        assert at["width"] >= 0
        return [(at["x"], at["y"]), (at["x"] + at["width"], at["y"] + at["height"])]
    if element.tag == f"{SVG}line":
        return [(at["x1"], at["y1"]), (at["x2"], at["y2"])]
    if element.tag == f"{SVG}circle":
        return [(at["cx"], at["cy"])]
    if element.tag == f"{SVG}text":
        return [(at["x"], at["y"])]
    found, x, y = [], 0.0, 0.0
    for command, first, second in re.findall(r"([MLHhv])(-?[\d.]+)(?: (-?[\d.]+))?", element.get("d", "")):
        x = float(first) if command in "MLH" else x + float(first) if command == "h" else x
        y = float(second) if command in "ML" else y + float(first) if command == "v" else y
        found.append((x, y))
    return found


def check(drawing: str) -> ET.Element:
    root = ET.fromstring(drawing.encode())
    height = float(root.get("height", ""))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "style", "rect", "text", "line", "path", "circle"),
    }
    for element in root.iter():
        for x, y in points(element):
            assert 0 <= x <= WIDTH, ET.tostring(element)
            assert 0 <= y <= height, ET.tostring(element)
    assert not re.search(r"\bnan\b|\binf\b", " ".join(str(element.attrib) for element in root.iter()))
    return root


@given(texts, groups, texts)
def test_every_drawing_of_bars_is_xml_within_its_frame(title, groups, about):
    check(draw_bars(title, groups, about))


@given(texts, panels, texts, zones)
def test_every_drawing_of_lines_is_xml_within_its_frame(title, panels, x_title, zone):
    check(draw_lines(title, panels, x_title=x_title, zone=zone))


def test_a_hostile_label_is_text():
    line = Line(HOSTILE, [(0, 1), (1, 2)])
    for drawing in (
        draw_bars(HOSTILE, [Group(HOSTILE, [Bar(HOSTILE, 1.0, text=HOSTILE)], HOSTILE)], HOSTILE),
        draw_lines(HOSTILE, [Panel(HOSTILE, [line], 1.5, HOSTILE)], x_title=HOSTILE, about=HOSTILE),
    ):
        root = check(drawing)
        assert "<script" not in drawing
        assert "\x1b" not in drawing
        assert "</text><script>alert(1)</script>" in (root.findtext(f"{SVG}title") or "")


def test_a_drawing_has_a_title_and_a_description_for_those_who_cannot_see_it():
    root = check(draw_bars("Speed", [], "Tokens a second of two servers."))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Speed"
    assert root.findtext(f"{SVG}desc") == "Tokens a second of two servers."


def test_every_colour_has_another_one_on_dark_ground():
    drawing = draw_lines("", [Panel("", [Line(str(n), [(0, n), (1, n)]) for n in range(12)], 3.0)])
    style = check(drawing).findtext(f"{SVG}style") or ""
    assert style.startswith("@media(prefers-color-scheme:dark){")
    for element in check(drawing).iter():
        for attribute in ("fill", "stroke"):
            if element.get(attribute, "none") != "none":
                assert f".{element.get('class')}{{{attribute}:" in style


def test_a_bar_is_as_long_as_its_value_and_has_its_interval():
    root = check(draw_bars("", [Group("", [Bar("a", 4.0), Bar("b", 2.0, 1.0, 3.0), Bar("c", None, text="failed")])]))
    first, second = (float(rect.get("width", "")) for rect in root.findall(f"{SVG}rect")[1:])
    assert second == pytest.approx(first / 2, abs=0.1)
    (whisker,) = root.findall(f"{SVG}path")
    ends = [x - 204 for x, _ in points(whisker)]
    assert min(ends) == pytest.approx(first / 4, abs=0.1)
    assert max(ends) == pytest.approx(first * 3 / 4, abs=0.1)
    assert "failed" in [text.text for text in root.findall(f"{SVG}text")]


def test_bars_of_one_name_have_one_colour_in_every_group():
    root = check(draw_bars("", [Group("", [Bar("a", 1.0), Bar("b", 1.0)]), Group("", [Bar("b", 1.0)])]))
    colours = [rect.get("fill") for rect in root.findall(f"{SVG}rect")[1:]]
    assert colours[0] != colours[1] == colours[2]


def test_a_gap_interrupts_a_line():
    root = check(
        draw_lines("", [Panel("", [Line("", [(0, 1), (1, 2), (2, None), (3, 2), (4, float("nan")), (5, 1)])])])
    )
    assert [path.get("d", "").count("L") for path in root.findall(f"{SVG}path")] == [1]
    assert len(root.findall(f"{SVG}circle")) == 4  # also those that no line shows


def test_a_long_line_keeps_its_extremes():
    values = [5.0] * 50_000
    values[30_000], values[40_000] = 9.0, 1.0
    drawing = draw_lines("", [Panel("", [Line("", list(enumerate(values)))])])
    assert len(drawing) < 60_000
    ys = [y for path in check(drawing).findall(f"{SVG}path") for _, y in points(path)]
    plain = max(set(ys), key=ys.count)
    assert min(ys) < plain < max(ys)


def test_ticks_are_round_numbers():
    axis = Axis.over([3.2, 97.0], 0, 100, 5)
    assert [label for _, label in axis.ticks()] == ["0", "20", "40", "60", "80", "100"]
    assert [label for _, label in Axis.over([0.0, 0.07], 0, 100, 4).ticks()] == ["0", "0.02", "0.04", "0.06", "0.08"]
    assert [label for _, label in Axis.over([0.0, 9000.0], 0, 100, 4).ticks()] == ["0", "5,000", "10,000"]


def test_ticks_are_round_times_of_day_in_the_given_zone():
    zone = timezone(timedelta(hours=5, minutes=30))
    start = datetime(2026, 11, 30, 22, 10, tzinfo=zone).timestamp()
    axis = Axis.over([start, start + 3 * 3600], 0, 180, 4, zone, loose=False)
    ticks = list(axis.ticks())
    assert [label for _, label in ticks] == ["23:00", "2026-12-01", "01:00"]
    assert [round(where) for where, _ in ticks] == [50, 110, 170]
    short = Axis.over([start, start + 40], 0, 40, 4, zone, loose=False)
    assert [label for _, label in short.ticks()] == ["22:10:00", "22:10:10", "22:10:20", "22:10:30", "22:10:40"]
    week = Axis.over([start, start + 7 * 86400], 0, 700, 8, zone, loose=False)
    assert [label for _, label in week.ticks()] == [f"2026-12-0{day}" for day in range(1, 8)]


@given(st.lists(st.floats(-1e99, 1e99), max_size=5), zones)
def test_an_axis_has_few_ticks_which_lie_on_it(values, zone):
    ticks = list(Axis.over(values, 10, 200, 5, zone).ticks())
    assert 1 <= len(ticks) <= 9
    assert all(10 <= where <= 200 for where, _ in ticks)
