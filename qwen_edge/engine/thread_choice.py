"""How many threads compute: all that are allowed, or fewer while other programs compute, if that is quicker.

llama.cpp's threads wait for each other some thousand times a step. If another program has the core of one of them, all
wait. With one thread less, every thread has a core of its own. Whether this is quicker depends on the device, the other
programs and the kernel, so it is tried and measured.
"""

from __future__ import annotations

from dataclasses import dataclass

_CONTENDED = 500.0  # times a second that any core is taken away: up to 100 alone, 900 and more beside another program
_MEASURED, _STEPS = 0.2, 2  # seconds of computing, and steps, after which a number of threads is judged
# Fewer threads are better if they take at most this share of the time. Where a thread has no core of its own, they take
# a quarter to a half; smaller gains are chance: steps beside long prompts are slower than the cost model's, by depth.
_BETTER, _BETTER_WITH_MORE = 0.6, 0.9
_AGAIN, _LONGEST = 2.0, 10.0  # seconds from one try to the next: twice as long after each that brought nothing
_SHARE = 10.0  # times as long as a try that brought nothing took: the time to the next one, at least
_FORGET = 10.0  # seconds without a step, after which other programs may well have ended


@dataclass
class _Measurement:
    """Steps with one number of threads: how long they took, how long they usually take, and how often a core was taken
    away."""

    seconds: float = 0.0
    usual: float = 0.0
    taken: float = 0.0
    steps: int = 0

    @property
    def is_enough(self) -> bool:
        return self.seconds >= _MEASURED and self.steps >= _STEPS and self.usual > 0

    @property
    def slowness(self) -> float:
        return self.seconds / self.usual


class ThreadChoice:
    """`count` is the number of threads for the next step, from 1 to `most`. Pure; used by the engine's thread."""

    def __init__(self, most: int) -> None:
        self._all = self._most = self.count = most
        self._measured = _Measurement()
        self._before: tuple[int, float] | None = None  # during a try: the number of threads before it, and its slowness
        self._was_contended = False
        self._goes_down, self._stride = True, 1  # the next try, while other programs compute
        self._goes_to_all = True  # the next try of more threads: of all of them, or of one more
        self._wait, self._next, self._last = _AGAIN, 0.0, 0.0

    def allow(self, most: int) -> None:
        """From now on, at most this many threads may compute."""
        if most != self._most:
            self._most = most
            self._begin_anew()

    def begin(self, now: float) -> None:
        """A step begins at the time `now`. After a rest, it has all threads."""
        if now - self._last > _FORGET:
            self._begin_anew()
        self._last = now

    def ran(self, seconds: float, usual: float, taken: float, now: float) -> None:
        """The step with `count` threads took `seconds`, and ended at the time `now`. `usual`: what a step of its size
        takes, in any unit. `taken`: how often other programs took a core away during the step, divided by the number of
        cores."""
        self._last = now
        measured = self._measured
        measured.seconds, measured.usual = measured.seconds + seconds, measured.usual + usual
        measured.taken, measured.steps = measured.taken + taken, measured.steps + 1
        if measured.is_enough:
            self._measured = _Measurement()
            self._judge(measured, now)

    def _judge(self, measured: _Measurement, now: float) -> None:
        """`count` threads have been measured: end the try if this was one, or begin one if it is time for it."""
        contended = measured.taken * self._all > _CONTENDED * measured.seconds
        if self._before:
            count, slowness = self._before
            self._before = None
            if self._is_kept(measured.slowness, count, slowness):
                self._stride, self._goes_to_all = 1, True
                self._wait, self._next = _AGAIN, now + _AGAIN
            else:
                self._turn(count)
                self._next = now + max(self._wait, _SHARE * measured.seconds)
        elif now >= self._next and (step := self._step(contended and self._was_contended)):
            self._before = self.count, measured.slowness
            self.count += step
        self._was_contended = contended  # twice: the first time, the other program may just have begun

    def _is_kept(self, slowness: float, before_count: int, before: float) -> bool:
        """Whether the number of threads that was tried stays: all threads unless fewer are better, others if they are
        better. Decoding may gain little from the last threads, and prompts, which come next, gain much."""
        if self.count == self._most:
            return _BETTER * slowness < before
        return slowness <= (_BETTER_WITH_MORE if self.count > before_count else _BETTER) * before

    def _turn(self, count: int) -> None:
        """The try was no better than `count` threads. Next time, try far fewer, where one less was too many still for
        the free cores; after that, more."""
        tried, self.count = self.count, count
        if 1 < tried < count:
            self._stride *= 2
            return
        if tried > count:
            self._goes_to_all = not self._goes_to_all
        self._stride, self._goes_down = 1, tried > count
        self._wait = min(_LONGEST, 2 * self._wait)

    def _step(self, contended: bool) -> int:
        """By how many threads the next try differs. Fewer are tried only while other programs compute."""
        down, up = contended and self.count > 1, self.count < self._most
        if down and (self._goes_down or not up):
            return -min(self._stride, self.count - 1)
        return (self._most - self.count if self._goes_to_all else 1) if up else 0

    def _begin_anew(self) -> None:
        self.count, self._measured, self._before = self._most, _Measurement(), None
        self._was_contended, self._goes_down, self._goes_to_all, self._stride = False, True, True, 1
        self._wait, self._next = _AGAIN, 0.0
