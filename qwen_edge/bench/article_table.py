"""The table of the article on Qwen3-0.6B at the edge: load time, first token, tokens per second, memory, 8K. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table

from qwen_edge.bench.report import Results
from qwen_edge.core.printable import printable
from qwen_edge.core.svg import Bar, Group, draw_bars

WORK = ("relativity", "8K context")
REPEAT = 10  # how often the article's question is asked (not the 8K workload, which is slow)


@dataclass(frozen=True)
class _Column:
    """A figure of a workload as the article gives it: `shown` in the article's unit."""

    title: str
    workload: str
    figure: str
    shown: Callable[[float], str]
    note: str


_COLUMNS = (
    _Column("load time, s", "start", "load time, s", lambda value: f"{value:.2f}", "less is better"),
    _Column("first token, ms", "relativity", "first token, s", lambda value: f"{1000 * value:.0f}", "less is better"),
    _Column("tokens/s", "relativity", "tokens/s", lambda value: f"{value:.2f}", "more is better"),
    _Column(
        "memory (PSS), MiB", "after all of it", "memory (PSS), MiB", lambda value: f"{value:.0f}", "less is better"
    ),
    _Column("8K supported", "8K context", "8K supported", lambda value: "yes" if value else "no", ""),
)


def article_table(results: Results) -> Table:
    """A table with one line of medians for each server; "-" for a missing value. Memory is measured after the 8K
    workload."""
    table = Table(box=None, pad_edge=False)
    table.add_column("server", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column.title, justify="right")
    for server in results.servers:
        table.add_row(printable(server), *(_shown(results, column, server) for column in _COLUMNS))
    return table


def article_plot(results: Results) -> str:
    """The same as SVG, with one group of bars for each column."""
    groups = [
        Group(column.title, [_bar(results, column, server) for server in results.servers], note=column.note)
        for column in _COLUMNS
        if any(results.median(column.workload, column.figure, server) is not None for server in results.servers)
        or results.failed
    ]
    return draw_bars("Side by side, as in the article on Qwen3-0.6B at the edge: medians", groups)


def _bar(results: Results, column: _Column, server: str) -> Bar:
    value = results.median(column.workload, column.figure, server)
    why = printable(results.failed.get(server, ""), 400)
    return Bar(server, value, text=_shown(results, column, server) if value is not None else why or "-")


def _shown(results: Results, column: _Column, server: str) -> str:
    value = results.median(column.workload, column.figure, server)
    return "-" if value is None else column.shown(value)
