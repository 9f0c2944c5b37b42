"""In how many stretches the held cells of a KV cache lie.

llama.cpp does not tell, but fills cells one after the other: here they are numbered as they are filled. Steps of two
streams leave the cells of both in turns; when one of them ends, the other's lie scattered, and when both have, there is
nothing scattered any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

Run = tuple[int, int, int]  # positions of a sequence, from one to before another, and the number of the first cell


class Stretches:
    """Hears of all that happens to cells. What llama.cpp puts into holes lies elsewhere than is thought here. Used by
    the context's thread."""

    def __init__(self) -> None:
        self._runs = defaultdict[int, list[Run]](list)  # of every sequence, by position
        self._filled = 0  # cells so far

    @property
    def count(self) -> int:
        return len(self._held())

    def fill(self, sequence: int, start: int, end: int) -> None:
        """New cells hold the sequence's positions from `start` to before `end`."""
        runs, first = self._runs[sequence], self._filled
        if runs and runs[-1][1] == start and runs[-1][2] + start - runs[-1][0] == first:
            start, _, first = runs.pop()
        self._filled = first + end - start
        runs.append((start, end, first))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """The target holds these cells of the source as well."""
        self._runs[target] = sorted(self._runs[target] + _within(self._runs[source], start, end))

    def drop(self, sequence: int, start: int, end: int) -> None:
        """The sequence holds these cells no more."""
        runs = self._runs[sequence]
        first = bisect_right(runs, start, key=lambda run: run[1])
        runs[first:] = _within(runs[first:], 0, start) + _within(runs[first:], end, runs[-1][1] if runs else end)

    def close_up(self) -> None:
        """All that is held has been moved together, in the order in which it lay."""
        held, moved, self._filled = self._held(), list[int](), 0
        for first, end in held:
            moved.append(first - self._filled)
            self._filled += end - first
        for runs in self._runs.values():
            within = (bisect_right(held, at, key=lambda stretch: stretch[0]) - 1 for _, _, at in runs)
            runs[:] = [(start, end, at - moved[which]) for (start, end, at), which in zip(runs, within, strict=True)]

    def _held(self) -> list[tuple[int, int]]:
        """The stretches: cells, from one to before another."""
        held = list[tuple[int, int]]()
        for first, end in sorted((at, at + end - start) for runs in self._runs.values() for start, end, at in runs):
            if held and first <= held[-1][1]:
                held[-1] = held[-1][0], max(held[-1][1], end)
            else:
                held.append((first, end))
        return held


def _within(runs: list[Run], start: int, end: int) -> list[Run]:
    """What there is of these runs between two positions."""
    cut = ((max(start, one), min(end, other), at + max(start, one) - one) for one, other, at in runs)
    return [run for run in cut if run[0] < run[1]]
