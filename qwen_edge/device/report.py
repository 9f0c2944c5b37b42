"""The state of the device as reported by /v1/device, /metrics and `qwen-edge status`."""

from __future__ import annotations

from typing import Literal

import msgspec

from qwen_edge.device.energy.accounts import Energy
from qwen_edge.device.governor.decision import Cause
from qwen_edge.device.telemetry import Telemetry

Reason = Literal["none", "heat", "watts", "battery", "no_telemetry", "no_sensors"]
"""Why the duty is below 1, for programs: `none` if it is not. `no_telemetry`: the sensors are silent. `no_sensors`: the
device has none, and nothing is governed."""


_REASONS: dict[Cause, Reason] = {
    "": "none",
    "heat": "heat",
    "watts": "watts",
    "battery": "battery",
    "no telemetry": "no_telemetry",
}


class Governed(msgspec.Struct, frozen=True):
    """The governor's decision. `duty` is allowed now; over the last 30 s `duty_asked` was allowed and `duty_ran` was
    measured (both None if there was no work). `because`: the cause of a duty below 1 in words, `reason`: as a code.
    `level` is "unknown" without sensors. `target` and `pause` are in Celsius, `retry_after` in seconds."""

    level: str
    duty: float
    duty_asked: float | None
    duty_ran: float | None
    because: str
    reason: Reason
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


def reason_of(because: Cause, *, governs: bool) -> Reason:
    """The code of the governor's cause. `governs`: whether the device has sensors."""
    return _REASONS[because] if governs else "no_sensors"
