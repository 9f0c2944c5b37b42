"""Draws the result: for each criterion, a bar for each model, with the interval of its mean."""

from __future__ import annotations

from qwen_edge.core.svg import Bar, Group, draw_bars
from qwen_edge.rate.result import FIGURES, Result
from qwen_edge.rate.statistics import LEVEL, Estimate


def draw(found: Result) -> str:
    """The drawing as SVG."""
    groups = [
        Group(figure, [_bar(model, figures[figure]) for model, figures in found.models.items()], full=5.0)
        for figure in FIGURES
    ]
    title = f"Answers rated blind, 1 to 5: {found.total} questions, {_raters(found)}"
    means = [f"{model} {one.mean:.2f}" for model, figures in found.models.items() if (one := figures["mean"])]
    about = f"Mean scores with {LEVEL:.0%} intervals. Over all criteria: {', '.join(means) or 'no ratings'}."
    return draw_bars(title, groups, about)


def _raters(found: Result) -> str:
    judges = sum(judge in found.counted for judge in found.judges)
    people = len(found.counted) - judges
    words = f"{people} {'rater' if people == 1 else 'raters'}"
    return f"{words} and {judges} {'judge model' if judges == 1 else 'judge models'}" if judges else words


def _bar(model: str, found: Estimate | None) -> Bar:
    return Bar(model, found.mean, found.low, found.high) if found else Bar(model, None)
