"""jtop's helper process: reads jtop (jetson-stats) and writes one line of JSON a sample, a `Telemetry`; if it fails,
its last line is `{"error": "a sentence"}`.

Reasons for a process of its own: jtop is AGPL; it changes how the importing process starts child processes; it forks;
it can hang forever while it connects; and membership in its group is as good as root, which the daemon that speaks HTTP
must not have. Started by `jtop.Jtop`, or by systemd for each connection (qwen-edge-jtop@.service). The only file that
imports jtop.
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

_CONNECT_SECONDS = 5.0  # plus two intervals for two values: connecting to a hanging service waits forever
_SILENT_INTERVALS = 2.5  # after 3, jtop itself repeats the last value


class _UnreadError(Exception):
    """The reader has closed its end."""


class _Lines:
    """The standard output, reserved for samples; what libraries print goes to standard error instead."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def write(self, value: Any) -> None:
        try:
            os.write(self._descriptor, msgspec.json.encode(value) + b"\n")
        except OSError:
            raise _UnreadError from None


class _Listener:
    """Called by jtop's thread for each update. Each new value postpones the alarm."""

    def __init__(self, lines: _Lines, interval: float, root: Path) -> None:
        self._lines, self._patience = lines, _SILENT_INTERVALS * interval
        self._trips = chip_trips(find_zones(root))
        self._before: float | None = None

    def hear(self, client: Any) -> None:
        """Write a sample for an update. If jtop's service hangs, jtop repeats the same value, with the same uptime.

        The first value is skipped: it may be old, and its processor load is the mean since the system start."""
        uptime = client.uptime.total_seconds()
        if uptime == self._before:
            return
        if self._before is not None:
            self._lines.write(telemetry(client, time.monotonic(), self._trips))
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        self._before = uptime


def follow(interval: float, socket: str | None, listener: _Listener) -> NoReturn:
    """Connect and write samples until jtop raises an exception or the alarm goes off."""
    import jtop.service  # imported in this process only

    if socket:
        jtop.service.JTOP_PIPE = socket
    client = jtop.jtop(interval=interval)
    signal.setitimer(signal.ITIMER_REAL, _CONNECT_SECONDS + 2 * interval)
    client.attach(listener.hear)
    client.start()
    if client.interval > 2 * interval:  # the service has one interval for all clients, chosen by the first
        raise TelemetryError(
            f"Another program has set jtop's interval to {client.interval:g} s, which is too long: close that program "
            "(perhaps a window with jtop), and start it again after qwen-edge."
        )
    client.join()
    client.ok(spin=True)  # raises what ended jtop's thread
    raise EOFError


def main(arguments: list[str]) -> None:
    """Exit code 1: the last line says why. Exit code 0: the reader has gone."""
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
            told = f"jtop returned values that qwen-edge does not understand ({error!r}): see the log for details."
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
        "jtop's service hangs: its values do not change. Restart it: sudo systemctl restart jtop. "
        "If that happens again, its log may name a sensor: journalctl -u jtop"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
