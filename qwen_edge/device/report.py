"""The device as it is told to people and programs: /v1/device, /metrics, `qwen-edge status`."""

from __future__ import annotations

import msgspec

from qwen_edge.device.energy.accounts import Energy
from qwen_edge.device.telemetry import Telemetry


class Governed(msgspec.Struct, frozen=True):
    """What the governor has decided: `duty` is allowed now. Over the last half minute `duty_asked` was, and `duty_ran`
    was measured (None where there was nothing to do). `level` is unknown without sensors. Celsius, seconds."""

    level: str
    duty: float
    duty_asked: float | None
    duty_ran: float | None
    because: str
    target: float
    pause: float
    refused: tuple[str, ...]
    retry_after: float


class Report(msgspec.Struct, frozen=True):
    """The device as it is now. `age` are seconds since it was read, `trouble` is why not more lately."""

    source: str
    trouble: str | None
    age: float | None
    telemetry: Telemetry | None
    governor: Governed
    energy: Energy | None
    tokens_per_second: float
    sequences: int
    pending: int
