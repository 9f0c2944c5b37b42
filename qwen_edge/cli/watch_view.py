"""What `qwen-edge status --watch` shows: the state of a daemon and its device, on a terminal of any size."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from qwen_edge.cli.sparkline import Trail, bar, sparkline
from qwen_edge.cli.terminal import LEVEL_STYLES, plain
from qwen_edge.cli.watch_rows import Json, Row, rows_of, values_of, why
from qwen_edge.core.progress import duration

SECONDS = 900.0  # of the last minutes that the lines of blocks show
_TOLD = 60.0  # seconds for which the view says that the daemon or its engine was replaced
_LATE = 5.0  # seconds without an answer after which the view says so
_NAME, _BAR, _WORDS, _LEAST_LINE = 12, 20, 36, 8  # columns of a row's parts
_BOTTOM = "the last 15 minutes at the right; q or Ctrl-C leaves"


@dataclass(frozen=True)
class Seen:
    """The answers to one round of questions: /v1/device, and the conversations of /v1/cache, if it was asked."""

    device: Json
    remembered: tuple[Json, ...] | None = None


@dataclass(frozen=True)
class Unseen:
    """The daemon gave no answer, for this reason."""

    reason: str


@dataclass
class View:
    """`take` what was found; rich then prints the view as large as the terminal is. `clock` is the wall clock. Used by
    one thread."""

    url: str
    clock: Callable[[], float] = time.time
    trail: Trail = field(default_factory=lambda: Trail(SECONDS))
    _seen: Seen | None = None
    _seen_at: float = 0.0
    _trouble: str = ""
    _remembered: tuple[Json, ...] = ()
    _event: str = ""
    _event_at: float = 0.0

    def take(self, found: Seen | Unseen) -> None:
        """Take the outcome of a round of questions that has just ended."""
        now = self.clock()
        if isinstance(found, Unseen):
            self._trouble = found.reason
            return
        if self._seen and (event := self._replaced(self._seen, found, now)):
            self._event, self._event_at = event, now
        self._seen, self._seen_at, self._trouble = found, now, ""
        self._remembered = self._remembered if found.remembered is None else found.remembered
        self.trail.add(now, values_of(found.device))

    def _replaced(self, before: Seen, found: Seen, now: float) -> str:
        """A sentence if the daemon was away, or if its engine has died since the last answer; else ""."""
        if self._trouble:
            return f"The daemon answers again. It was away for {duration(now - self._seen_at)}."
        if found.device["restarts"] > before.device["restarts"]:
            return f"The engine has died, and another one replaces it: {found.device['last_death']}"
        return ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        lines = [*self._head(console, width), *self._rows(width)][: max(1, height - 1)]
        yield from lines
        if height > len(lines):
            yield Text("\n" * (height - len(lines) - 1) + _BOTTOM[:width], style="dim", end="")

    def _head(self, console: Console, width: int) -> Iterator[Text]:
        """The lines at the top, which the shortest terminal shows: what it is, and a sentence on how it is."""
        if self._seen is None:
            yield from plain(self._trouble or f"Asking {self.url}.").wrap(console, width)
            return
        device = self._seen.device
        level = device["governor"]["level"]
        colour = LEVEL_STYLES.get(level, "")
        title = _styled(level, colour)
        title.append_text(plain(f"  {device['model']}  engine {device['engine']}  "))
        title.append_text(_styled(self.url, "dim"))
        title.truncate(width, overflow="ellipsis")
        yield title
        if news := self._news(self.clock()):
            yield from news.wrap(console, width)
        if not self._stale(self.clock()):
            yield from _styled(why(device), "" if level == "nominal" else colour).wrap(console, width)

    def _rows(self, width: int) -> Iterator[Text]:
        """The figures, the most important ones first: a short terminal shows as many as it has room for."""
        if self._seen:
            now = self.clock()
            for row in rows_of(self._seen.device, self._remembered, now):
                line = self._line(row, width, now)
                line.truncate(width, overflow="ellipsis")
                if self._stale(now):
                    line.stylize("dim")
                yield line

    def _stale(self, now: float) -> bool:
        """Whether the figures are not those of now."""
        return bool(self._trouble) or now - self._seen_at > _LATE

    def _news(self, now: float) -> Text | None:
        """That the daemon does not answer, or that something was replaced a short time ago."""
        if self._stale(now):
            return _styled(f"No answer for {duration(now - self._seen_at)}. {self._trouble}", "red")
        if self._event and now - self._event_at < _TOLD:
            return _styled(self._event, "yellow")
        return None

    def _line(self, row: Row, width: int, now: float) -> Text:
        """A row: its name, a bar if it is a share, words, and at the right its last minutes. A narrow terminal has no
        room for the line of the last minutes, and a very narrow one none for the bar."""
        line = _styled(f"{row.name:<{_NAME}}", "dim")
        if width >= _NAME + _BAR + _WORDS:
            line.append("" if row.share is None else bar(row.share, _BAR, row.mark) + " ")
        line.append_text(plain(row.words))
        begin = _NAME + _BAR + 1 + _WORDS
        if row.series and width - begin >= _LEAST_LINE and line.cell_len < begin:
            columns = self.trail.columns(row.series, width - begin, now)
            known = [value for value in columns if value is not None]
            if known:
                low, high = row.limits or (min(0.0, *known), max(1e-9, *known))
                line.append(" " * (begin - line.cell_len))
                line.append(sparkline(columns, low, high), "cyan")
        return line


def can_be_shown(seen: Seen) -> bool:
    """Whether the answers have the form that the view needs. Another release, or another server, may give others."""
    view = View("")
    try:
        view.take(seen)
        Console(file=io.StringIO(), width=120, height=100).print(view)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        return False
    return True


def _styled(words: str, style: str) -> Text:
    text = plain(words)
    text.stylize(style)
    return text
