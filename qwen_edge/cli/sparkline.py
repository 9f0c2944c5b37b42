"""A value in block characters: its last minutes as one line, a share as a bar. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_HOLDS = 15.0  # seconds for which a value holds if no other follows; the daemon's own history has one every 5 s

Value = float | None


class Trail:
    """Values by name over the last `seconds`, in the order of their times (wall clock). None: not known then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._samples = deque[tuple[float, Mapping[str, Value]]]()

    def add(self, at: float, values: Mapping[str, Value]) -> None:
        """Add the values of the time `at`. Values before the last ones are left out: the clock was set back."""
        if self._samples and at <= self._samples[-1][0]:
            return
        self._samples.append((at, values))
        while self._samples[0][0] < at - self.seconds:
            self._samples.popleft()

    def columns(self, name: str, width: int, now: float) -> list[Value]:
        """The value `name` in `width` equal parts of the time up to `now`: the mean of what was known in this part, or
        the value before it, if that still holds; None is a gap."""
        seconds = self.seconds / width
        ends = [now - self.seconds + (part + 1) * seconds for part in range(width)]
        samples = [(at, values.get(name)) for at, values in self._samples if at <= now]
        found, passed = list[Value](), 0
        for end in ends:
            begin = passed
            while passed < len(samples) and samples[passed][0] <= end:
                passed += 1
            inside = [value for _, value in samples[begin:passed]]
            found.append(_mean(inside) if inside else _held(samples[:passed][-1:], end - seconds))
        return found


def sparkline(values: Sequence[Value], low: float, high: float) -> str:
    """A character a value, between `low` and `high`; a space where the value is not known."""
    return "".join(" " if value is None else _block((value - low) / (high - low)) for value in values)


def bar(share: float, width: int, mark: float | None = None) -> str:
    """A share (0 to 1; beyond, the end of the bar) in `width` characters, with a mark at another share."""
    full = round(width * min(1.0, max(0.0, share)))
    drawn = "█" * full + "░" * (width - full)
    at = None if mark is None else min(width - 1, round(width * mark))
    return drawn if at is None else f"{drawn[:at]}│{drawn[at + 1 :]}"


def _block(height: float) -> str:
    return _BLOCKS[round(min(1.0, max(0.0, height)) * (len(_BLOCKS) - 1))]


def _mean(values: Sequence[Value]) -> Value:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _held(last: Sequence[tuple[float, Value]], since: float) -> Value:
    """The value of the last sample, if it still holds at the time `since`."""
    return last[0][1] if last and since - last[0][0] <= _HOLDS else None
