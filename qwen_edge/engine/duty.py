"""How long the engine rests between two steps, so that it computes for no more than its share of the time.

A rest is as long as the step before it asks for, so that power is even and words come evenly. What was rested too
little or too long is made up for, so the share is kept however coarse steps and timers are. Pure; used by the engine's
thread.
"""

from __future__ import annotations

import math

from qwen_edge.protocol.messages import Limits, Share, StepStats

_CREDIT = 0.02  # seconds of computing: what timers that are late owe
_LEAST = 0.05  # of the time: what a pause pays off is counted as if so much were allowed


class Duty:
    """Tell it what `ran` and what was `rested`; `rest` says for how long to do nothing. `slept` are the seconds of
    rest, in all, for which somebody had to wait."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.slept = 0.0
        self._unpaid = 0.0  # seconds of computing for which there has been no rest yet
        self._untold = 0.0  # seconds slept since the last step

    @property
    def rest(self) -> float:
        """Seconds to rest now, before the next step; infinite if there is to be none."""
        share = self.limits.duty
        return max(0.0, self._unpaid) * (1.0 - share) / share if share > 0.0 else math.inf

    def allow(self, limits: Limits) -> None:
        """From now on, do no more than this."""
        self.limits = limits

    def ran(self, began: float, seconds: float, chosen: int, shares: tuple[Share, ...]) -> StepStats:
        """A step has been computed; what the daemon hears of it. Only the last one is to be rested for: what was
        allowed without rest is no debt when it is allowed no longer."""
        self._unpaid = min(0.0, self._unpaid) + seconds if self.limits.duty < 1.0 else 0.0
        untold, self._untold = self._untold, 0.0
        return StepStats(began, seconds, untold, chosen, shares)

    def rested(self, seconds: float, *, busy: bool) -> None:
        """Nothing was computed for so long, though there was something to do (`busy`) or not. Rest is hardly saved up:
        what follows an idle hour heats as much as what follows an idle second."""
        self._untold += seconds if busy else min(seconds, self.rest)
        self.slept += seconds if busy else 0.0
        share = max(_LEAST, self.limits.duty)
        if share < 1.0:
            self._unpaid = max(-_CREDIT, self._unpaid - seconds * share / (1.0 - share))
