"""Courses over time as an SVG: panels above each other, lines in each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT, _HEIGHT, _GAP, _TOP = 760, 46, 16, 150, 34, 30
_COLOURS = ("#2f6f8f", "#c9772b", "#7a8f3c", "#8a5a8f")
_MOST = 700  # points of a line: no picture has more


@dataclass(frozen=True)
class Line:
    """Values at times."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """What its lines are, from the lowest value to the highest; `levels` are drawn across, with their names."""

    title: str
    low: float
    high: float
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()


def draw(title: str, panels: Sequence[Panel], *, unit: str = "s") -> str:
    """The panels share the time axis, which begins at the first point and has so many ticks as are round."""
    first = min(line.points[0][0] for panel in panels for line in panel.lines)
    last = max(line.points[-1][0] for panel in panels for line in panel.lines)
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    parts = [f'<text x="0" y="14" font-weight="bold">{escape(title)}</text>']
    for number, panel in enumerate(panels):
        parts += _panel(panel, _TOP + number * (_HEIGHT + _GAP), first, last, unit)
    style = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _panel(panel: Panel, top: float, first: float, last: float, unit: str) -> list[str]:
    width = _WIDTH - _LEFT - _RIGHT

    def x(at: float) -> float:
        return _LEFT + width * (at - first) / (last - first)

    def y(value: float) -> float:
        inside = min(panel.high, max(panel.low, value))
        return top + 14 + (_HEIGHT - 14) * (1 - (inside - panel.low) / (panel.high - panel.low))

    parts = [f'<text x="{_LEFT}" y="{top + 9:.0f}">{escape(panel.title)}</text>']
    for value in _round_numbers(panel.low, panel.high, 5):
        parts.append(_across(y(value), width, "#ddd"))
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#666">{value:g}</text>')
    for at in _round_numbers(first, last, 8):
        place = f'x="{x(at):.1f}" y="{top + _HEIGHT + 14:.0f}"'
        parts.append(f'<text {place} text-anchor="middle" fill="#666">{at:g} {unit}</text>')
    for name, value in panel.levels:
        parts.append(_across(y(value), width, "#b33", dashed=True))
        place = f'x="{_WIDTH - _RIGHT}" y="{y(value) - 3:.1f}"'
        parts.append(f'<text {place} text-anchor="end" fill="#b33">{escape(name)}</text>')
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        kept = line.points[:: max(1, len(line.points) // _MOST)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in kept)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        place = f'x="{_LEFT + 170 + 150 * number}" y="{top + 9:.0f}"'
        parts.append(f'<text {place} fill="{colour}">{escape(line.name)}</text>')
    return parts


def _across(y: float, width: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{_LEFT}" x2="{_LEFT + width:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"{dash}/>'


def _round_numbers(low: float, high: float, count: int) -> list[float]:
    """At most so many of 1, 2, 5, 10, ... from low to high."""
    step = 10.0**-6
    while (high - low) / step > count:
        step *= 2.5 if f"{step:e}".startswith("2") else 2.0
    first = -(-low // step)
    return [round(number * step, 9) for number in range(int(first), int(high // step) + 1)]
