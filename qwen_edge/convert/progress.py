"""The progress of a conversion: a bar with rate and time left on a terminal, plain lines in a log.

Stages call `advance(n)` and do not know which of the two is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from qwen_edge.core.printable import clean

LINE_EVERY = 10.0  # seconds between plain lines of one stage


def megabytes(n: float) -> str:
    return f"{n / 1e6:.1f} MB"


def characters(n: float) -> str:
    return f"{n:,.0f} characters"


class Progress:
    """`console` decides the form. Plain lines are printed at the start of a stage, every 10 s, and at its end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    @property
    def on_terminal(self) -> bool:
        return self._console.is_terminal

    def say(self, line: str) -> None:
        self._console.print(clean(line), highlight=False, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def stage(
        self, title: str, total: int, show: Callable[[float], str] = megabytes
    ) -> Iterator[Callable[[int], None]]:
        """A stage of `total` bytes, or what else `show` puts into words; yields the function to call with the number of
        further ones done."""
        started = self._clock()
        if self._console.is_terminal:
            with self._bar(show) as bar:
                task = bar.add_task(title, total=total)
                yield lambda n: bar.advance(task, n)
        else:
            self.say(f"{title} ({show(total)})")
            yield self._lines(title, total, started, show)
        seconds = max(self._clock() - started, 1e-9)
        self.say(f"{title}: done in {seconds:.1f} s, {show(total / seconds)}/s")

    def _bar(self, show: Callable[[float], str]) -> RichProgress:
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        columns += [DownloadColumn(), TransferSpeedColumn()] if show is megabytes else [MofNCompleteColumn()]
        return RichProgress(*columns, TimeRemainingColumn(), console=self._console, transient=True)

    def _lines(self, title: str, total: int, started: float, show: Callable[[float], str]) -> Callable[[int], None]:
        done, said = 0, started

        def advance(n: int) -> None:
            nonlocal done, said
            done += n
            now = self._clock()
            if now - said < LINE_EVERY or not done:
                return
            said = now
            self.say(self.line(title, done, total, done / (now - started), show))

        return advance

    @staticmethod
    def line(title: str, done: int, total: int, rate: float, show: Callable[[float], str] = megabytes) -> str:
        """One plain line: `done` of `total` bytes, or of what `show` puts into words, at `rate` a second."""
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        return f"{title}: {100 * done // total} % of {show(total)}, {show(rate)}/s{left}"
