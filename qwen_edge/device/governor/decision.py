"""Decides how much the engine may do: (sample, work, state, settings) -> (decision, state). Pure: no clock, no threads.

The duty is the share of the time in which the engine may compute, the least of what heat, watts and battery allow:

- heat: a PI controller on the temperature (Astrom and Murray, Feedback Systems, 2nd edition, chapter 11), which falls
  at once, rises slowly and does not wind up, below a ceiling that knows what work does to the temperature
  (`thermal_model.py`): so a sudden load does not overshoot, and a wrong gain does no harm. Near the board's own trips
  nothing is computed.
- watts: what was learned of the board's draw (`power_model.py`) tells the duty beforehand.
- a sensor that is silent leaves the last duty that was safe, and less and less of it.

Levels, with hysteresis, decide on what cannot be had by halves: idle work, guesses, threads, and who is let in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from qwen_edge.device.governor.power_model import PowerModel
from qwen_edge.device.governor.thermal_model import ThermalModel
from qwen_edge.device.governor.thresholds import HOT, GovernorSettings, Thresholds, thresholds_of
from qwen_edge.device.telemetry import Battery, Telemetry
from qwen_edge.protocol.messages import Limits

Level = Literal["nominal", "warm", "hot", "critical"]
Cause = Literal["", "heat", "watts", "battery", "no telemetry"]
LEVELS: tuple[Level, ...] = ("nominal", "warm", "hot", "critical")

_REARM = 5.0  # kelvin below the pause, from which on the engine computes again
_ENTER = {"warm": -5.0, "hot": HOT}  # kelvin from the target
_LEAVE = {"warm": -8.0, "hot": 1.0}
_ABOVE = 0.7  # kelvin above the target that the ceiling leaves to the controller
_FLOOR = 0.05  # of duty, below the pause: answers go on
_RISE = 0.15  # of duty a second
_WANTED = 0.05  # of the time: with less to do, the temperature says nothing about the duty
_BLIND_DUTY, _BLIND_SECONDS = 0.3, 60.0  # where the duty goes without readings, and how soon
_LONGEST_WAIT = 600.0  # seconds after which anybody is told to come back
_STEP = {"nominal": 0.32, "warm": 0.2, "hot": 0.1, "critical": 0.1}  # seconds, of a step beside streams
_PROMPT = {"nominal": math.inf, "warm": 0.5, "hot": 0.2, "critical": 0.2}  # seconds, of a step of prompts alone
_EVERYBODY, _NO_PERSON = ("interactive", "background", "idle"), ("background", "idle")


@dataclass(frozen=True)
class Work:
    """Of the time since the last decision, the share in which the engine computed, and that in which there was
    something to compute."""

    ran: float = 0.0
    wanted: float = 0.0


@dataclass(frozen=True)
class Decision:
    """`because` is what the duty follows, if it is below 1. The priorities of `refused` are let in no more; in
    `retry_after` seconds they may be."""

    level: Level = "nominal"
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    because: Cause = ""
    refused: tuple[str, ...] = ()
    retry_after: float = 0.0


@dataclass(frozen=True)
class Ceiling:
    """A duty that follows a sensor; for `silent` seconds that has said nothing."""

    duty: float = 1.0
    silent: float = 0.0

    def unread(self, seconds: float, patience: float, allowed: float) -> Ceiling:
        """For a moment what was `allowed` stays; then less and less is, but never nothing: the board still protects
        itself."""
        silent, duty = self.silent + seconds, self.duty if self.silent else min(self.duty, allowed)
        duty = max(_FLOOR, duty)
        if silent > patience:
            duty = min(duty, _BLIND_DUTY + (duty - _BLIND_DUTY) * math.exp(-seconds / _BLIND_SECONDS))
        return Ceiling(duty, silent)


@dataclass(frozen=True)
class State:
    """What is kept from one decision to the next. The first is made with none of it."""

    heat: ThermalModel | None = None
    draw: PowerModel | None = None
    by_heat: Ceiling = Ceiling()
    by_watts: Ceiling = Ceiling()
    battery: Battery | None = None  # if it is what the device runs on
    duty: float = 1.0
    integral: float = 1.0
    because: Cause = ""
    level: Level = "nominal"
    thresholds: Thresholds = field(default_factory=Thresholds)
    read_at: float = -math.inf


def govern(
    sample: Telemetry | None, work: Work, state: State, settings: GovernorSettings, seconds: float
) -> tuple[Decision, State]:
    """The next decision, so many seconds after the last. `sample` is the latest telemetry; the one that was there
    before, or none, means that nothing has been read since."""
    fresh = sample if sample is not None and sample.at > state.read_at else None
    if fresh is not None:
        battery = fresh.battery if fresh.battery and fresh.battery.discharging else None
        state = replace(state, read_at=fresh.at, battery=battery)
    state = _after_heat(fresh, work, state, settings, seconds)
    state = _after_watts(fresh, work, state, settings, seconds)
    ceilings: dict[Cause, float] = {
        "": 1.0,
        "heat": state.by_heat.duty,
        "watts": state.by_watts.duty,
        "battery": settings.battery_duty if state.battery else 1.0,
    }
    cause = min(ceilings, key=lambda cause: ceilings[cause])
    duty = min(ceilings[cause], state.duty + _RISE * seconds)  # falls at once, rises slowly
    silent = {"heat": state.by_heat.silent, "watts": state.by_watts.silent}.get(cause, 0.0)
    if silent > settings.patience:
        cause = "no telemetry"
    # while it rises, it follows yet what it fell for
    return _decide(state := replace(state, duty=duty, because=cause or state.because), settings), state


def _after_heat(
    sample: Telemetry | None, work: Work, state: State, settings: GovernorSettings, seconds: float
) -> State:
    """What the temperature says, or that it says nothing. A source without any temperature at all is no silence."""
    if sample is not None and sample.tj is not None:
        heat = state.heat.after(sample.tj, work.ran, seconds) if state.heat else ThermalModel.begin(sample.tj)
        state = replace(state, heat=heat, thresholds=thresholds_of(sample.trips, settings))
        state = replace(state, level=_next_level(state.level, heat.temperature, state.thresholds))
        return _controlled(heat, work, state, settings, seconds)
    if state.heat is None and state.read_at > -math.inf:
        return replace(state, by_heat=Ceiling(), level="nominal")
    by_heat, level = state.by_heat.unread(seconds, settings.patience, state.duty), state.level
    if by_heat.silent > settings.patience:
        level = max(level, "warm", key=LEVELS.index)
        if level == "critical" and by_heat.silent > settings.patience + _BLIND_SECONDS:
            level = "hot"
    if level == "critical":
        by_heat = replace(by_heat, duty=0.0)
    return replace(state, heat=state.heat and state.heat.unread(work.ran, seconds), by_heat=by_heat, level=level)


def _after_watts(
    sample: Telemetry | None, work: Work, state: State, settings: GovernorSettings, seconds: float
) -> State:
    """What the power says. Without a limit, or before there ever was a reading, that is nothing."""
    if sample is not None and sample.watts is not None:
        watts = sample.watts
        draw = state.draw.after(watts, work.ran, seconds) if state.draw else PowerModel.begin(watts, work.ran)
        duty = 1.0 if settings.watts is None else min(1.0, max(_FLOOR, draw.duty_within(settings.watts)))
        return replace(state, draw=draw, by_watts=Ceiling(duty))
    if sample is not None and sample.mains and not sample.missing:
        return replace(state, draw=None, by_watts=Ceiling())  # only the battery told watts, and it is not in use
    if settings.watts is None or state.draw is None:
        return state
    return replace(state, by_watts=state.by_watts.unread(seconds, settings.patience, state.duty))


def _next_level(level: Level, now: float, thresholds: Thresholds) -> Level:
    """Hysteresis: a level is entered at one temperature and left at a lower one."""
    enter = {"critical": thresholds.pause, **{name: thresholds.target + above for name, above in _ENTER.items()}}
    leave = {
        "critical": thresholds.pause - _REARM,
        **{name: thresholds.target + above for name, above in _LEAVE.items()},
    }
    for name in LEVELS[:0:-1]:
        if now >= (leave if LEVELS.index(name) <= LEVELS.index(level) else enter)[name]:
            return name
    return "nominal"


def _controlled(heat: ThermalModel, work: Work, state: State, settings: GovernorSettings, seconds: float) -> State:
    """The duty that holds the target, and the controller's memory. It learns nothing where something else decides."""
    if state.level == "critical":
        return replace(state, by_heat=Ceiling(0.0))
    error, integral = state.thresholds.target - heat.temperature, state.integral
    wish, ceiling = settings.kp * error + integral, heat.duty_for(state.thresholds.target + _ABOVE)
    duty = min(1.0, max(_FLOOR, min(wish, ceiling)))
    stuck = min(wish, ceiling) >= 1.0 or ceiling < wish if error > 0 else wish <= _FLOOR
    if not stuck and (error < 0 or work.wanted > _WANTED):
        integral = min(1.0, max(0.0, integral + settings.ki * error * seconds))
    return replace(state, by_heat=Ceiling(duty), integral=integral)


def _decide(state: State, settings: GovernorSettings) -> Decision:
    level, careful = state.level, state.level in ("hot", "critical")
    low = state.battery is not None and state.battery.level < settings.battery_reserve
    limits = Limits(
        duty=round(state.duty, 4),
        step_seconds=_STEP[level],
        prompt_seconds=_PROMPT[level],
        threads=0.5 if careful else 1.0,
        speculate=not careful,
        idle_work=level == "nominal" and state.battery is None,
    )
    refused = _EVERYBODY if level == "critical" else _NO_PERSON if level == "hot" or low else ()
    return Decision(
        level, limits, state.thresholds, state.because if state.duty < 1 else "", refused, _retry_after(state)
    )


def _retry_after(state: State) -> float:
    """Seconds until it has cooled down to where more are let in."""
    if state.heat is None or state.level not in ("hot", "critical"):
        return 60.0  # a battery, or a sensor: nobody knows
    aim = state.thresholds.pause - _REARM if state.level == "critical" else state.thresholds.target + _LEAVE["hot"]
    return min(_LONGEST_WAIT, max(1.0, state.heat.seconds_to(aim)))
