"""The axis of a chart: from values to pixels, with ticks at round numbers or at round times of day. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import TypeGuard

_MOST = 1e100  # larger numbers are gaps: their differences could overflow
# 1, 2, 5, ... seconds up to hours, then days and weeks: the round steps of a time axis
_CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def usable(value: float | None) -> TypeGuard[float]:
    """Whether a value can be drawn: None, NaN, infinities and numbers beyond 1e100 cannot."""
    return value is not None and math.isfinite(value) and abs(value) < _MOST


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, with a tick at each multiple of `step`."""

    low: float
    high: float
    start: float
    end: float
    step: float
    zone: tzinfo | None = None

    @staticmethod
    def over(
        values: Sequence[float], start: float, end: float, most: int, zone: tzinfo | None = None, *, loose: bool = True
    ) -> Axis:
        """An axis of all these values with about `most` ticks. `loose`: it begins and ends at a tick."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if zone is not None:
            low, high = min(max(low, 0.0), 2e11), min(max(high, 0.0), 2e11)  # years that datetime knows
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            margin = 30.0 if zone is not None else max(abs(low) / 10, 1e-9) if low else 1.0
            low, high = max(low - margin, 0.0) if zone is not None or low >= 0 else low - margin, high + margin
        step = _clock_step((high - low) / most) if zone is not None else _round_step((high - low) / most)
        if loose:
            low, high = step * math.floor(low / step), step * math.ceil(high / step)
        return Axis(low, high, start, end, step, zone)

    def at(self, value: float) -> float:
        """The pixel of a value; of one beyond an end, the pixel of the end."""
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """The pixel and the label of each tick."""
        east = datetime.fromtimestamp(self.low, self.zone).utcoffset() if self.zone is not None else None
        shift = east.total_seconds() if east else 0.0
        slack = 1e-6 * self.step
        from_, to = self.low + shift - slack, self.high + shift + slack
        for number in range(math.ceil(from_ / self.step), math.floor(to / self.step) + 1):
            value = number * self.step
            label = _number(value, self.step) if self.zone is None else _clock(value, self.step)
            yield self.at(value - shift), label


def _round_step(least: float) -> float:
    """The smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least * (1 - 1e-9)), 10 * power)


def _clock_step(least: float) -> float:
    days = 86400 * math.ceil(_round_step(max(least / 86400, 1e-9)))
    return float(next((step for step in _CLOCK_STEPS if step >= least), days))


def _number(value: float, step: float) -> str:
    if not value:
        return "0"
    if abs(value) >= 1e7 or step < 1e-4:
        return f"{value:.4g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _clock(local: float, step: float) -> str:
    """A time of day, or the date at midnight. `local`: Unix time plus the zone's distance from UTC."""
    moment = datetime.fromtimestamp(max(local, 0.0), timezone.utc)
    if step >= 86400 or (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return moment.strftime("%Y-%m-%d")
    return moment.strftime("%H:%M:%S" if step < 60 else "%H:%M")
