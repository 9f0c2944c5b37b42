"""A plant and a controller, closed: what the sensor says a second late decides how much is computed in the next."""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from qwen_edge.device.governor.decision import Decision, State, Work, govern
from qwen_edge.device.governor.thresholds import GovernorSettings
from qwen_edge.device.telemetry import Telemetry, Trips
from scripts.heat.plant import Body, Plant

_STEP = 0.25  # seconds of the plant
_ORIN = Trips(passive=99.0, hot=103.0, critical=104.5)

Load = Callable[[float], float]  # how much there is to do (0..1) at a time
Fault = Callable[[float, float], float | None]  # what a sensor says at a time, that should say this; None is silence


class Controller(Protocol):
    """Once a second: the duty, from what is measured. Celsius and watts."""

    def duty(self, now: float, celsius: float | None, watts: float | None, work: Work) -> float: ...


@dataclass
class Governor:
    """The real one."""

    settings: GovernorSettings = field(default_factory=GovernorSettings)
    state: State = field(default_factory=State)
    decision: Decision = field(default_factory=Decision)
    decisions: list[Decision] = field(default_factory=list)

    def duty(self, now: float, celsius: float | None, watts: float | None, work: Work) -> float:
        sample = Telemetry(source="simulated", at=now, tj=celsius, trips=_ORIN, watts=watts)
        heard = sample if celsius is not None or watts is not None else None
        self.decision, self.state = govern(heard, work, self.state, self.settings, 1.0)
        self.decisions.append(self.decision)
        return self.decision.limits.duty


@dataclass
class OnOff:
    """What is usual: all at once above one temperature, all back below another."""

    high: float = 85.0
    low: float = 80.0
    on: bool = True

    def duty(self, now: float, celsius: float | None, watts: float | None, work: Work) -> float:
        if celsius is not None:
            self.on = celsius < self.high and (self.on or celsius <= self.low)
        return float(self.on)


@dataclass
class Constant:
    """Nothing is measured."""

    share: float = 1.0

    def duty(self, now: float, celsius: float | None, watts: float | None, work: Work) -> float:
        return self.share


@dataclass(frozen=True)
class Point:
    """A quarter of a second: the true temperature and power, the duty allowed, and what was computed."""

    at: float
    chip: float
    watts: float
    duty: float
    work: float


def steady(_now: float) -> float:
    """There is always something to do."""
    return 1.0


def bursts(seconds: float) -> Load:
    """As long work as none."""
    return lambda now: float(now % (2 * seconds) < seconds)


@dataclass(frozen=True)
class Scene:
    """A plant somewhere. The sensor is `delay` seconds late, noisy by 0.3 K, rounded to 0.5 K, and has this `fault`;
    that of power is noisy by so many watts. `weather` is added to the ambient temperature."""

    plant: Plant
    ambient: float
    load: Load = steady
    delay: float = 1.0
    fault: Fault = lambda _now, celsius: celsius
    weather: Load = lambda _now: 0.0
    watts_noise: float = 0.5
    lost_watts: Load = lambda _now: 0.0  # whether there is no power to be read, 0 or 1
    seed: int = 0


def close_loop(scene: Scene, controller: Controller, seconds: float = 3600.0) -> list[Point]:
    """Run it for so long."""
    rng, body, points = random.Random(scene.seed), Body(scene.plant, scene.ambient), list[Point]()
    late = deque([body.chip] * (1 + round(scene.delay / _STEP)))
    duty, worked, wanted = 1.0, 0.0, 0.0
    for number in range(round(seconds / _STEP)):
        now, body.ambient = number * _STEP, scene.ambient + scene.weather(number * _STEP)
        work = duty * scene.load(now)
        watts = body.work(work, _STEP)
        points.append(Point(now, body.chip, watts, duty, work))
        late.append(body.chip)
        said = round((late.popleft() + rng.gauss(0.0, 0.3)) * 2) / 2
        worked, wanted = worked + work * _STEP, wanted + scene.load(now) * _STEP
        if (number + 1) % round(1 / _STEP) == 0:
            measured = None if scene.lost_watts(now) else watts + rng.gauss(0.0, scene.watts_noise)
            duty = controller.duty(now, scene.fault(now, said), measured, Work(worked, wanted))
            worked = wanted = 0.0
    return points


@dataclass(frozen=True)
class Course:
    """What a run was like: the highest temperature, and behind the first `settling` seconds the mean and standard
    deviation of temperature and duty, what was computed (0..1), and how often the duty jumped by a third or more."""

    peak: float
    mean: float
    spread: float
    work: float
    wobble: float
    jumps: int


def course(points: list[Point], settling: float = 1500.0) -> Course:
    """Of a run."""
    tail = [point for point in points if point.at >= settling]
    duties = [point.duty for point in tail]
    return Course(
        peak=max(point.chip for point in points),
        mean=statistics.mean(point.chip for point in tail),
        spread=statistics.pstdev(point.chip for point in tail),
        work=statistics.mean(point.work for point in tail),
        wobble=statistics.pstdev(duties),
        jumps=sum(abs(one - other) > 1 / 3 for one, other in pairwise(duties)),
    )
