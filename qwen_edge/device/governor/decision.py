"""Decides how much the engine may do: (sample, work, state, settings) -> (decision, state). Pure: no clock, no threads.

The duty is the share of the time in which the engine may compute. It is the lowest of three limits:

- heat: a PI controller on the temperature (Astrom and Murray, Feedback Systems, 2nd edition, chapter 11), with
  anti-windup; its output falls at once and rises slowly. A ceiling lies above it, predicted from the learned effect of
  work on the temperature (`thermal_model.py`): so a sudden load does not overshoot, and a wrong gain does no harm. Near
  the board's own trip points the duty is 0.
- watts: the learned power of the board (`power_model.py`) gives the duty that keeps the limit in watts.
- battery: a fixed duty while the device runs on its battery.

If a sensor is silent, the last safe duty stays for a moment and then decreases.

Four levels, with hysteresis, decide on what is either on or off: idle work, guesses, threads, and which priorities are
admitted.
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

_REARM = 5.0  # kelvin below the pause at which the engine computes again
_ENTER = {"warm": -5.0, "hot": HOT}  # kelvin relative to the target
_LEAVE = {"warm": -8.0, "hot": 1.0}
_ABOVE = 0.7  # kelvin above the target at which the ceiling lies, so that the controller decides below it
_FLOOR = 0.05  # lowest duty below the pause temperature, so that answers go on
_RISE = 0.15  # largest increase of the duty a second
_WANTED = 0.05  # share of the time with work; below it the temperature does not depend on the duty
_BLIND_DUTY, _BLIND_SECONDS = 0.3, 60.0  # without readings: final duty, time constant
_LONGEST_WAIT = 600.0  # seconds: the longest Retry-After
_STEP = {"nominal": 0.32, "warm": 0.2, "hot": 0.1, "critical": 0.1}  # seconds of a step that also decodes answers
_PROMPT = {"nominal": math.inf, "warm": 0.5, "hot": 0.2, "critical": 0.2}  # seconds of a step with prompts only
_ALL_PRIORITIES, _ALL_BUT_INTERACTIVE = ("interactive", "background", "idle"), ("background", "idle")


@dataclass(frozen=True)
class Work:
    """Shares (0..1) of the time since the last decision: `ran`, in which the engine computed; `wanted`, in which there
    was something to compute."""

    ran: float = 0.0
    wanted: float = 0.0


@dataclass(frozen=True)
class Decision:
    """`because` names the cause of a duty below 1. Requests with a priority in `refused` are not admitted; clients
    should try again in `retry_after` seconds."""

    level: Level = "nominal"
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    because: Cause = ""
    refused: tuple[str, ...] = ()
    retry_after: float = 0.0


@dataclass(frozen=True)
class Ceiling:
    """The highest duty that one sensor allows; `silent` are the seconds since its last reading."""

    duty: float = 1.0
    silent: float = 0.0

    def unread(self, seconds: float, patience: float, allowed: float) -> Ceiling:
        """After `seconds` more without a reading. For `patience` seconds the duty that was `allowed` stays; then it
        decreases, but never to 0, as the board protects itself in any case."""
        silent, duty = self.silent + seconds, self.duty if self.silent else min(self.duty, allowed)
        duty = max(_FLOOR, duty)
        if silent > patience:
            duty = min(duty, _BLIND_DUTY + (duty - _BLIND_DUTY) * math.exp(-seconds / _BLIND_SECONDS))
        return Ceiling(duty, silent)


@dataclass(frozen=True)
class State:
    """What is kept from one decision to the next. The first decision starts from the defaults."""

    heat: ThermalModel | None = None
    draw: PowerModel | None = None
    by_heat: Ceiling = Ceiling()
    by_watts: Ceiling = Ceiling()
    battery: Battery | None = None  # only while the device runs on it
    duty: float = 1.0
    integral: float = 1.0
    because: Cause = ""
    level: Level = "nominal"
    thresholds: Thresholds = field(default_factory=Thresholds)
    read_at: float = -math.inf


def govern(
    sample: Telemetry | None, work: Work, state: State, settings: GovernorSettings, seconds: float
) -> tuple[Decision, State]:
    """The next decision, `seconds` after the last one. `sample` is the latest telemetry; None, or the same sample as
    last time, means that nothing has been read since."""
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
    # while the duty rises again, the cause of its fall still holds
    return _decide(state := replace(state, duty=duty, because=cause or state.because), settings), state


def _after_heat(
    sample: Telemetry | None, work: Work, state: State, settings: GovernorSettings, seconds: float
) -> State:
    """The state after a temperature or its absence. A source that never had a temperature does not count as silent."""
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
    """The state after a power reading or its absence. Without a limit, or before the first reading, it stays."""
    if sample is not None and sample.watts is not None:
        watts = sample.watts
        draw = state.draw.after(watts, work.ran, seconds) if state.draw else PowerModel.begin(watts, work.ran)
        duty = 1.0 if settings.watts is None else min(1.0, max(_FLOOR, draw.duty_within(settings.watts)))
        return replace(state, draw=draw, by_watts=Ceiling(duty))
    if sample is not None and sample.mains and not sample.missing:
        return replace(
            state, draw=None, by_watts=Ceiling()
        )  # only the battery measures watts, and the device runs on mains
    if settings.watts is None or state.draw is None:
        return state
    return replace(state, by_watts=state.by_watts.unread(seconds, settings.patience, state.duty))


def _next_level(level: Level, now: float, thresholds: Thresholds) -> Level:
    """The level at the temperature `now`. A level is entered at one temperature and left at a lower one."""
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
    """One step of the PI controller. The integral does not change while another limit decides (anti-windup)."""
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
    refused = _ALL_PRIORITIES if level == "critical" else _ALL_BUT_INTERACTIVE if level == "hot" or low else ()
    return Decision(
        level, limits, state.thresholds, state.because if state.duty < 1 else "", refused, _retry_after(state)
    )


def _retry_after(state: State) -> float:
    """Seconds until the device will have cooled down enough to leave the level."""
    if state.heat is None or state.level not in ("hot", "critical"):
        return 60.0  # a battery or a silent sensor: no forecast
    aim = state.thresholds.pause - _REARM if state.level == "critical" else state.thresholds.target + _LEAVE["hot"]
    return min(_LONGEST_WAIT, max(1.0, state.heat.seconds_to(aim)))
