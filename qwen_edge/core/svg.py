"""Draws charts as SVG text: groups of horizontal bars, and lines over time or another x. Pure.

Every drawing is well-formed XML whatever its texts are, and has a title and a description for screen readers.
Attributes have the colours for light ground, a style for `prefers-color-scheme: dark` has the others. Values that are
not finite numbers are gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from html import escape
from typing import Final
from unicodedata import east_asian_width

from qwen_edge.core.axis import Axis, usable
from qwen_edge.core.printable import printable

WIDTH: Final = 760  # of every drawing, in pixels
_SIDE, _SIZE, _ROW = 14, 12, 18  # pixels: the margin at both sides, the size of text, the height of a line of text
_NAMES, _VALUES = 190, 120  # pixels: room for the names at the left of bars, and for the values at the right
_LEFT, _PLOT, _GAP = 62, 150, 34  # pixels: room for the numbers of the y axis, the height of a panel, between panels
_FEW = 40  # a line of at most this many points has a dot at each

_LIGHT = ("#2f6f8f", "#b8621b", "#5d7a24", "#8a5a8f", "#b0413e", "#4a5aa8", "#0f7c6c", "#6b6b6b")
_DARK = ("#6fb6d9", "#e8a25a", "#a9c25d", "#c99dcd", "#ec8a87", "#9aa8ec", "#5fc9b6", "#b4b4b4")
_ROLES = {  # what is not a series: its colour on light ground, and on dark ground
    "ground": ("#ffffff", "#15171b"),
    "ink": ("#1b1b1b", "#e8e8e8"),
    "faint": ("#636363", "#a3a3a3"),
    "grid": ("#dddddd", "#3a3d44"),
    "target": ("#b3261e", "#ff8a80"),
}
_COLOURS = {**_ROLES, **{f"s{number}": pair for number, pair in enumerate(zip(_LIGHT, _DARK, strict=True))}}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Bar:
    """A bar. `name` stands at its left; bars of one name have one colour. `low` and `high`: an interval, drawn as a
    whisker. `text` at its right instead of the value. A bar without a value is its texts only."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str | None = None


@dataclass(frozen=True)
class Group:
    """Bars of one scale under a heading. `full`: the value of a bar of full length; by default the largest one."""

    title: str
    bars: Sequence[Bar]
    note: str = ""  # after the title, in a faint colour
    full: float | None = None


