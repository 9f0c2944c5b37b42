"""The temperatures the governor keeps to, from the user's settings and the board's trip points. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwen_edge.device.telemetry import Trips

HOT = 3.0  # kelvin above the target at which the level `hot` begins
_TARGET, _PAUSE = 85.0, 95.0  # Celsius, where the board has no trip points
# kelvin below the first trip point: target, pause, and a target set by the user
_TARGET_BELOW, _PAUSE_BELOW, _ANY_BELOW = 10.0, 4.0, 5.0
_LEAST_TRIP, _LEAST_TARGET = 65.0, 60.0  # Celsius: a lower trip point belongs to another part, or is a mistake


@dataclass(frozen=True)
class GovernorSettings:
    """What the user wants. `target` and `pause` are in Celsius; None: derived from the board's trip points. `watts` is
    the limit of the board's power; None: no limit. On battery the duty is at most `battery_duty`, and below a charge of
    `battery_reserve` (0..1) only interactive requests are admitted. `patience` is how many seconds a sensor may be
    silent. `kp` (1/K) and `ki` (1/(K s)) are the gains of the PI controller."""

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
    """In Celsius: the temperature to hold, and the one at which the engine stops computing."""

    target: float = _TARGET
    pause: float = _PAUSE


def thresholds_of(trips: Trips, settings: GovernorSettings) -> Thresholds:
    """Thresholds well below the board's first trip point, so that the board never has to throttle by itself."""
    known = [trip for trip in (trips.passive, trips.hot, trips.critical) if trip is not None and trip >= _LEAST_TRIP]
    first = min(known, default=math.inf)
    target = max(_LEAST_TARGET, min(_TARGET, first - _TARGET_BELOW))
    if settings.target is not None:
        target = min(settings.target, first - _ANY_BELOW)
    pause = min(_PAUSE, first - _PAUSE_BELOW) if settings.pause is None else min(settings.pause, first - 1.0)
    if settings.target is None and settings.pause is not None:
        target = min(target, pause - HOT - 1.0)  # the user's pause is kept
    return Thresholds(target, max(pause, target + HOT + 1.0))
