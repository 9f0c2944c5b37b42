"""Joules by step, request, client and phase, from samples of the board's power.

Between two samples power is taken to follow a straight line (the trapezoidal rule), unless they are means, as of a
processor that counts its own joules: these are exact. What the board draws anyway, the idle floor, is kept apart; what
it draws beyond that belongs to the steps that ran, by their time, and in a step to the requests in it, by their tokens.
So all parts together are the whole integral.

A step is told when it has ended, which may be seconds after samples of its time: so what was drawn is settled only when
it is known what ran. Pure; used on the daemon's event loop.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from qwen_edge.protocol.messages import StepStats

# ahead is what is computed for turns to come; idle is the floor, also while steps run
Phase = Literal["prefill", "decode", "ahead", "idle"]
PHASES: tuple[Phase, ...] = get_args(Phase)

_GAP = 10.0  # seconds between two samples, beyond which nothing is known of what was drawn
_MEMORY = 20.0  # seconds over which the floor is averaged, and what computing takes
_MOST = 512  # requests that are remembered: those that were broken off are never asked for


@dataclass(frozen=True)
class _Part:
    """What a request had of a step."""

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
class _Stretch:
    """Between two samples."""

    began: float
    ended: float
    joules: float


class Ledger:
    """Steps come in the order of their times (the monotonic clock), and so do samples. `joules` are by phase; those of
    `clients` are without the floor, which nobody has asked for."""

    def __init__(self) -> None:
        self.joules: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.clients = defaultdict[str, float](float)
        self._idle, self._computing = _Mean(), _Mean()  # watts without work, and above these while a step runs
        self._last: tuple[float, float] | None = None
        self._told = -math.inf  # until then it is known what ran
        self._stretches, self._steps = deque[_Stretch](), deque[_Step]()  # not settled yet
        self._requests: dict[int, float] = {}

    @property
    def floor(self) -> float | None:
        """Watts that are drawn when nothing is computed; None if it has never been so."""
        return self._idle.value

    def add_step(self, step: StepStats, client_of: Callable[[int], str]) -> bool:
        """A step has run; `whose` tells the client of a request. False if nothing is measured at the time."""
        ended = step.began + step.seconds
        self._told = max(self._told, ended)
        if self._last is None or step.began > self._last[0] + _GAP:
            self._remember({share.id: math.nan for share in step.shares})  # of these, all will never be known
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
        """Until then nothing ran but what has been told."""
        self._told = max(self._told, until)
        self._settle()

    def add_power(self, at: float, watts: float, *, mean: bool = False) -> None:
        """A sample: the power of this moment, or the mean since the last one. One that is no later tells nothing."""
        last = self._last
        if last is not None and at <= last[0]:
            return
        self._last = (at, watts)
        if last is not None and at - last[0] <= _GAP:
            held = watts if mean else (last[1] + watts) / 2
            self._stretches.append(_Stretch(last[0], at, held * (at - last[0])))
        self._settle()

    def finish_request(self, request: int) -> float | None:
        """The joules of a request that has ended; what has not been sampled yet is estimated. None if they are not
        known: there are no samples of its time."""
        settled = self._requests.pop(request, None)
        if settled is None or math.isnan(settled) or self._last is None or self._told > self._last[0] + _GAP:
            return None
        since = self._stretches[0].began if self._stretches else self._last[0]
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
        """What was drawn while it is known what ran."""
        while self._stretches and self._stretches[0].ended <= self._told:
            one = self._stretches.popleft()
            while self._steps and self._steps[0].ended <= one.began:
                self._steps.popleft()
            self._share_out(one)
        while self._steps and self._last and self._steps[0].ended < self._last[0] - _GAP:
            self._steps.popleft()

    def _share_out(self, stretch: _Stretch) -> None:
        overlaps = list[tuple[_Step, float]]()
        for step in self._steps:
            if step.began >= stretch.ended:
                break
            overlaps.append((step, min(step.ended, stretch.ended) - max(step.began, stretch.began)))
        seconds, computed = stretch.ended - stretch.began, sum(overlap for _, overlap in overlaps)
        if not computed:
            self._idle.add(stretch.joules, seconds)
            self.joules["idle"] += stretch.joules
            return
        idle = min(stretch.joules, (self.floor or 0.0) * seconds)
        self.joules["idle"] += idle
        self._computing.add(stretch.joules - idle, computed)
        for step, overlap in overlaps:
            self._charge(step, (stretch.joules - idle) * overlap / computed)

    def _charge(self, step: _Step, joules: float) -> None:
        for part in step.parts:
            self.joules[part.phase] += joules * part.share
            if part.request in self._requests:
                self._requests[part.request] += joules * part.share
            if part.client:
                self.clients[part.client] += joules * part.share


class _Mean:
    """Of watts, over time; what is long ago counts less."""

    def __init__(self) -> None:
        self._joules = self._seconds = 0.0

    def add(self, joules: float, seconds: float) -> None:
        kept = math.exp(-seconds / _MEMORY)
        self._joules, self._seconds = kept * self._joules + joules, kept * self._seconds + seconds

    @property
    def value(self) -> float | None:
        return self._joules / self._seconds if self._seconds else None