@dataclass(frozen=True)
class Line:
    """A series: points in order of x; None for y is a gap. `marked`: drawn thicker than others."""

    name: str
    points: Sequence[tuple[float, float | None]]
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot. `title` names the figure and its unit. `target`: a dashed horizontal line. `zero`: the y axis has
    a 0."""

    title: str
    lines: Sequence[Line]
    target: float | None = None
    target_name: str = "target"
    zero: bool = False


def draw_bars(title: str, groups: Sequence[Group], about: str = "") -> str:
    """A drawing of horizontal bars, group below group. `about` describes it to those who cannot see it."""
    names = list(dict.fromkeys(bar.name for group in groups for bar in group.bars))
    parts, y = [_text(_SIDE, 22, title, WIDTH - 2 * _SIDE, bold=True)], 34.0
    for group in groups:
        y += _ROW
        width = min(_width(group.title), WIDTH - 2 * _SIDE - 110)
        parts.append(_text(_SIDE, y, group.title, width))
        parts.append(_text(_SIDE + width + 8, y, group.note, WIDTH - 2 * _SIDE - width - 8, role="faint"))
        scale = _bar_scale(group)
        for bar in group.bars:
            y += _ROW
            parts += _bar(bar, y, scale, names.index(bar.name))
        y += 10
    return _drawing(title, about, y + 10, parts)


def draw_lines(
    title: str, panels: Sequence[Panel], *, about: str = "", x_title: str = "", zone: tzinfo | None = None
) -> str:
    """A drawing of panels with one x axis, panel below panel. With `zone`, x is a Unix time in seconds, shown as
    the time of day there; without, x is a number, and `x_title` says of what."""
    across = [x for panel in panels for line in panel.lines for x, _ in line.points if usable(x)]
    axis = Axis.over(across, _SIDE + _LEFT, WIDTH - _SIDE - 14, 8, zone, loose=False)
    parts, y = [_text(_SIDE, 22, title, WIDTH - 2 * _SIDE, bold=True)], 30.0
    for panel in panels:
        drawn, y = _panel(panel, axis, y)
        parts += drawn
    if x_title:
        parts.append(_text(WIDTH / 2, y + 6, x_title, WIDTH - 2 * _SIDE, anchor="middle", role="faint"))
        y += _ROW
    return _drawing(title, about, y + 8, parts)


def _bar_scale(group: Group) -> float:
    values = [value for bar in group.bars for value in (bar.value, bar.low, bar.high) if usable(value)]
    full = group.full if usable(group.full) else max(values, default=0.0)
    return (WIDTH - 2 * _SIDE - _NAMES - _VALUES) / full if full and full > 1e-100 else 0.0


def _bar(bar: Bar, y: float, scale: float, number: int) -> Iterator[str]:
    """`y`: the base of its texts."""
    left, full = _SIDE + _NAMES, WIDTH - 2 * _SIDE - _NAMES - _VALUES

    def x(value: float) -> float:
        return left + min(max(value * scale, 0.0), full)

    yield _text(left - 8, y, bar.name, _NAMES - 8, anchor="end", role="faint")
    end = left - 6.0
    if usable(bar.value):
        end = x(bar.value)
        size = f'x="{left}" y="{y - 12:.1f}" width="{end - left:.1f}" height="15"'
        yield f"<rect {size} {_paint(_series(number))}/>"
    if usable(bar.low) and usable(bar.high):
        low, high = x(min(bar.low, bar.high)), x(max(bar.low, bar.high))
        end = max(end, high)
        shape = f"M{low:.1f} {y - 8:.1f}v7M{low:.1f} {y - 4.5:.1f}H{high:.1f}M{high:.1f} {y - 8:.1f}v7"
        yield f'<path d="{shape}" fill="none" stroke-width="1.5" {_paint("ink", "stroke")}/>'
    value = "-" if not usable(bar.value) else f"{bar.value:,.2f}" if abs(bar.value) < 1e9 else f"{bar.value:.3g}"
    yield _text(end + 6, y, value if bar.text is None else bar.text, WIDTH - _SIDE - end - 6)


def _panel(panel: Panel, across: Axis, top: float) -> tuple[list[str], float]:
    """A panel below `top`, and where it ends."""
    parts = [_text(_SIDE, top + _ROW, panel.title, WIDTH - 2 * _SIDE)]
    legend, top = _legend(panel.lines, top + 2 * _ROW)
    parts += legend
    bottom = top + _PLOT
    values = [y for line in panel.lines for _, y in line.points if usable(y)]
    extremes = [value for value in (panel.target, 0.0 if panel.zero else None) if usable(value)]
    up = Axis.over([*values, *extremes], bottom, top, 4)
    for where, label in up.ticks():
        parts.append(_rule(across.start, where, across.end, where, "grid"))
        parts.append(_text(across.start - 6, where + 4, label, _LEFT - 6, anchor="end", role="faint"))
    for where, label in across.ticks():
        parts.append(_rule(where, bottom, where, bottom + 4, "faint"))
        parts.append(_text(where, bottom + 17, label, 86, anchor="middle", role="faint"))
    if usable(panel.target):
        where = up.at(panel.target)
        parts.append(_rule(across.start, where, across.end, where, "target", dash="5 4"))
        parts.append(_text(across.end, where - 4, panel.target_name, 200, anchor="end", role="target"))
    if not values:
        parts.append(_text(WIDTH / 2, (top + bottom) / 2, "no data", 200, anchor="middle", role="faint"))
    for number, line in enumerate(panel.lines):
        parts += _line(line, number, across, up)
    return parts, bottom + _GAP


def _legend(lines: Sequence[Line], y: float) -> tuple[list[str], float]:
    """The names of the lines with their colours, in as many rows as they need; and the top of the plot below them. A
    single line without a name has none."""
    parts, x = list[str](), float(_SIDE)
    if not any(line.name for line in lines):
        return [], y - _ROW + 14
    for number, line in enumerate(lines):
        width = min(_width(line.name) * (1.08 if line.marked else 1), WIDTH - 2 * _SIDE - 22)
        if x + 22 + width > WIDTH - _SIDE and x > _SIDE:
            x, y = float(_SIDE), y + _ROW
        parts.append(_stroke(f"M{x:.1f} {y - 4:.1f}h16", number, marked=line.marked))
        parts.append(_text(x + 22, y, line.name, width, bold=line.marked))
        x += width + 40
    return parts, y + 10


def _line(line: Line, number: int, across: Axis, up: Axis) -> Iterator[str]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line.points:
        if usable(x) and usable(y):
            runs[-1].append((across.at(x), up.at(y)))
        elif runs[-1]:
            runs.append([])
    few = sum(map(len, runs)) <= _FEW
    for run in filter(None, runs):
        if len(run) > 1:
            yield _stroke("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _thinned(run)), number, marked=line.marked)
        if few or len(run) == 1:
            size = 3.5 if line.marked else 2.5
            paint = _paint(_series(number))
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {paint}/>' for x, y in run)


def _thinned(run: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """The first, the lowest, the highest and the last point of every pixel column."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for point in run:
        columns.setdefault(int(point[0]), []).append(point)
    for points in columns.values():
        extremes = (min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1]))
        yield from dict.fromkeys((points[0], *sorted(extremes), points[-1]))


