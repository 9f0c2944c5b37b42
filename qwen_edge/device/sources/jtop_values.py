"""Converts jtop's values, in milliwatts, kilohertz, kilobytes and percent (jetson-stats 7.2, jtop/jtop.py), to
`Telemetry`.

Pure; runs in the helper process. Missing and implausible values are left out. An exception of any kind
means that jtop's values have an unknown structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_edge.device.sources.rails import board_watts
from qwen_edge.device.telemetry import Clock, Telemetry, Trips

# graphics and vision units are mostly powered off, and then have no temperature
_MAY_BE_OFF = ("gpu", "cv")
_LEAST_KILOHERTZ = 10_000  # jtop reports an unknown clock as 0


def telemetry(client: Any, at: float, trips: Trips) -> Telemetry:
    """The current values of a connected `jtop.jtop`; jtop does not know `trips`."""
    heat = client.temperature
    temperatures = {name.lower(): degrees for name, zone in heat.items() if (degrees := _celsius(zone)) is not None}
    off = [name for name in heat if name.lower() not in temperatures and not name.lower().startswith(_MAY_BE_OFF)]
    rails, watts, over = _power(client.power)
    gpu: Mapping[str, Any] = next(iter(client.gpu.values()), {})
    memory = client.memory
    fan: Mapping[str, Any] = next(iter(client.fan.values()), {})
    clocks = {
        "cpu": _cpu_clock(client.cpu),
        "gpu": _clock(gpu.get("freq", {})),
        "memory": _clock(memory.get("EMC", {})),
    }
    ram = memory["RAM"]
    return Telemetry(
        source="jtop",
        at=at,
        temperatures=temperatures,
        tj=temperatures.get("tj", max(temperatures.values(), default=None)),
        trips=trips,
        rails=rails,
        watts=watts,
        clocks={name: clock for name, clock in clocks.items() if clock},
        gpu_load=_share(gpu.get("status", {}).get("load")),
        cpu_load=_cpu_load(client.cpu),
        memory_used=1024 * ram["used"],
        memory_total=1024 * ram["tot"],
        fan=_share(next(iter(fan.get("speed", [])), None)),
        fan_rpm=_number(next(iter(fan.get("rpm", [])), None), 0, 100_000),
        mode=client.nvpmodel.name if client.nvpmodel else None,
        throttled=tuple(f"over-current on {name}" for name in over),
        missing=(*(f"{name.lower()}: offline" for name in off), *_lost(rails, watts)),
    )


def _celsius(zone: Mapping[str, Any]) -> float | None:
    """jtop reports -256 for a sensor that cannot be read."""
    return _number(zone["temp"], -50, 150) if zone["online"] else None


def _power(power: Mapping[str, Any]) -> tuple[dict[str, float], float | None, list[str]]:
    """The rails in watts, the whole board in watts, and the rails whose current is above the limit of their hardware.

    jtop's total has a name only if it was measured. Otherwise it is the sum of whichever rails could be read, and is
    not used."""
    rails, whole = power.get("rail", {}), power.get("tot", {})
    read = {name: rail for name, rail in rails.items() if rail.get("online", True)}
    watts = {name: value for name, rail in read.items() if (value := _watts(rail)) is not None}
    measured = {whole["name"]: whole} if whole.get("name") else {}
    total = _watts(whole) if measured else board_watts(watts)
    over = [name for name, rail in (read | measured).items() if rail.get("curr", 0) > rail.get("crit", float("inf"))]
    return watts, total, over


def _lost(rails: Mapping[str, float], watts: float | None) -> list[str]:
    return ["board power: a rail that is part of the sum was not read"] if rails and watts is None else []


def _watts(rail: Mapping[str, Any]) -> float | None:
    milliwatts = _number(rail["power"], -1000, 1_000_000)
    return None if milliwatts is None else max(0.0, milliwatts) / 1000


def _clock(frequency: Mapping[str, Any]) -> Clock | None:
    now, most = (_number(frequency.get(key), _LEAST_KILOHERTZ, 20_000_000) for key in ("cur", "max"))
    return Clock(1000 * now, None if most is None else 1000 * most) if now else None


def _cpu_clock(cpu: Mapping[str, Any]) -> Clock | None:
    """The clock of the fastest core."""
    clocks = [clock for core in cpu["cpu"] if core["online"] and (clock := _clock(core.get("freq", {})))]
    caps = [clock.cap for clock in clocks if clock.cap is not None]
    return Clock(max(clock.hertz for clock in clocks), max(caps, default=None)) if clocks else None


def _cpu_load(cpu: Mapping[str, Any]) -> float | None:
    """The mean load of the cores. jtop's own total is wrong: it compares with the wrong earlier value."""
    idle = [core["idle"] for core in cpu["cpu"] if core["online"] and "idle" in core]
    return _share(100 - sum(idle) / len(idle)) if idle else None


def _share(percent: Any) -> float | None:
    value = _number(percent, -1, 101)
    return None if value is None else min(1.0, max(0.0, value / 100))


def _number(value: Any, low: float, high: float) -> float | None:
    return float(value) if isinstance(value, int | float) and low <= value <= high else None
