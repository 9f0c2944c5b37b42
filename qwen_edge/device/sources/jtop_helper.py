"""A process of its own that listens to jtop (jetson-stats) and writes one line of JSON a sample: a `Telemetry`, or at
its end `{"error": "a sentence"}`.

Why a process: jtop is AGPL, changes how the process that imports it starts others, forks, can hang for ever while it
connects, and its group is as good as root, which the daemon that speaks HTTP must not be in. Started by `jtop.Jtop`, or
by systemd for each connection (qwen-edge-jtop@.service). The only file that imports jtop.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec

from qwen_edge.device.sources.jtop_errors import sentence
from qwen_edge.device.sources.jtop_values import telemetry
from qwen_edge.device.sources.thermal_zones import chip_trips, find_zones
from qwen_edge.device.telemetry import TelemetryError

_CONNECT_SECONDS = 5.0  # and two intervals for two values: a connection to a service that hangs waits for ever
_SILENT_INTERVALS = 2.5  # jtop itself gives the last value again after 3


class _UnreadError(Exception):
    """Nobody reads our lines any more."""


class _Lines:
    """Where our lines go: the standard output, ours alone from now on. What libraries print goes to the log."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def write(self, value: Any) -> None:
        try:
            os.write(self._descriptor, msgspec.json.encode(value) + b"\n")
        except OSError:
            raise _UnreadError from None


class _Listener:
    """Called by jtop's thread for each update. Each value that is new puts the alarm off."""

    def __init__(self, lines: _Lines, interval: float, root: Path) -> None:
        self._lines, self._patience = lines, _SILENT_INTERVALS * interval
        self._trips = chip_trips(find_zones(root))
        self._before: float | None = None

    def hear(self, client: Any) -> None:
        """When its service hangs, jtop gives the same value again and again: its time shows that.

        The first one may be an old one too, and its processor load is that since the system was started."""
        uptime = client.uptime.total_seconds()
        if uptime == self._before:
            return
        if self._before is not None:
            self._lines.write(telemetry(client, time.monotonic(), self._trips))
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        self._before = uptime


def follow(interval: float, socket: str | None, listener: _Listener) -> NoReturn:
    """Connect, and hear until that ends, which it does by an exception of jtop's or by the alarm."""
    import jtop.service  # in this process only

    if socket:
        jtop.service.JTOP_PIPE = socket
    client = jtop.jtop(interval=interval)
    signal.setitimer(signal.ITIMER_REAL, _CONNECT_SECONDS + 2 * interval)
    client.attach(listener.hear)
    client.start()
    if client.interval > 2 * interval:  # the service has one for all, which the first to come has chosen
        raise TelemetryError(
            f"Another program has asked jtop for a value every {client.interval:g} s, which is too seldom: end it "
            "(perhaps a window with jtop), and start it again after qwen-edge."
        )
    client.join()
    client.ok(spin=True)  # raises what ended jtop's thread
    raise EOFError


def main(arguments: list[str]) -> None:
    """Exit code 1 comes with a last line that says why. Ends by itself when nobody reads its lines."""
    parser = argparse.ArgumentParser(prog="jtop_helper", description=__doc__)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds")
    parser.add_argument("--socket", help="of jtop's service, where it is not /run/jtop.sock")
    parser.add_argument("--root", type=Path, default=Path("/"))
    options = parser.parse_args(arguments)
    lines = _Lines()
    signal.signal(signal.SIGALRM, _give_up)
    try:
        follow(options.interval, options.socket, _Listener(lines, options.interval, options.root))
    except _UnreadError:
        sys.exit(0)
    except Exception as error:
        told = sentence(error)
        if told is None:
            traceback.print_exc()
            told = f"jtop gave values that qwen-edge does not understand ({error!r}): the log has the details."
        _say(lines, told)
        sys.exit(1)


def _say(lines: _Lines, told: str) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        lines.write({"error": told})
    except _UnreadError:
        sys.exit(0)


def _give_up(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TelemetryError(
        "jtop's service hangs: it gives nothing new. Restart it: sudo systemctl restart jtop. "
        "If that happens again, its log may name a sensor: journalctl -u jtop"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
