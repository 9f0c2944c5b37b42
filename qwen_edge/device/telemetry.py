"""Telemetry: the readings of a device at one moment, in one form for every source.

Units: Celsius, watts, hertz, bytes, seconds; loads, levels and fans are 0..1. None, or a missing key: the source does
not know. Read in a thread (`sources/reader.py`); the governor and the energy accounts use it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from qwen_edge.core.errors import UserError


class TelemetryError(UserError):
    """A source cannot be read now; the text says what to do. It may work later: the source itself tries again in
    `again` seconds; 0 if it has just tried."""

    def __init__(self, reason: str, again: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again


class Clock(msgspec.Struct, frozen=True):
    """The clock of a unit, and the highest clock allowed now (`cap`), which a power mode or heat may have lowered."""

    hertz: float
    cap: float | None = None


class Battery(msgspec.Struct, frozen=True):
    """The charge of the battery, and whether the device runs on it now."""

    level: float
    discharging: bool


class Trips(msgspec.Struct, frozen=True):
    """The temperatures (Celsius) at which the system protects itself: it lowers clocks (`passive`), lowers them further
    (`hot`), and switches off (`critical`)."""

    passive: float | None = None
    hot: float | None = None
    critical: float | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: time of the reading (monotonic clock). `tj`: the hottest relevant temperature. `watts`: the power of the
    whole board; with `mean`, the mean since the last reading instead of the value of the moment. `rails`: parts of it.
    `mode`: nvpmodel's name. `throttled`: why hardware or kernel limit a clock now, a few words each. `missing`: sensors
    that should be there and did not answer, each with the reason."""

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
    """A source of telemetry. Used by one thread, which it blocks for as long as a sensor hangs."""

    @property
    def name(self) -> str:
        """The name as in the settings: sysfs, jtop, laptop, trace."""

    def read(self) -> Telemetry:
        """Read all sensors now. Raises TelemetryError."""

    def watts(self) -> float | None:
        """Only the board's power, as `Telemetry.watts`, for reading between two samples; None where that would take
        too long."""

    def close(self) -> None:
        """Release files and processes. May be called by any thread, also while another one reads."""
