"""Draws the figures as a bar chart in SVG. Pure."""

from __future__ import annotations

from html import escape

from qwen_edge.bench.report import Results

_WIDTH, _LABEL, _BAR, _GAP = 760, 300, 16, 14
_COLOURS = ("#2f6f8f", "#c9772b", "#7a8f3c", "#8a5a8f", "#999999")


def draw(results: Results) -> str:
    """The chart, with one group of bars for each figure. The longest bar of each group has the full length."""
    parts, y = list[str](), 30
    for row in results.rows:
        most = max(row.median(server) for server in results.servers) or 1.0
        better = "more is better" if row.more_is_better else "less is better"
        parts.append(_text(0, y + 12, f"{row.workload}: {row.figure}", f"({better})"))
        for number, server in enumerate(results.servers):
            length = (_WIDTH - _LABEL - 80) * row.median(server) / most
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
            parts.append(_text(_LABEL + length + 6, y + 12, f"{row.median(server):.2f}"))
            y += _BAR
        y += _GAP
    legend = [
        f'<rect x="{180 * i}" y="4" width="10" height="10" fill="{_COLOURS[i % len(_COLOURS)]}"/>'
        + _text(180 * i + 15, 13, server)
        for i, server in enumerate(results.servers)
    ]
    style = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" {style}>'
    return "\n".join([head, *legend, *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, faint: str = "") -> str:
    more = f' <tspan fill="#888">{escape(faint)}</tspan>' if faint else ""
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}{more}</text>'
