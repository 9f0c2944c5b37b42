"""How much the engine really did: measured from the steps it tells of, not from what it was asked for. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from qwen_edge.device.governor.decision import Work
from qwen_edge.protocol.messages import StepStats

_WINDOW = 30.0  # seconds of steps that are looked at
_NOW = 2.0  # seconds after which a step says nothing of now


@dataclass(frozen=True)
class Activity:
    """Over the last half minute, of the time in which there was something to do: the share in which the engine was
    allowed to compute and that in which it did (None if there was nothing), and tokens of answers a second. And the
    requests in the last step."""

    asked: float | None
    ran: float | None
    tokens_per_second: float
    sequences: int


@dataclass(frozen=True)
class _Done:
    """A step and the rest before it, as far as that lies in the window; `asked` seconds of them were allowed."""

    ended: float
    computed: float
    rested: float
    asked: float
    chosen: int


class Meter:
    """Steps come in their order, on the monotonic clock. Used on the daemon's event loop."""

    def __init__(self, now: float) -> None:
        self._done = deque[_Done]()
        self._last: StepStats | None = None
        self._allowed = deque([(now, 1.0)])  # since when, how much
        self._untold = 0.0  # seconds computed that no `work` has told of yet
        self._told = now

    def set_duty(self, duty: float, now: float) -> None:
        """From now on, the engine may compute for so much of the time."""
        if duty != self._allowed[-1][1]:
            self._allowed.append((now, duty))
        while len(self._allowed) > 1 and self._allowed[1][0] < now - 2 * _WINDOW:
            self._allowed.popleft()

    def add_step(self, step: StepStats) -> None:
        """A step has run."""
        self._untold += step.seconds
        self._last = step
        ended, rested = step.began + step.seconds, min(step.rested, _WINDOW)
        asked = self._asked(step.began - rested, ended)
        self._done.append(_Done(ended, step.seconds, rested, asked, step.chosen))
        while self._done[0].ended < ended - _WINDOW:
            self._done.popleft()

    def take_work(self, now: float, *, wanted: bool) -> Work:
        """Since it was last asked for; `wanted` tells whether anybody waits for an answer. A step is told of when it
        has ended: what does not fit is told the next time."""
        seconds = max(1e-9, now - self._told)
        told = min(self._untold, seconds)
        self._untold, self._told = self._untold - told, now
        ran = told / seconds
        return Work(ran, 1.0 if wanted else ran)

    def is_quiet(self, now: float) -> bool:
        """Whether no step can be under way that has not been told: nobody waits, and the last one is some time ago."""
        return self._last is None or self._last.began + self._last.seconds < now - _NOW

    def activity(self, now: float) -> Activity:
        """How it goes."""
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
        """Seconds that were allowed between two times."""
        total, until = 0.0, end
        for since, duty in reversed(self._allowed):
            if begin < until and since < until:
                total += duty * (until - max(begin, since))
                until = since
        return total + self._allowed[0][1] * max(0.0, until - begin)
