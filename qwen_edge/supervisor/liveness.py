"""Decides, from the messages of an engine process, whether the process is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.state import EngineState

# for an engine that is unloaded to write its conversations; it has written most of them while it was idle
SAVE_SECONDS = 5.0


class Liveness:
    """Watches one engine after another. Used on the daemon's event loop. `clock` is in seconds."""

    def __init__(self, limits: SupervisorLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._last_message = self._last_ready = clock()

    @property
    def absence(self) -> float:
        """Seconds since the last message of a loaded engine."""
        return self._clock() - self._last_ready

    def start_waiting(self) -> None:
        """Count the silence from now on: the engine was started, or was told to end."""
        self._last_message = self._clock()

    def message_received(self, state: EngineState) -> None:
        """The engine has sent a message. After the engine was told to end, messages do not count: only its end does."""
        if state is not EngineState.LEAVING:
            self._last_message = self._clock()
        if state is EngineState.READY:
            self._last_ready = self._last_message

    def needed_again(self) -> None:
        """An engine is needed after a time without one; that time does not count as absence."""
        self._last_ready = self._clock()

    def overdue(self, state: EngineState) -> str:
        """What is wrong with an engine that has been silent for too long; empty if the silence is within the limit."""
        silence = self._clock() - self._last_message
        if silence <= self._allowed_silence(state):
            return ""
        if state is EngineState.LEAVING:
            return f"has not ended {silence:.0f} s after it was told to"
        return f"silent for {silence:.0f} s" + (" while loading" if state is EngineState.LOADING else "")

    async def pause(self, state: EngineState) -> None:
        """Sleep until the next check. If this process stood still meanwhile, it could not receive messages, so that
        time does not count as silence."""
        pause = min(1.0, self._allowed_silence(state) / 4, self._limits.idle_seconds / 4)
        due = self._clock() + pause
        await asyncio.sleep(pause)
        late = max(0.0, self._clock() - due)
        self._last_message = min(due + late, self._last_message + late)

    def _allowed_silence(self, state: EngineState) -> float:
        """Seconds."""
        if state is EngineState.LOADING:
            return self._limits.load_seconds
        return self._limits.hang_seconds + (SAVE_SECONDS if state is EngineState.LEAVING else 0.0)
