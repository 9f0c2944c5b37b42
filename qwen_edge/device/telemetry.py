"""What a board says of itself at one moment: one value, whatever it was read from.

Celsius, watts, hertz, bytes, seconds; loads, levels and fans are 0..1. None, or a key that is not there, is what the
source does not know. Read in a thread (`reader.py`), decided on by `governor.py`, accounted for by `energy.py`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from qwen_edge.core.errors import UserError


class TelemetryError(UserError):
    """A source that cannot be read now; one sentence that says what to do. Reading it again later may go well: it is
    tried again in so many seconds, 0 if it has been tried just now."""

    def __init__(self, reason: str, again: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again


class Clock(msgspec.Struct, frozen=True):
    """How fast a unit runs, and the most it may at the moment: a power mode or the heat may have lowered that."""

    hertz: float
    cap: float | None = None


class Battery(msgspec.Struct, frozen=True):
    """How full it is, and whether it is what the device runs on now."""

    level: float
    discharging: bool


class Trips(msgspec.Struct, frozen=True):
    """From which temperatures on the system does something about it: slows clocks down, slows them down hard, and
    switches off."""

    passive: float | None = None
    hot: float | None = None
    critical: float | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is when it was read, by the monotonic clock; `tj` is the hottest place that counts; `watts` is the whole
    board's power, of which `rails` are parts, with `mean` not that of the moment but the mean since it was asked for
    before; `mode` is nvpmodel's name; `throttled` are the reasons why hardware or kernel slow something down now, in a
    few words each; `missing` are the sensors that should be there and did not answer, with the reason."""

    source: str
    at: float
    temperatures: dict[str, float] = {}
    tj: float | None = None
    trips: Trips = Trips()
    rails: dict[str, float] = {}
    watts: float | None = None
    mean: bool = False
    clocks: dict[str, Clock] = {}
    gpu_load: float | None = None
    cpu_load: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    fan: float | None = None
    fan_rpm: float | None = None
    mode: str | None = None
    throttled: tuple[str, ...] = ()
    battery: Battery | None = None
    mains: bool | None = None
    missing: tuple[str, ...] = ()


class Source(Protocol):
    """Something that can be asked. Used by one thread, which it may hold up for as long as a sensor hangs."""

    @property
    def name(self) -> str:
        """As in the settings: sysfs, jtop, laptop, trace."""

    def read(self) -> Telemetry:
        """All of it, now. Raises TelemetryError."""

    def watts(self) -> float | None:
        """Only the board's power, of the kind that samples have, where that is quickly read between two of them; None
        where it is not."""

    def close(self) -> None:
        """Let go of files and processes; from any thread, also while it is being read."""
