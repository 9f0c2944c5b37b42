"""Which temperatures to keep to: what the user wants, and what the board itself says. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwen_edge.device.telemetry import Trips

HOT = 3.0  # kelvin above the target, from which on it is more than the controller's business
_TARGET, _PAUSE = 85.0, 95.0  # Celsius, where a board says nothing of itself
_TARGET_BELOW, _PAUSE_BELOW, _ANY_BELOW = 10.0, 4.0, 5.0  # kelvin below the first trip; the last for a user's target
_LEAST_TRIP, _LEAST_TARGET = 65.0, 60.0  # Celsius: what is lower is some other part's, or a mistake


@dataclass(frozen=True)
class GovernorSettings:
    """What the user wants. Celsius and watts; None is what the board's own trip points suggest, and no limit. On
    battery the duty is no more than `battery_duty`, and below a level of `battery_reserve` only people are answered.
    `patience` is how long a sensor may be silent. `kp` (1/K) and `ki` (1/(K s)) are the controller's."""

    target: float | None = None
    pause: float | None = None
    watts: float | None = None
    battery_duty: float = 0.7
    battery_reserve: float = 0.1
    patience: float = 3.0
    kp: float = 0.05
    ki: float = 0.0006


@dataclass(frozen=True)
class Thresholds:
    """Of this board, in Celsius: where it is kept, and from where on nothing is computed."""

    target: float = _TARGET
    pause: float = _PAUSE


def thresholds_of(trips: Trips, settings: GovernorSettings) -> Thresholds:
    """Well below the first temperature at which the board does something itself, so that its own, harder measures are
    never needed."""
    known = [trip for trip in (trips.passive, trips.hot, trips.critical) if trip is not None and trip >= _LEAST_TRIP]
    first = min(known, default=math.inf)
    target = max(_LEAST_TARGET, min(_TARGET, first - _TARGET_BELOW))
    if settings.target is not None:
        target = min(settings.target, first - _ANY_BELOW)
    pause = min(_PAUSE, first - _PAUSE_BELOW) if settings.pause is None else min(settings.pause, first - 1.0)
    if settings.target is None and settings.pause is not None:
        target = min(target, pause - HOT - 1.0)  # the user's pause stays what it is
    return Thresholds(target, max(pause, target + HOT + 1.0))
