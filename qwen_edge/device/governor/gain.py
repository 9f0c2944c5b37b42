"""Estimates a gain: by how much a value (temperature, power) rises within seconds when work goes from 0 to 1.

Recursive least squares with forgetting, on the fast part of both signals (Ljung, System Identification, 1999, section
11.2). Changes over minutes are removed first: they come from the weather or from another program. Old data are
forgotten only while new data are learned from, so steady work neither teaches nor erases anything. Pure; every value is
frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_SLOW = 60.0  # seconds: time constant of the means that are subtracted; slower changes are not learned from
_SWING = 0.1  # smallest deviation of work from its mean that is learned from
_FORGET = 0.999  # factor on old data for each new one
_ENOUGH = 0.5  # sum of squares from which on the estimate counts as known


@dataclass(frozen=True)
class GainEstimator:
    """`least` is the smallest gain that is accepted. Start with `guessed`, or with nothing known."""

    least: float
    _product: float = 0.0
    _square: float = 0.0
    _mean_work: float = 0.0
    _mean: float | None = None

    @staticmethod
    def guessed(gain: float, least: float) -> GainEstimator:
        """Start from a usual value."""
        return GainEstimator(least, gain, 1.0)

    @property
    def gain(self) -> float | None:
        """The rise of the value from work 0 to work 1; None if it is not known."""
        return self._product / self._square if self._square >= _ENOUGH else None

    def after(self, work: float, value: float, seconds: float) -> GainEstimator:
        """`seconds` later: `value` under the share `work`. Both must be filtered with the same time constants."""
        mean = value if self._mean is None else towards(self._mean, value, seconds / _SLOW)
        mean_work = towards(self._mean_work, work, seconds / _SLOW)
        value_change, work_change = value - mean, work - mean_work
        product, square = self._product, self._square
        if abs(work_change) > _SWING:
            square = _FORGET * square + work_change * work_change
            # other causes may outweigh work; the bound keeps the estimate from going below `least`
            product = max(self.least * square, _FORGET * product + value_change * work_change)
        return replace(self, _product=product, _square=square, _mean_work=mean_work, _mean=mean)


def towards(value: float, aim: float, share: float) -> float:
    """A step of a first-order low-pass filter towards `aim`; `share` is the elapsed time over the time constant."""
    return value + (aim - value) * -math.expm1(-share)
