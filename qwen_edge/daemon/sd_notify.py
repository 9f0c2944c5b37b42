"""Telling systemd how we are: READY, STATUS, WATCHDOG, STOPPING.

The protocol is one datagram a message to the socket in $NOTIFY_SOCKET
(https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html). Without systemd every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """`watchdog_seconds` is how often systemd wants to hear WATCHDOG at least, None if it does not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET")
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = microseconds / 1e6 if microseconds and for_us else None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def still_starting(self, seconds: float) -> None:
        """Ask for `seconds` more before the start counts as failed."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self, seconds: float) -> None:
        """The stop may take `seconds`."""
        self._send(f"STOPPING=1\nSTATUS=finishing the running requests\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # a leading @ stands for the abstract namespace
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.connect(address)
                notify.sendall(message.encode())
        except OSError as error:  # systemd may be re-executing itself: serving goes on
            log.debug("systemd cannot be notified: %s", error)
