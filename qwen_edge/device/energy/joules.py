"""Joules by step, request, client and phase, from samples of the board's power.

Between two samples, power is assumed to change linearly (the trapezoidal rule). Samples that are means, as of a
processor that counts its own joules, are exact. The energy of an interval is divided in three steps: the idle power of
the board is kept apart; the rest goes to the steps that ran in the interval, by their time; the energy of a step goes
to its requests, by their tokens. So the parts always add up to the integral.

The engine reports a step when it has ended, which may be seconds after the samples of its time. Energy is therefore
attributed only when it is known what ran. Pure; used on the daemon's event loop.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from qwen_edge.protocol.messages import StepStats

# ahead: prefill of an expected next turn; idle: the idle power of the board, also while steps run
Phase = Literal["prefill", "decode", "ahead", "idle"]
PHASES: tuple[Phase, ...] = get_args(Phase)

_GAP = 10.0  # seconds: over a longer gap between two samples, the energy is not known
_MEMORY = 20.0  # seconds: time constant of the mean idle power and of the mean power of computing
_MOST = 512  # requests to remember: aborted ones are never asked for


@dataclass(frozen=True)
class _Part:
    """The part of a step that one request caused: `share` is 0..1 of the step's energy."""

    request: int
    client: str
    phase: Phase
    share: float


@dataclass(frozen=True)
class _Step:
    began: float
    ended: float
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class _Interval:
    """The time between two samples, and the energy drawn in it."""

    began: float
    ended: float
    joules: float


class Ledger:
    """Takes steps in the order of their times (monotonic clock), and samples likewise. `joules` is by phase; `clients`
    does not contain the idle power, which no client caused."""

    def __init__(self) -> None:
        self.joules: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.clients = defaultdict[str, float](float)
        self._idle, self._computing = _Mean(), _Mean()  # watts: without work; and what a running step adds
        self._last: tuple[float, float] | None = None
        self._known_until = -math.inf  # the time up to which it is known what ran
        self._intervals, self._steps = deque[_Interval](), deque[_Step]()  # not attributed yet
        self._requests: dict[int, float] = {}

    @property
    def idle_watts(self) -> float | None:
        """The board's power in watts when nothing is computed; None until it has been measured."""
        return self._idle.value

    def add_step(self, step: StepStats, client_of: Callable[[int], str]) -> bool:
        """The engine has run `step`; `client_of` returns the client of a request id. False if power is not measured."""
        ended = step.began + step.seconds
        self._known_until = max(self._known_until, ended)
        if self._last is None or step.began > self._last[0] + _GAP:
            self._remember({share.id: math.nan for share in step.shares})  # their energy will never be known in full
            return False
        total = sum(share.prompt + share.decoded for share in step.shares)
        parts = list[_Part]()
        for share in step.shares:
            read: Phase = "prefill" if share.id else "ahead"
            for phase, tokens in ((read, share.prompt), ("decode", share.decoded)):
                if tokens:
                    parts.append(_Part(share.id, client_of(share.id) if share.id else "", phase, tokens / total))
        self._steps.append(_Step(step.began, ended, tuple(parts)))
        self._remember({share.id: self._requests.get(share.id, 0.0) for share in step.shares})
        self._settle()
        return True

    def idle_until(self, until: float) -> None:
        """Up to the time `until`, nothing ran but the steps added so far."""
        self._known_until = max(self._known_until, until)
        self._settle()

    def add_power(self, at: float, watts: float, *, mean: bool = False) -> None:
        """A sample in watts: at the time `at`, or the mean since the last one. One that is not newer is ignored."""
        last = self._last
        if last is not None and at <= last[0]:
            return
        self._last = (at, watts)
        if last is not None and at - last[0] <= _GAP:
            held = watts if mean else (last[1] + watts) / 2
            self._intervals.append(_Interval(last[0], at, held * (at - last[0])))
        self._settle()

    def finish_request(self, request: int) -> float | None:
        """The joules of a finished request; energy not sampled yet is estimated. None if there are no samples of its
        time."""
        settled = self._requests.pop(request, None)
        if settled is None or math.isnan(settled) or self._last is None or self._known_until > self._last[0] + _GAP:
            return None
        since = self._intervals[0].began if self._intervals else self._last[0]
        ahead = sum(
            (step.ended - max(step.began, since)) * part.share
            for step in self._steps
            if step.ended > since
            for part in step.parts
            if part.request == request
        )
        if ahead and self._computing.value is None:
            return None
        return settled + ahead * (self._computing.value or 0.0)

    def _remember(self, requests: dict[int, float]) -> None:
        self._requests |= requests
        for request in list(self._requests)[: max(0, len(self._requests) - _MOST)]:
            del self._requests[request]

    def _settle(self) -> None:
        """Attribute the energy of every interval for which it is known what ran."""
        while self._intervals and self._intervals[0].ended <= self._known_until:
            one = self._intervals.popleft()
            while self._steps and self._steps[0].ended <= one.began:
                self._steps.popleft()
            self._attribute(one)
        while self._steps and self._last and self._steps[0].ended < self._last[0] - _GAP:
            self._steps.popleft()

    def _attribute(self, interval: _Interval) -> None:
        overlaps = list[tuple[_Step, float]]()
        for step in self._steps:
            if step.began >= interval.ended:
                break
            overlaps.append((step, min(step.ended, interval.ended) - max(step.began, interval.began)))
        seconds, computed = interval.ended - interval.began, sum(overlap for _, overlap in overlaps)
        if not computed:
            self._idle.add(interval.joules, seconds)
            self.joules["idle"] += interval.joules
            return
        idle = min(interval.joules, (self.idle_watts or 0.0) * seconds)
        self.joules["idle"] += idle
        self._computing.add(interval.joules - idle, computed)
        for step, overlap in overlaps:
            self._charge(step, (interval.joules - idle) * overlap / computed)

    def _charge(self, step: _Step, joules: float) -> None:
        for part in step.parts:
            self.joules[part.phase] += joules * part.share
            if part.request in self._requests:
                self._requests[part.request] += joules * part.share
            if part.client:
                self.clients[part.client] += joules * part.share


class _Mean:
    """Mean power in watts; the weight of a value decays exponentially with time."""

    def __init__(self) -> None:
        self._joules = self._seconds = 0.0

    def add(self, joules: float, seconds: float) -> None:
        kept = math.exp(-seconds / _MEMORY)
        self._joules, self._seconds = kept * self._joules + joules, kept * self._seconds + seconds

    @property
    def value(self) -> float | None:
        return self._joules / self._seconds if self._seconds else None
