"""A Jetson's telemetry by jtop. A helper process imports jtop (`jtop_helper.py`); this source reads its lines.

On any failure, a hang included, the helper process is killed and another one is started after a pause, which grows with
each failure in a row.
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
    """The last line of a helper process that failed."""

    error: str


def helper_process(interval: float = 1.0, socket: Path | None = None, root: Path = Path("/")) -> Callable[[], Helper]:
    """Starts a helper as a child process. `socket`: jtop's, if it is not the usual one; `root`: where /sys lies."""
    arguments = ["--interval", str(interval), "--root", str(root), *(["--socket", str(socket)] if socket else [])]
    return functools.partial(HelperProcess, python_command("qwen_edge.device.sources.jtop_helper", *arguments))


class Jtop:
    """A source. Read by one thread, closed by any.

    `start` starts or connects a helper process. It has `grace` seconds and two intervals for its first line, and three
    intervals for each further one; then it counts as hung. The helper's own time limit is a little shorter, so that it
    can report what hangs."""

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
        """Wait for the next sample; of several, return the newest. Raises TelemetryError with the reason, and with the
        same reason again during the pause that follows."""
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
        """None: jtop has one value an interval and no faster reading."""

    def close(self) -> None:
        self._closed = True
        if helper := self._helper:
            helper.kill()
        if self._reading.acquire(timeout=0.5):  # else the reading thread drops the helper, as its output has ended
            try:
                self._drop()
            finally:
                self._reading.release()

    def _begin(self) -> Helper:
        if self._closed:
            raise TelemetryError("jtop is not read any more: qwen-edge is stopping.")
        try:
            helper = self._helper = self._start()
        except OSError as error:
            raise TelemetryError(f"jtop's helper process cannot be started: {error.strerror or error}.") from None
        if self._closed:  # closed meanwhile, by a thread that did not see this helper yet
            helper.kill()
        self._rest = b""
        self._deadline = self._clock() + self._grace + 2 * self._interval
        return helper

    def _newest(self, helper: Helper) -> Telemetry:
        """Wait for a line, and decode the last one available."""
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
                    "jtop's helper process is silent: it hangs, or the machine is overloaded. "
                    "The process is started again."
                )
            data = _read(helper)
            if not data and sample:
                return sample  # the next call finds that the helper has ended
            if not data or len(self._rest) > _MOST_BYTES:
                raise TelemetryError(f"jtop's helper process ended without a message ({self._drop()}).")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                sample = _sample(line)
                self._deadline = self._clock() + 3 * self._interval

    def _drop(self) -> str:
        """Close the helper process and return how it ended."""
        helper, self._helper = self._helper, None
        return helper.close() if helper else ""


def _read(helper: Helper) -> bytes:
    try:
        return os.read(helper.fileno(), _MOST_BYTES)
    except ConnectionError:
        return b""


def _sample(line: bytes) -> Telemetry:
    """Raises TelemetryError with the message of the helper process."""
    try:
        return msgspec.json.decode(line, type=Telemetry)
    except msgspec.MsgspecError:
        pass
    try:
        failure = msgspec.json.decode(line, type=_Failure)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise TelemetryError(
            f"jtop's helper process wrote {line[:60]!r}, which is not a sample. "
            "Is that process of the same qwen-edge release as the daemon?"
        ) from None
    raise TelemetryError(failure.error)
