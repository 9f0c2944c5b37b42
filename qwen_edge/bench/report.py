"""Compares the figures of several servers over many runs. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from qwen_edge.bench.workloads import MORE_IS_BETTER

Key = tuple[str, str]  # workload and figure


@dataclass(frozen=True)
class Row:
    """One figure: the values of each server's runs. The n-th values of all servers belong to the same round."""

    workload: str
    figure: str
    runs: Mapping[str, Sequence[float]]

    def median(self, server: str) -> float:
        return statistics.median(self.runs[server])

    def ratio(self, server: str, other: str) -> float:
        """The median, over the rounds, of server / other. Above 1 is better if more is better, and else worse."""
        pairs = zip(self.runs[server], self.runs[other], strict=True)
        return statistics.median(_ratio(mine, theirs) for mine, theirs in pairs)

    @property
    def more_is_better(self) -> bool:
        return self.figure in MORE_IS_BETTER


class Results:
    """Collects the figures of the runs. `failed`: why a server could not be measured, or not to the end."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = list(servers)
        self.failed: dict[str, str] = {}
        self._runs: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, workload: str, server: str, figures: Mapping[str, float]) -> None:
        for figure, value in figures.items():
            self._runs[workload, figure][server].append(value)

    @property
    def rows(self) -> list[Row]:
        """The figures that every server has that was measured; others cannot be compared."""
        measured = set(self.measured)
        return [
            Row(workload, figure, {server: runs[server] for server in self.measured})
            for (workload, figure), runs in self._runs.items()
            if measured and measured <= runs.keys()
        ]

    @property
    def measured(self) -> list[str]:
        """The servers that were measured to the end."""
        return [server for server in self.servers if server not in self.failed]

    def median(self, workload: str, figure: str, server: str) -> float | None:
        """None if the figure was not measured, or could not be."""
        runs = self._runs.get((workload, figure), {}).get(server)
        return statistics.median(runs) if runs else None

    def table(self) -> Table:
        """The medians, followed by all runs, and the first server's ratio to each of the others."""
        table = Table(box=None, pad_edge=False)
        first, *others = self.measured or [""]
        for title in ("work", "figure", first, *others, *(f"first / {other}" for other in others)):
            table.add_column(title, overflow="fold")
        for row in self.rows:
            medians = [f"{row.median(one):.2f}  ({_listed(row.runs[one])})" for one in (first, *others)]
            ratios = [f"{row.ratio(first, other):.2f}" for other in others]
            table.add_row(row.workload, row.figure, *medians, *ratios)
        return table

    def as_json(self) -> dict[str, Any]:
        return {
            "servers": self.servers,
            "failed": self.failed,
            "figures": [
                {"workload": row.workload, "figure": row.figure, "more_is_better": row.more_is_better, "runs": row.runs}
                for row in self.rows
            ],
        }


def _ratio(mine: float, theirs: float) -> float:
    if mine == theirs:  # also if both are 0
        return 1.0
    return mine / theirs if theirs else float("inf")


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
