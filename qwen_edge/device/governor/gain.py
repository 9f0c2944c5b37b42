"""What something rises by, within seconds, when the engine computes all the time: learned from how the two go up and
down together.

Least squares through what is quick in both (Ljung, System Identification, 1999, section 11.2): what changes within
minutes is somebody else's doing, the weather's or another program's. It forgets only while it learns: steady work tells
nothing, and takes nothing away. Pure; every value is frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_SLOW = 60.0  # seconds: what changes slower than this is not learned from
_SWING = 0.1  # of work: less of it tells nothing
_FORGET = 0.999
_ENOUGH = 0.5  # of the sum of squares, from which on something is known that was not given


@dataclass(frozen=True)
class GainEstimator:
    """`least` is the smallest gain that is believed. Begin with a guess, or with none."""

    least: float
    _product: float = 0.0
    _square: float = 0.0
    _mean_work: float = 0.0
    _mean: float | None = None

    @staticmethod
    def guessed(gain: float, least: float) -> GainEstimator:
        """Nothing is known yet, but what is usual."""
        return GainEstimator(least, gain, 1.0)

    @property
    def gain(self) -> float | None:
        """The rise from no work to all of it; None if that is not known."""
        return self._product / self._square if self._square >= _ENOUGH else None

    def after(self, work: float, value: float, seconds: float) -> GainEstimator:
        """So much later the value is this, under so much work; both as slow as each other."""
        mean = value if self._mean is None else towards(self._mean, value, seconds / _SLOW)
        mean_work = towards(self._mean_work, work, seconds / _SLOW)
        more, harder = value - mean, work - mean_work
        product, square = self._product, self._square
        if abs(harder) > _SWING:
            square = _FORGET * square + harder * harder
            # others may do more than work does; that must not be believed for long
            product = max(self.least * square, _FORGET * product + more * harder)
        return replace(self, _product=product, _square=square, _mean_work=mean_work, _mean=mean)


def towards(value: float, aim: float, share: float) -> float:
    """A step of a filter of first order, of so much of its time constant."""
    return value + (aim - value) * -math.expm1(-share)
