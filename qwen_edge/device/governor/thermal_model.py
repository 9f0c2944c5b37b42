"""How warm the device is, and how much of that is our doing.

A chip is a small mass on a large one: while it works it becomes so many degrees warmer than its heat sink, within
seconds, and the sink follows within minutes. So the temperature is base + rise * work, where `work` is the share of the
time in which the engine computed, as slow as the chip follows, and the rise is learned (`gain.py`). Whoever knows
both knows beforehand what any duty comes to. Pure; every value is frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from qwen_edge.device.governor.gain import GainEstimator, towards

_CHIP = 8.0  # seconds: a chip on its sink, of boards from a Nano to a laptop (7 to 8 in all that were fitted)
_SMOOTH = 2.0  # seconds, of the sensor: it is coarse, and late
_COOLING = 15.0  # seconds over which a slope is taken
_STEEPEST = 15.0  # kelvin a second: no chip does that, a broken reading does
_SLACK = 3.0  # kelvin of noise and of rounding on top of it
_BELIEVED = 3  # readings one after the other: then it is no spike
_RISE, _LEAST_RISE = 15.0, 3.0  # kelvin from idle to full work: before anything is known, and at least


@dataclass(frozen=True)
class ThermalModel:
    """`temperature` is the sensor's, filtered; `slope` its trend in kelvin a second. `begin` with the first reading,
    then `after` each, or `unread`."""

    temperature: float
    work: float = 0.0
    slope: float = 0.0
    _reading: float = 0.0  # the last that was believed
    _doubts: int = 0  # readings since
    _followed: float = 0.0  # work, as slow as the chip alone
    _estimator: GainEstimator = field(default_factory=lambda: GainEstimator.guessed(_RISE, _LEAST_RISE))

    @staticmethod
    def begin(reading: float) -> ThermalModel:
        """Nothing was computed before, as far as is known."""
        return ThermalModel(reading, _reading=reading)

    @property
    def rise(self) -> float:
        """Kelvin between idle and full work, when the sink has not followed yet."""
        return self._estimator.gain or _RISE

    @property
    def base(self) -> float:
        """What the temperature would fall to within seconds if the engine did nothing."""
        return self.temperature - self.rise * self.work

    def duty_for(self, temperature: float) -> float:
        """The share of work that leads to this temperature, within seconds; may be none or more than all."""
        return (temperature - self.base) / self.rise

    def seconds_to(self, temperature: float) -> float:
        """Until it will have cooled down to this, if nothing works meanwhile; infinite if there is no sign of it."""
        if self.temperature <= temperature:
            return 0.0
        soon = (temperature - self.base) / (self.temperature - self.base) if self.temperature > self.base else 0.0
        if soon > math.exp(-2.0):  # the chip alone will do
            return -_CHIP * math.log(soon)
        return (self.temperature - temperature) / -self.slope if self.slope < 0 else math.inf

    def after(self, reading: float, work: float, seconds: float) -> ThermalModel:
        """So much later the sensor says this, and for so much of the time the engine has computed. A reading that
        cannot be is not believed until others say the same."""
        believed = abs(reading - self._reading) <= _STEEPEST * seconds + _SLACK
        if not believed and self._doubts + 1 < _BELIEVED:
            return replace(self.unread(work, seconds), _doubts=self._doubts + 1)
        return replace(self.unread(work, seconds), _reading=reading, _doubts=0)._felt(reading, seconds)

    def unread(self, work: float, seconds: float) -> ThermalModel:
        """So much later the sensor has said nothing, and for so much of the time the engine has computed."""
        followed = towards(self._followed, work, seconds / _CHIP)
        return replace(self, _followed=followed, work=towards(self.work, followed, seconds / _SMOOTH))

    def _felt(self, reading: float, seconds: float) -> ThermalModel:
        now = towards(self.temperature, reading, seconds / _SMOOTH)
        slope = towards(self.slope, (now - self.temperature) / seconds, seconds / _COOLING)
        response = self._estimator.after(self.work, now, seconds)
        return replace(self, temperature=now, slope=slope, _estimator=response)