def _series(number: int) -> str:
    return f"s{number % len(_LIGHT)}"


def _paint(role: str, attribute: str = "fill") -> str:
    """The attribute for light ground, and the class by which the style finds the element on dark ground."""
    return f'{attribute}="{_COLOURS[role][0]}" class="{attribute[0]}-{role}"'


def _stroke(path: str, number: int, *, marked: bool) -> str:
    dash = f' stroke-dasharray="{2 + 3 * (number // len(_LIGHT))} 3"' if number >= len(_LIGHT) else ""
    width = 3.2 if marked else 1.6
    paint = _paint(_series(number), "stroke")
    return f'<path d="{path}" fill="none" stroke-width="{width}" stroke-linejoin="round"{dash} {paint}/>'


def _rule(x1: float, y1: float, x2: float, y2: float, role: str, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f"<line {ends}{dashes} {_paint(role, 'stroke')}/>"


def _text(
    x: float, y: float, text: str, room: float, *, anchor: str = "start", role: str = "ink", bold: bool = False
) -> str:
    """`text` in at most `room` pixels; if it is cut, the whole is shown when the pointer rests on it."""
    whole = _safe(text)
    shown = _cut(whole, room / (1.08 if bold else 1))
    more = f"<title>{escape(whole)}</title>" if shown != whole else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"' if anchor != "start" else f'x="{x:.1f}" y="{y:.1f}"'
    weight = ' font-weight="bold"' if bold else ""
    return f"<text {where}{weight} {_paint(role)}>{more}{escape(shown)}</text>" if whole else ""


def _safe(text: str) -> str:
    """One line without control characters, and without the characters that XML does not allow."""
    return _NOT_XML.sub("\ufffd", printable(text, 300))


def _width(text: str) -> float:
    """About how many pixels a text takes: the font is the reader's."""
    return sum(_SIZE * (1.0 if east_asian_width(one) in "WF" else 0.58) for one in _safe(text))


def _cut(text: str, room: float) -> str:
    if _width(text) <= room + 0.1:
        return text
    while text and _width(text) + _SIZE > room:
        text = text[:-1]
    return text + "…"


def _drawing(title: str, about: str, height: float, parts: Iterable[str]) -> str:
    dark = "".join(f".f-{name}{{fill:{d}}}.s-{name}{{stroke:{d}}}" for name, (_, d) in _COLOURS.items())
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    font = f'font-family="system-ui,sans-serif" font-size="{_SIZE}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">',
        f"<title>{escape(_safe(title))}</title>",
        f"<desc>{escape(_safe(about or title))}</desc>",
        f"<style>@media(prefers-color-scheme:dark){{{dark}}}</style>",
        f'<rect width="100%" height="100%" {_paint("ground")}/>',
    ]
    return "\n".join([*head, *filter(None, parts), "</svg>\n"])
