"""What the service manager hears while the daemon runs: that it is alive, and how the engine and the device are.

Used on the daemon's event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.supervisor.state import EngineState
from qwen_edge.supervisor.supervisor import Supervisor

if TYPE_CHECKING:  # heavy: the engine process is started before this is imported
    from qwen_edge.service.thermal import ThermalControl

_TELL_SECONDS = 5.0


class Heartbeat:
    """`watchdog` and `tell` run until they are cancelled."""

    def __init__(self, notifier: Notifier, engine: Supervisor, load_seconds: float) -> None:
        """`load_seconds`: for how long an engine that loads counts as alive."""
        self._notifier = notifier
        self._engine = engine
        self._load_seconds = load_seconds
        self._status = ""  # the line for the service manager, while the daemon serves

    def ready(self, status: str) -> None:
        """The daemon serves. `status`: where, and what."""
        self._status = status
        self._notifier.ready(status)

    def stopping(self, seconds: float) -> None:
        """The daemon stops, which may take `seconds`."""
        self._status = ""
        self._notifier.stopping(seconds)

    async def watchdog(self) -> None:
        """Tell systemd that the daemon is alive as long as the engine is heard of: without an engine it is of no use.

        While an engine loads or is replaced, the daemon counts as alive for as long as loading may take."""
        interval = self._notifier.watchdog_seconds
        while True:
            if self._engine.model is None:
                self._notifier.still_starting(30)
            if interval:
                patience = interval / 2 if self._engine.state is EngineState.READY else self._load_seconds
                if self._engine.absence < patience:
                    self._notifier.alive()
            await asyncio.sleep(min(interval / 4, 10.0) if interval else 10.0)

    async def tell(self, thermal: ThermalControl) -> None:
        """Tell the service manager how engine and device are, every few seconds."""
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            if self._status:
                engine = self._engine
                trouble = "" if engine.accepts_requests else f"{engine.status} ({engine.last_death})  "
                self._notifier.status(f"{trouble}{self._status}  {thermal.status_text}")
