"""A Jetson by what its kernel shows to everybody: no root, no group, no other program.

Zones, rails, clocks and fan are where NVIDIA's Linux for Tegra 35 and later have them. Where the files lie is found out
once, and again when some are gone; then a reading is fifty small files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qwen_edge.device.sources.board import Fan, PowerMode, power_events
from qwen_edge.device.sources.clocks import JetsonClocks, ProcessorClock
from qwen_edge.device.sources.files import Counters, FileSnapshot, word
from qwen_edge.device.sources.rails import Rail, board_watts, find_rails, over_current, parts, rail_watts, totals
from qwen_edge.device.sources.thermal_zones import Zone, braking, celsius, chip_trips, find_brakes, find_zones
from qwen_edge.device.sources.usage import ProcessorLoad, memory_bytes
from qwen_edge.device.telemetry import Telemetry, TelemetryError


class Sysfs:
    """A source. Used by one thread; has nothing to close."""

    name = "sysfs"

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._zones: dict[str, Zone] = {}
        self._rails: dict[str, Rail] = {}
        self._load = ProcessorLoad(root)
        self._mode = PowerMode(root)
        self._events = Counters({})
        self._gone = False
        self._search()

    @staticmethod
    def found(root: Path = Path("/")) -> bool:
        """Is this a Jetson whose sensors can be read?"""
        zones = find_zones(root)
        return bool("tj" in zones or find_rails(root) or (zones and _is_tegra(root)))

    def read(self) -> Telemetry:
        """All of it, in a few milliseconds. Raises TelemetryError if neither a temperature nor a power is to be had."""
        if self._gone:
            self._search()
        look, at = FileSnapshot(), self._clock()  # a sensor that hangs makes all of it old
        temperatures, rails = celsius(look, self._zones), rail_watts(look, self._rails)
        processor = self._processor.read(look)
        fan, turns = self._fan.read(look)
        used, total = memory_bytes(self._root)
        throttled = [*braking(look, self._brakes), *over_current(look, self._rails), *self._events.risen(look)]
        clocks = self._clocks.read(look) | ({"cpu": processor} if processor else {})
        load = self._clocks.gpu_load(look)
        self._gone = look.gone
        if not temperatures and not rails:
            raise TelemetryError(f"No sensor of this board answers ({'; '.join(look.missing[:3]) or 'all are off'}).")
        return Telemetry(
            source=self.name,
            at=at,
            temperatures=temperatures,
            tj=temperatures.get("tj", max(temperatures.values(), default=None)),
            trips=self._trips,
            rails=parts(rails),
            watts=board_watts(rails),
            clocks=clocks,
            gpu_load=load,
            cpu_load=self._load.read(),
            memory_used=used,
            memory_total=total,
            fan=fan,
            fan_rpm=turns,
            mode=self._mode.read(),
            throttled=tuple(throttled),
            missing=tuple(look.missing),
        )

    def watts(self) -> float | None:
        """The whole board's power: two files on most boards."""
        return board_watts(rail_watts(FileSnapshot(), {name: self._rails[name] for name in totals(self._rails)}))

    def close(self) -> None:
        pass

    def _search(self) -> None:
        """Find the files. What was here once and is gone stays on the list, and so among what is missing."""
        self._zones |= find_zones(self._root)
        self._rails |= find_rails(self._root)
        self._events.files |= power_events(self._root)
        self._brakes = find_brakes(self._root)
        self._processor = ProcessorClock(self._root)
        self._clocks = JetsonClocks(self._root)
        self._fan = Fan(self._root)
        self._trips = chip_trips(self._zones)


def _is_tegra(root: Path) -> bool:
    compatible = word(root / "proc/device-tree/compatible")
    return "nvidia,tegra" in compatible or (root / "etc/nv_tegra_release").exists()
