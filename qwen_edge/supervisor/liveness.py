"""Whether an engine process still lives, as far as its messages tell, and since when nobody has used it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qwen_edge.supervisor.engine_process import Patience
from qwen_edge.supervisor.state import State

KEEP_SECONDS = 5.0  # for an engine that leaves to write conversations: while it was idle it has done most of that


class Liveness:
    """Of one engine after the other; used on the daemon's event loop. `clock` is in seconds."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._heard = self._served = self._used = clock()

    @property
    def absence(self) -> float:
        """Seconds since a loaded engine was heard of."""
        return self._clock() - self._served

    @property
    def unused(self) -> float:
        """Seconds since a request ended, or an engine has loaded the model."""
        return self._clock() - self._used

    def begin(self) -> None:
        """From now on the engine is waited for: it starts, or it was told to end."""
        self._heard = self._clock()

    def heard(self, state: State) -> None:
        """The engine has sent a message. While it leaves that is no sign of life: only its end is waited for."""
        if state is not State.LEAVING:
            self._heard = self._clock()
        if state is State.READY:
            self._served = self._heard

    def used(self) -> None:
        """A request has ended, or an engine has loaded the model."""
        self._used = self._clock()

    def woken(self) -> None:
        """An engine is needed again after a time without one, which is no absence."""
        self._served = self._clock()

    def idle_for_long(self) -> bool:
        """Whether an engine without requests is to be let go."""
        return self.unused > self._patience.idle

    def overdue(self, state: State) -> str:
        """What is wrong with an engine from which nothing has come for too long; empty for one that may live on."""
        silence = self._clock() - self._heard
        if silence <= self._allowed(state):
            return ""
        if state is State.LEAVING:
            return f"has not ended {silence:.0f} s after it was told to"
        return f"silent for {silence:.0f} s" + (" while loading" if state is State.LOADING else "")

    async def pause(self, state: State) -> None:
        """Sleep until it is time to ask again whether the engine is overdue. If this process stood still meanwhile, it
        could not hear the engine: that time does not count as silence."""
        pause = min(1.0, self._allowed(state) / 4, self._patience.idle / 4)
        awake = self._clock() + pause
        await asyncio.sleep(pause)
        late = max(0.0, self._clock() - awake)
        self._heard = min(awake + late, self._heard + late)

    def _allowed(self, state: State) -> float:
        """Seconds of silence."""
        if state is State.LOADING:
            return self._patience.loading
        return self._patience.hanging + (KEEP_SECONDS if state is State.LEAVING else 0.0)
