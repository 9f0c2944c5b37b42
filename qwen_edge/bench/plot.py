"""Draws the figures of the benchmark as bars. Pure."""

from __future__ import annotations

from qwen_edge.bench.report import Results
from qwen_edge.core.svg import Bar, Group, draw_bars


def draw(results: Results) -> str:
    """The chart as SVG, with one group of bars for each figure. The longest bar of each group has the full length."""
    groups = [
        Group(
            f"{row.workload}: {row.figure}",
            [Bar(server, row.median(server)) for server in results.measured],
            note="more is better" if row.more_is_better else "less is better",
        )
        for row in results.rows
    ]
    return draw_bars("Servers side by side: medians", groups)
