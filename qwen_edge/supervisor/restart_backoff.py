"""Counts the engines of one supervisor that have died, and decides how long to wait before the next start."""

from __future__ import annotations

import math
from collections.abc import Callable

from qwen_edge.core.errors import RequestError, unavailable

_LONGEST_PAUSE, _HEALTHY_AFTER = 30.0, 60.0  # seconds


class RestartBackoff:
    """`total`: the number of engines that have died. `last_death`: why the last one died. `in_a_row`: the number of
    the latest deaths with no healthy engine between them. A healthy engine has loaded the model, has lived for more
    than a minute, and has not lost requests without answering any. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._answers: bool | None = False  # whether this engine answers requests; None: loaded, but no request yet
        self._suspect = False  # whether the next engine is doubtful, because the last one could not answer
        self._may_start = 0.0  # the time at which the next engine may be started
        self.total = self.in_a_row = 0
        self.last_death: str | None = None

    @property
    def pause(self) -> float:
        """Seconds until another engine may be started."""
        return max(0.0, self._may_start - self._clock())

    @property
    def doubtful(self) -> bool:
        """Whether it is doubtful that this engine can answer: several engines died in a row, the last one without an
        answer, and this engine has neither answered a request nor lived for a minute."""
        return self._suspect and not self._answers and self._age < _HEALTHY_AFTER

    def engine_started(self) -> None:
        """A new engine process exists, and loads the model."""
        self._started, self._answers = self._clock(), False

    def engine_loaded(self) -> None:
        """This engine takes requests."""
        self._answers = None

    def request_answered(self) -> None:
        """This engine has answered a request completely."""
        self._answers = True

    def request_failed(self) -> None:
        """This engine has lost a request."""
        self._answers = bool(self._answers)

    def engine_died(self, why: str) -> float:
        """This engine has died. Returns the seconds to wait before the next start: 0 after a single death."""
        self.last_death = why
        self.total += 1
        healthy = self._age > _HEALTHY_AFTER and self._answers is not False
        self.in_a_row = 1 if healthy else self.in_a_row + 1
        self._suspect = self.in_a_row > 1 and self._answers is False
        pause = 0.0 if self.in_a_row == 1 else min(2.0 ** (self.in_a_row - 2), _LONGEST_PAUSE)
        self._may_start = self._clock() + pause
        return pause

    def refusal(self) -> RequestError:
        """The error for a request that arrives during the pause."""
        seconds = math.ceil(self.pause)
        return unavailable(
            f"The engine has died {self.in_a_row} times without a minute of service in between (the last time: "
            f"{self.last_death}). The server starts it again in {seconds} s; the server's log has the details.",
            retry_after=seconds + 2,
        )

    @property
    def _age(self) -> float:
        return self._clock() - self._started
