"""How long the engine rests between two steps, so that it computes for no more than its share of the time.

The length of a rest follows from the step before it, so that power is even and words come evenly. A rest that was too
short or too long is made up for by the next ones, so the share is kept however coarse steps and timers are. Pure; used
by the engine's thread.
"""

from __future__ import annotations

import math

from qwen_edge.protocol.messages import Limits, Share, StepStats

_CREDIT = 0.02  # seconds of computing that a late timer may leave over
_LEAST = 0.05  # of the time: a pause counts as if at least this share were allowed


class Duty:
    """Is told of each step (`ran`) and each rest (`rested`); `rest` says how long to do nothing now. `slept` are the
    seconds of rest, in all, for which a request had to wait."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.slept = 0.0
        self._unpaid = 0.0  # seconds of computing for which the engine has not rested yet
        self._untold = 0.0  # seconds rested since the last step

    @property
    def rest(self) -> float:
        """Seconds to rest now, before the next step; infinite if nothing may be computed."""
        share = self.limits.duty
        return max(0.0, self._unpaid) * (1.0 - share) / share if share > 0.0 else math.inf

    def allow(self, limits: Limits) -> None:
        """From now on, do no more than this."""
        self.limits = limits

    def ran(self, began: float, seconds: float, chosen: int, shares: tuple[Share, ...]) -> StepStats:
        """A step has been computed; returns the message to the daemon. Only this step is rested for: steps that were
        allowed without rest are no debt when the limits change."""
        self._unpaid = min(0.0, self._unpaid) + seconds if self.limits.duty < 1.0 else 0.0
        untold, self._untold = self._untold, 0.0
        return StepStats(began, seconds, untold, chosen, shares)

    def rested(self, seconds: float, *, busy: bool) -> None:
        """Nothing was computed for `seconds`, either while requests waited (`busy`) or because there were none. Rest is
        hardly saved up: work after an idle hour heats as much as work after an idle second."""
        self._untold += seconds if busy else min(seconds, self.rest)
        self.slept += seconds if busy else 0.0
        share = max(_LEAST, self.limits.duty)
        if share < 1.0:
            self._unpaid = max(-_CREDIT, self._unpaid - seconds * share / (1.0 - share))
