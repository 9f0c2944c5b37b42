"""A Jetson by jtop, without importing it: a side process does, and this reads its lines (`jtop_helper.py`).

Whatever goes wrong there, a hang included, ends the side process at once; the next one is started after a pause, which
grows while nothing comes.
"""

from __future__ import annotations

import functools
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from qwen_edge.core.python_process import python_command
from qwen_edge.device.sources.jtop_connection import Helper, HelperProcess
from qwen_edge.device.telemetry import Telemetry, TelemetryError

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_MOST_BYTES = 65536


class _Failure(msgspec.Struct, frozen=True):
    """A side process' last line."""

    error: str


def helper_process(interval: float = 1.0, socket: Path | None = None, root: Path = Path("/")) -> Callable[[], Helper]:
    """What starts one as a child: `socket` is jtop's, where it is not the usual one; trip points are below `root`."""
    arguments = ["--interval", str(interval), "--root", str(root), *(["--socket", str(socket)] if socket else [])]
    return functools.partial(HelperProcess, python_command("qwen_edge.device.sources.jtop_helper", *arguments))


class Jtop:
    """A source. Read by one thread, closed by any.

    `start` begins a life of the side process, which has `grace` and two intervals for its first line and three
    intervals for each other one. Then it counts as hung: it has a little less time to find out itself what hangs."""

    name = "jtop"

    def __init__(
        self,
        start: Callable[[], Helper],
        interval: float = 1.0,
        grace: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._interval, self._grace, self._clock = start, interval, grace, clock
        self._reading = threading.Lock()
        self._closed = False
        self._helper: Helper | None = None
        self._rest = b""
        self._deadline = 0.0
        self._pause, self._not_before, self._reason = _FIRST_PAUSE, float("-inf"), ""

    def read(self) -> Telemetry:
        """The newest sample that has not been read, as soon as there is one. Raises TelemetryError with the reason, and
        again with the same one while the pause lasts that follows."""
        with self._reading:
            left = self._not_before - self._clock()
            if left > 0:
                raise TelemetryError(self._reason, left)
            try:
                sample = self._newest(self._helper or self._begin())
            except TelemetryError as error:
                self._drop()
                self._reason, self._not_before = str(error), self._clock() + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                raise
            self._pause = _FIRST_PAUSE
            return sample

    def watts(self) -> None:
        """jtop has one value an interval, and no quicker one."""

    def close(self) -> None:
        self._closed = True
        if helper := self._helper:
            helper.kill()
        if self._reading.acquire(timeout=0.5):  # else the thread that reads lets go of it, as its lines have ended
            try:
                self._drop()
            finally:
                self._reading.release()

    def _begin(self) -> Helper:
        if self._closed:
            raise TelemetryError("jtop is not asked any more: qwen-edge is stopping.")
        try:
            helper = self._helper = self._start()
        except OSError as error:
            raise TelemetryError(f"jtop's side process cannot be started: {error.strerror or error}.") from None
        if self._closed:  # meanwhile, and whoever closed has not seen it
            helper.kill()
        self._rest = b""
        self._deadline = self._clock() + self._grace + 2 * self._interval
        return helper

    def _newest(self, helper: Helper) -> Telemetry:
        """Wait for a line, and take the last of those that are there."""
        poll = select.poll()
        poll.register(helper.fileno(), select.POLLIN)
        sample: Telemetry | None = None
        while True:
            left = 0.0 if sample else max(0.0, self._deadline - self._clock())
            if not poll.poll(1000 * left):
                if sample:
                    return sample
                helper.kill()
                raise TelemetryError(
                    "jtop's side process is silent: it hangs, or its machine has no time for it. It is started anew."
                )
            data = _read(helper)
            if not data and sample:
                return sample  # the next time, it has ended
            if not data or len(self._rest) > _MOST_BYTES:
                raise TelemetryError(f"jtop's side process has ended without a word ({self._drop()}).")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                sample = _sample(line)
                self._deadline = self._clock() + 3 * self._interval

    def _drop(self) -> str:
        """Let go of the side process, and tell how it ended."""
        helper, self._helper = self._helper, None
        return helper.close() if helper else ""


def _read(helper: Helper) -> bytes:
    try:
        return os.read(helper.fileno(), _MOST_BYTES)
    except ConnectionError:
        return b""


def _sample(line: bytes) -> Telemetry:
    """Raises TelemetryError with what the side process says."""
    try:
        return msgspec.json.decode(line, type=Telemetry)
    except msgspec.MsgspecError:
        pass
    try:
        failure = msgspec.json.decode(line, type=_Failure)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise TelemetryError(
            f"jtop's side process wrote what is no sample: {line[:60]!r}. Is it of the same release of qwen-edge?"
        ) from None
    raise TelemetryError(failure.error)
