"""The progress of what takes seconds: how much is done, how fast, and how long the rest will take.

On a terminal it is one line that changes: rich's bar for a command (`on_console`), a simple line for the daemon, which
does not import rich (`on_stream`). Elsewhere, as in systemd's journal, it is plain lines, every 10 seconds. Those who
work call a `Stage` with what they have done, and do not know which of these is shown.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from qwen_edge.core.printable import clean

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0  # seconds between plain lines of one stage
_DRAW_EVERY = 0.1  # seconds between two changes of the line on a terminal
_BAR = 24  # characters
ERASE = "\r\x1b[K"  # for a terminal: the line that changes makes room for another


@dataclass(frozen=True)
class Unit:
    """In what a stage is counted: `amount` and `rate` (of a second) say a number in words, or nothing."""

    amount: Callable[[float], str]
    rate: Callable[[float], str]


MEGABYTES = Unit(lambda n: f"{n / 1e6:.1f} MB", lambda n: f"{n / 1e6:.1f} MB/s")
CHARACTERS = Unit(lambda n: f"{n:,.0f} characters", lambda n: f"{n:,.0f} characters/s")
SHARE = Unit(lambda _: "", lambda _: "")  # a share of the whole is all that can be said


def counted(things: str) -> Unit:
    """Things of which each takes seconds, such as measurements."""
    return Unit(lambda n: f"{n:.0f} {things}", lambda n: f"{n:.1f}/s" if n >= 1 else f"{1 / n:.1f} s each" if n else "")


class Stage:
    """A piece of work of `total` units, of which some may be `done` at its beginning. For one thread; a display may
    read it in another one."""

    def __init__(
        self,
        title: str = "",
        total: float = 0.0,
        unit: Unit = SHARE,
        *,
        done: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.doing = ""  # a part of it that takes seconds itself
        self.finished = True  # False if it was given up
        self.changed: Callable[[Stage], None] = lambda _: None  # called after each change
        self._clock = clock
        self._first, self._began = done, clock()
        self._at = self._began  # the time of the last `reach`

    def __call__(self, further: float) -> None:
        """So many further units are done."""
        self.reach(self.done + further)

    def reach(self, done: float) -> None:
        """So many units are done in all."""
        self.done, self._at = done, self._clock()
        self.changed(self)

    def expect(self, further: float) -> None:
        """There are so many more units than was said."""
        self.total += further

    def begin(self, doing: str) -> None:
        """This part is done now."""
        self.doing = doing
        self.changed(self)

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    @property
    def share(self) -> float:
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take, if it is as fast as what is done; None if nothing is."""
        gained = self.done - self._first
        if gained <= 0 or self._at <= self._began:
            return None
        each = (self._at - self._began) / gained
        return max(each * (self.total - self.done) - (self._clock() - self._at), 0.0)

    def __str__(self) -> str:
        """How much, how fast and how long, in words; nothing if nobody knows how much there is to do."""
        if not self.total:
            return ""
        percent, amount = f"{100 * self.share:.0f} %", self.unit.amount(self.total)
        passed = self._at - self._began
        rate = self.unit.rate((self.done - self._first) / passed) if passed > 0 and self.done > self._first else ""
        left = "" if self.left is None else f"{duration(self.left)} left"
        return ", ".join(filter(None, [f"{percent} of {amount}" if amount else percent, rate, left]))

    def __format__(self, _: str) -> str:  # so rich shows what is true when it draws
        return str(self)


Display = Callable[[Stage], AbstractContextManager[Callable[[Stage], None]]]
"""Shows a stage until it is left; gives the function to call when the stage has changed."""


class Progress:
    """Shows stages, one at a time. `say` prints a plain line; `display` is for a terminal, None elsewhere."""

    def __init__(
        self, say: Callable[[str], None], display: Display | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._display, self._clock = say, display, clock

    @property
    def on_terminal(self) -> bool:
        return self._display is not None

    def say(self, line: str) -> None:
        self._say(clean(line))

    @contextmanager
    def stage(self, title: str, total: float, unit: Unit = MEGABYTES, *, done: float = 0.0) -> Iterator[Stage]:
        """Show a stage of `total` units. Outside a terminal, a line is printed at its start, every 10 s or for each
        part that it begins, and at its end."""
        stage = Stage(title, total, unit, done=done, clock=self._clock)
        with (self._display or self._lines)(stage) as stage.changed:
            yield stage
        if stage.finished:
            whole, seconds = stage.total - done, max(stage.seconds, 1e-9)
            self.say(", ".join(filter(None, [f"{title}: done in {seconds:.1f} s", unit.rate(whole / seconds)])))

    @contextmanager
    def _lines(self, stage: Stage) -> Iterator[Callable[[Stage], None]]:
        said, part = self._clock(), ""

        def changed(stage: Stage) -> None:
            nonlocal said, part
            if stage.doing != part:
                left = "" if stage.left is None else f" ({duration(stage.left)} left)"
                self.say(f"{stage.doing}{left}")
            elif part or self._clock() - said < LINE_EVERY or stage.done <= 0:
                return
            else:
                self.say(f"{stage.title}: {stage}")
            said, part = self._clock(), stage.doing

        amount = stage.unit.amount(stage.total) if stage.total else ""
        self.say(f"{stage.title} ({amount})" if amount else stage.title)
        yield changed


def on_console(console: Console, clock: Callable[[], float] = time.monotonic) -> Progress:
    """The progress of a command, on the console of its other output."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def bar(stage: Stage) -> Iterator[Callable[[Stage], None]]:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        title = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), title, BarColumn(), TextColumn("{task.fields[stage]}", markup=False))
        with RichProgress(*columns, console=console, transient=True) as shown:
            task = shown.add_task(clean(stage.title), total=1.0, stage=stage)
            yield lambda one: shown.update(task, completed=one.share, description=clean(one.doing or one.title))

    return Progress(say, bar if console.is_terminal else None, clock)


def on_stream(stream: IO[str], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """The progress of the daemon. A `stream` that is a terminal shows the line that changes; `say` prints others."""

    def show(text: str) -> None:
        with suppress(OSError):  # the terminal may be gone: the work goes on
            stream.write(ERASE + text)
            stream.flush()

    @contextmanager
    def line(stage: Stage) -> Iterator[Callable[[Stage], None]]:
        drawn = -math.inf

        def changed(stage: Stage) -> None:
            nonlocal drawn
            if clock() - drawn >= _DRAW_EVERY:
                drawn = clock()
                full = round(_BAR * stage.share)
                text = f"{clean(stage.doing or stage.title)} {'#' * full}{'.' * (_BAR - full)} {stage}".rstrip()
                show(text[: shutil.get_terminal_size().columns - 1])  # a second row is not erased

        try:
            changed(stage)
            yield changed
        finally:
            show("")

    return Progress(say, line if is_terminal(stream) else None, clock)


def is_terminal(stream: IO[str]) -> bool:
    """Whether a line on this stream can be erased."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def duration(seconds: float) -> str:
    """A length of time, in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
