"""`qwen-edge status --watch`: a full-screen view of a running daemon, until q or Ctrl-C.

Two threads put events into one queue: one asks the daemon, one reads keys. The main thread takes the events and draws,
so that a daemon that does not answer stops neither the keyboard nor the clock of the view.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
from rich.live import Live

from qwen_edge.cli.daemon_client import another_answer, ask, ask_device, path_at
from qwen_edge.cli.device_plot import History
from qwen_edge.cli.terminal import terminal
from qwen_edge.cli.watch_rows import Json
from qwen_edge.cli.watch_view import SECONDS, Seen, Unseen, View, can_be_shown
from qwen_edge.core.errors import UserError

_DRAWN = 1.0  # seconds between two drawings at most: the view says how long an answer is missing
_LEAVE = (b"q", b"Q", b"\x04")

Event = Seen | Unseen | bytes  # bytes: a key


class Asker:
    """Asks one daemon again and again. Used by one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._marks: tuple[Any, Any] = (
            -1,
            -1,
        )  # other marks than those of the last round: other conversations may be remembered

    def look(self) -> Seen:
        """One round of questions. Raises UserError."""
        device = ask_device(self._url)
        marks = device.get("pending"), device["restarts"]
        changed, self._marks = marks != self._marks, marks
        seen = Seen(device, self._remembered() if changed and device.get("engine") == "ready" else None)
        if not can_be_shown(seen):
            raise another_answer(self._url)
        return seen

    def history(self) -> list[Json]:
        """The last minutes; none from a daemon that keeps no history."""
        with contextlib.suppress(UserError, msgspec.ValidationError):
            answer = ask("GET", path_at(self._url, f"/v1/device/history?seconds={SECONDS:.0f}"))
            return [msgspec.to_builtins(one) for one in msgspec.convert(answer, History).samples]
        return []

    def _remembered(self) -> tuple[Json, ...] | None:
        """The conversations. The question would load an engine that is unloaded, so only a loaded one is asked."""
        with contextlib.suppress(UserError, KeyError, TypeError):
            return tuple(ask("GET", path_at(self._url, "/v1/cache"))["data"])
        return None


def watch(url: str, every: float) -> None:
    """Show the daemon at `url`, asking it again `every` so many seconds, until the user leaves. Raises UserError if
    there is no terminal or, at the start, no daemon."""
    if not sys.stdout.isatty():
        raise UserError("--watch needs a terminal. For a file or a program use: qwen-edge status --json")
    asker, view, events = Asker(url), View(url), SimpleQueue[Event]()
    for sample in asker.history():
        view.trail.add(sample["at"], sample)
    view.take(asker.look())
    threading.Thread(target=_ask_forever, args=(asker, every, events.put), daemon=True).start()
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys(events.put),
        Live(view, console=terminal(), screen=True, auto_refresh=False) as live,
    ):
        show(events, view, live.refresh)


def show(events: SimpleQueue[Event], view: View, draw: Callable[[], None]) -> None:
    """Draw after every event, and once a second, until a key that leaves is pressed."""
    while True:
        draw()
        with contextlib.suppress(Empty):
            event = events.get(timeout=_DRAWN)
            if isinstance(event, bytes):
                if event in _LEAVE:
                    return
            else:
                view.take(event)


def _ask_forever(asker: Asker, every: float, tell: Callable[[Event], None]) -> None:
    while True:
        time.sleep(every)
        try:
            tell(asker.look())
        except UserError as error:
            tell(Unseen(str(error)))


@contextlib.contextmanager
def _keys(tell: Callable[[Event], None]) -> Iterator[None]:
    """Tell each key at once, without an echo. Without a keyboard (input from a file) only Ctrl-C leaves."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def read() -> None:
        while key := os.read(keyboard, 1):
            tell(key)

    tty.setcbreak(keyboard)
    try:
        threading.Thread(target=read, daemon=True).start()
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
