"""The progress of a conversion: a bar with rate and time left on a terminal, plain lines in a log.

Stages call `advance(n)` and do not know which of the two is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress

from qwen_edge.core.printable import clean

LINE_EVERY = 10.0  # seconds between plain lines of one stage


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
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A stage of `total` bytes; yields the function to call with the number of further bytes done."""
        started = self._clock()
        if self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=total)
                yield lambda n: bar.advance(task, n)
        else:
            self.say(f"{title} ({_megabytes(total)})")
            yield self._lines(title, total, started)
        seconds = max(self._clock() - started, 1e-9)
        self.say(f"{title}: done in {seconds:.1f} s, {_megabytes(total / seconds)}/s")

    def _bar(self) -> RichProgress:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        return RichProgress(
            *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=self._console, transient=True
        )

    def _lines(self, title: str, total: int, started: float) -> Callable[[int], None]:
        done, said = 0, started

        def advance(n: int) -> None:
            nonlocal done, said
            done += n
            now = self._clock()
            if now - said < LINE_EVERY or not done:
                return
            said = now
            self.say(self.line(title, done, total, done / (now - started)))

        return advance

    @staticmethod
    def line(title: str, done: int, total: int, rate: float) -> str:
        """One plain line: `done` of `total` bytes, at `rate` bytes a second."""
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        return f"{title}: {100 * done // total} % of {_megabytes(total)}, {_megabytes(rate)}/s{left}"


def _megabytes(n: float) -> str:
    return f"{n / 1e6:.1f} MB"
