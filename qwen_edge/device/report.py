"""The state of the device as reported by /v1/device, /metrics and `qwen-edge status`."""

from __future__ import annotations

import msgspec

from qwen_edge.device.energy.accounts import Energy
from qwen_edge.device.telemetry import Telemetry


class Governed(msgspec.Struct, frozen=True):
    """The governor's decision. `duty` is allowed now; over the last 30 s `duty_asked` was allowed and `duty_ran` was
    measured (both None if there was no work). `level` is "unknown" without sensors. `target` and `pause` are in
    Celsius, `retry_after` in seconds."""

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
    """The device now. `age`: seconds since the telemetry was read. `trouble`: why no newer telemetry could be read."""

    source: str
    trouble: str | None
    age: float | None
    telemetry: Telemetry | None
    governor: Governed
    energy: Energy | None
    tokens_per_second: float
    sequences: int
    pending: int
