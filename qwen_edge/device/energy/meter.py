"""How much the engine really computed, measured from the steps it reports, not from the duty it was given. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from qwen_edge.device.governor.decision import Work
from qwen_edge.protocol.messages import StepStats

_WINDOW = 30.0  # seconds of steps that the figures are taken from
_NOW = 2.0  # seconds: a step that ended earlier does not count as running now


@dataclass(frozen=True)
class Activity:
    """The engine's activity over the last 30 s, counting only time in which there was work. `asked` is the share of
    that time (0..1) in which the engine was allowed to compute, `ran` the share in which it did; both are None if there
    was no work. `tokens_per_second` counts answers only; `sequences` are the requests in the current step."""

    asked: float | None
    ran: float | None
    tokens_per_second: float
    sequences: int


@dataclass(frozen=True)
class _Done:
    """A step and the pause before it, as far as both lie in the window, in seconds. In `asked` seconds of that time the
    engine was allowed to compute."""

    ended: float
    computed: float
    rested: float
    asked: float
    chosen: int


class Meter:
    """Takes steps in the order of their times (monotonic clock). Used on the daemon's event loop."""

    def __init__(self, now: float) -> None:
        self._done = deque[_Done]()
        self._last: StepStats | None = None
        self._allowed = deque([(now, 1.0)])  # pairs: time from which it holds, duty
        self._unreported = 0.0  # seconds computed that `take_work` has not returned yet
        self._reported_until = now

    def set_duty(self, duty: float, now: float) -> None:
        """From now on, the engine may compute for the share `duty` (0..1) of the time."""
        if duty != self._allowed[-1][1]:
            self._allowed.append((now, duty))
        while len(self._allowed) > 1 and self._allowed[1][0] < now - 2 * _WINDOW:
            self._allowed.popleft()

    def add_step(self, step: StepStats) -> None:
        """The engine has run `step`."""
        self._unreported += step.seconds
        self._last = step
        ended, rested = step.began + step.seconds, min(step.rested, _WINDOW)
        asked = self._asked(step.began - rested, ended)
        self._done.append(_Done(ended, step.seconds, rested, asked, step.chosen))
        while self._done[0].ended < ended - _WINDOW:
            self._done.popleft()

    def take_work(self, now: float, *, wanted: bool) -> Work:
        """The work since the last call. `wanted`: a request is waiting for its answer. The engine reports a step when
        it has ended, so a step may be longer than the time since the last call: the rest is returned next time."""
        seconds = max(1e-9, now - self._reported_until)
        taken = min(self._unreported, seconds)
        self._unreported, self._reported_until = self._unreported - taken, now
        ran = taken / seconds
        return Work(ran, 1.0 if wanted else ran)

    def is_quiet(self, now: float) -> bool:
        """Whether the last step ended so long ago that, if no request is pending, no further step can be running."""
        return self._last is None or self._last.began + self._last.seconds < now - _NOW

    def activity(self, now: float) -> Activity:
        """The figures of the last 30 s."""
        done = [one for one in self._done if one.ended > now - _WINDOW]
        if not done or self._last is None:
            return Activity(None, None, 0.0, 0)
        busy = sum(one.computed + one.rested for one in done)
        return Activity(
            asked=sum(one.asked for one in done) / busy,
            ran=sum(one.computed for one in done) / busy,
            tokens_per_second=sum(one.chosen for one in done) / busy,
            sequences=sum(1 for share in self._last.shares if share.id) if self._last.began > now - _NOW else 0,
        )

    def _asked(self, begin: float, end: float) -> float:
        """Seconds between two times in which the engine was allowed to compute."""
        total, until = 0.0, end
        for since, duty in reversed(self._allowed):
            if begin < until and since < until:
                total += duty * (until - max(begin, since))
                until = since
        return total + self._allowed[0][1] * max(0.0, until - begin)
