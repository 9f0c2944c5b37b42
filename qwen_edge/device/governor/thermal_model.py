"""The thermal model: the temperature of the device, and how much of it is caused by the engine's work.

A chip is a small thermal mass on a large one, its heat sink. Under work the chip becomes warmer than the sink within
seconds; the sink follows within minutes. So the model is

    temperature = base + rise * work

where `work` is the share of the time in which the engine computed, filtered with the chip's time constant, and `rise`
is learned (`gain.py`). From base and rise follows the temperature that any duty leads to. Pure; every value is frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from qwen_edge.device.governor.gain import GainEstimator, towards

_CHIP = 8.0  # seconds: time constant of chip on sink (7 to 8 s in all boards fitted, from a Nano to a laptop)
_SMOOTH = 2.0  # seconds: time constant of the filter on the sensor, which is coarse and late
_COOLING = 15.0  # seconds: time constant of the slope
_STEEPEST = 15.0  # kelvin a second: a faster change is a broken reading
_SLACK = 3.0  # kelvin of noise and rounding that are allowed in addition
_CONFIRMATIONS = 3  # consecutive implausible readings after which the value is accepted
_RISE, _LEAST_RISE = 15.0, 3.0  # kelvin from idle to full work: the initial guess, and the least


@dataclass(frozen=True)
class ThermalModel:
    """`temperature` (Celsius) is the sensor's, filtered; `slope` is its trend in kelvin a second. Start with `begin`;
    then call `after` for each reading, or `unread` where the sensor is silent."""

    temperature: float
    work: float = 0.0
    slope: float = 0.0
    _reading: float = 0.0  # the last accepted one, Celsius
    _rejected: int = 0  # implausible readings since
    _chip_work: float = 0.0  # work, filtered with the chip's time constant only
    _estimator: GainEstimator = field(default_factory=lambda: GainEstimator.guessed(_RISE, _LEAST_RISE))

    @staticmethod
    def begin(reading: float) -> ThermalModel:
        """From the first reading, in Celsius. The engine is taken to have been idle before."""
        return ThermalModel(reading, _reading=reading)

    @property
    def rise(self) -> float:
        """Kelvin between idle and full work, before the sink has followed."""
        return self._estimator.gain or _RISE

    @property
    def base(self) -> float:
        """The temperature (Celsius) to which the chip would fall within seconds if the engine were idle."""
        return self.temperature - self.rise * self.work

    def duty_for(self, temperature: float) -> float:
        """The share of work that leads to `temperature` within seconds; may be below 0 or above 1."""
        return (temperature - self.base) / self.rise

    def seconds_to(self, temperature: float) -> float:
        """Seconds until an idle device has cooled down to `temperature`; infinite if it is not cooling."""
        if self.temperature <= temperature:
            return 0.0
        soon = (temperature - self.base) / (self.temperature - self.base) if self.temperature > self.base else 0.0
        if soon > math.exp(-2.0):  # the chip reaches it without the sink
            return -_CHIP * math.log(soon)
        return (self.temperature - temperature) / -self.slope if self.slope < 0 else math.inf

    def after(self, reading: float, work: float, seconds: float) -> ThermalModel:
        """`seconds` later the sensor says `reading` (Celsius); since then the engine computed for the share `work` of
        the time. An implausible reading is ignored until two further ones confirm it."""
        plausible = abs(reading - self._reading) <= _STEEPEST * seconds + _SLACK
        if not plausible and self._rejected + 1 < _CONFIRMATIONS:
            return replace(self.unread(work, seconds), _rejected=self._rejected + 1)
        return replace(self.unread(work, seconds), _reading=reading, _rejected=0)._with_reading(reading, seconds)

    def unread(self, work: float, seconds: float) -> ThermalModel:
        """`seconds` later, without a reading; since then the engine computed for the share `work` of the time."""
        chip_work = towards(self._chip_work, work, seconds / _CHIP)
        return replace(self, _chip_work=chip_work, work=towards(self.work, chip_work, seconds / _SMOOTH))

    def _with_reading(self, reading: float, seconds: float) -> ThermalModel:
        now = towards(self.temperature, reading, seconds / _SMOOTH)
        slope = towards(self.slope, (now - self.temperature) / seconds, seconds / _COOLING)
        response = self._estimator.after(self.work, now, seconds)
        return replace(self, temperature=now, slope=slope, _estimator=response)
