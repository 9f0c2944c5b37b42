"""How the engines of one daemon have died, and what follows: a pause before the next one, and doubt in it."""

from __future__ import annotations

import math
from collections.abc import Callable

from qwen_edge.core.errors import RequestError, unavailable

_LONGEST_PAUSE, _HEALTHY_AFTER = 30.0, 60.0  # seconds


class Deaths:
    """`total` engines have died; `last` says what the last one died of. `in_a_row` counts the latest deaths, with no
    useful life between them: one of more than a minute in which the engine loaded the model, and did not lose requests
    without answering any. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._born = clock()
        self._answers: bool | None = False  # whether this engine answers requests; None: it would, but nobody asked
        self._doubt = False  # in the next one, since the last one could not answer
        self._next_life = 0.0
        self.total = self.in_a_row = 0
        self.last: str | None = None

    @property
    def pause(self) -> float:
        """Seconds until another engine may be started."""
        return max(0.0, self._next_life - self._clock())

    @property
    def doubtful(self) -> bool:
        """Whether it is doubtful that this engine can answer: several died one after the other, the last without an
        answer, and this one has neither answered a request yet nor lived for a minute."""
        return self._doubt and not self._answers and self._age < _HEALTHY_AFTER

    def born(self) -> None:
        """Another engine lives, and loads."""
        self._born, self._answers = self._clock(), False

    def loaded(self) -> None:
        """This engine can be asked."""
        self._answers = None

    def answered(self) -> None:
        """This engine has answered a request to the end."""
        self._answers = True

    def failed(self) -> None:
        """This engine has lost a request."""
        self._answers = bool(self._answers)

    def died(self, why: str) -> float:
        """This engine is dead. Returns the pause before the next one: none after a single death."""
        self.last = why
        self.total += 1
        was_of_use = self._age > _HEALTHY_AFTER and self._answers is not False
        self.in_a_row = 1 if was_of_use else self.in_a_row + 1
        self._doubt = self.in_a_row > 1 and self._answers is False
        pause = 0.0 if self.in_a_row == 1 else min(2.0 ** (self.in_a_row - 2), _LONGEST_PAUSE)
        self._next_life = self._clock() + pause
        return pause

    def refusal(self) -> RequestError:
        """What is told to whoever asks during the pause."""
        seconds = math.ceil(self.pause)
        return unavailable(
            f"The engine has died {self.in_a_row} times without a minute of service in between (the last time: "
            f"{self.last}). It is started again in {seconds} s; the server's log has the details.",
            retry_after=seconds + 2,
        )

    @property
    def _age(self) -> float:
        return self._clock() - self._born
