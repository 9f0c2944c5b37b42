"""The table of the article on Qwen3-0.6B at the edge: load time, first token, tokens per second, memory, 8K. Pure."""

from __future__ import annotations

from rich.table import Table

from qwen_edge.bench.report import Results

WORK = ("relativity", "8K context")
REPEAT = 10  # how often the article's question is asked (not the 8K workload, which is slow)


def article_table(results: Results) -> Table:
    """A table with one line of medians for each server; "-" for a missing value. Memory is measured after the 8K
    workload."""
    table = Table(box=None, pad_edge=False)
    table.add_column("server", no_wrap=True)
    for title in ("load time, s", "first token, ms", "tokens/s", "memory (PSS), MiB", "8K supported"):
        table.add_column(title, justify="right")
    for server in results.servers:
        first = results.median("relativity", "first token, s", server)
        supported = results.median("8K context", "8K supported", server)
        table.add_row(
            server,
            _number(results.median("start", "load time, s", server), 2),
            _number(None if first is None else 1000 * first, 0),
            _number(results.median("relativity", "tokens/s", server), 2),
            _number(results.median("after all of it", "memory (PSS), MiB", server), 0),
            "-" if supported is None else "yes" if supported else "no",
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
