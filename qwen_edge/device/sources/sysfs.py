"""A Jetson's telemetry from /sys and /proc: needs no root, no group and no other program.

Thermal zones, rails, clocks and fan are where NVIDIA's Linux for Tegra 35 and later has them. The files are searched
for once, and again when some have gone; a reading is then fifty small files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qwen_edge.device.sources.board import Fan, PowerMode, power_events
from qwen_edge.device.sources.clocks import JetsonClocks, ProcessorClock
from qwen_edge.device.sources.files import Counters, FileSnapshot, read_word
from qwen_edge.device.sources.rails import (
    Rail,
    board_watts,
    find_rails,
    over_current,
    partial_rails,
    rail_watts,
    total_rails,
)
from qwen_edge.device.sources.thermal_zones import (
    Zone,
    active_cooling,
    chip_trips,
    find_cooling_devices,
    find_zones,
    read_celsius,
)
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
        """Whether this is a Jetson whose sensors can be read."""
        zones = find_zones(root)
        return bool("tj" in zones or find_rails(root) or (zones and _is_tegra(root)))

    def read(self) -> Telemetry:
        """Read all sensors, in a few milliseconds. Raises TelemetryError without any temperature and power."""
        if self._gone:
            self._search()
        snapshot, at = (
            FileSnapshot(),
            self._clock(),
        )  # before reading: a hanging sensor makes all of it old
        temperatures, rails = read_celsius(snapshot, self._zones), rail_watts(snapshot, self._rails)
        processor = self._processor.read(snapshot)
        fan, turns = self._fan.read(snapshot)
        used, total = memory_bytes(self._root)
        throttled = [
            *active_cooling(snapshot, self._cooling_devices),
            *over_current(snapshot, self._rails),
            *self._events.increased(snapshot),
        ]
        clocks = self._clocks.read(snapshot) | ({"cpu": processor} if processor else {})
        load = self._clocks.gpu_load(snapshot)
        self._gone = snapshot.gone
        if not temperatures and not rails:
            raise TelemetryError(
                f"No sensor of this board answers ({'; '.join(snapshot.missing[:3]) or 'all are off'})."
            )
        return Telemetry(
            source=self.name,
            at=at,
            temperatures=temperatures,
            tj=temperatures.get("tj", max(temperatures.values(), default=None)),
            trips=self._trips,
            rails=partial_rails(rails),
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
            missing=tuple(snapshot.missing),
        )

    def watts(self) -> float | None:
        """The power of the whole board: two files on most boards."""
        return board_watts(rail_watts(FileSnapshot(), {name: self._rails[name] for name in total_rails(self._rails)}))

    def close(self) -> None:
        pass

    def _search(self) -> None:
        """Find the files. A sensor that has gone stays on the list and counts as missing."""
        self._zones |= find_zones(self._root)
        self._rails |= find_rails(self._root)
        self._events.files |= power_events(self._root)
        self._cooling_devices = find_cooling_devices(self._root)
        self._processor = ProcessorClock(self._root)
        self._clocks = JetsonClocks(self._root)
        self._fan = Fan(self._root)
        self._trips = chip_trips(self._zones)


def _is_tegra(root: Path) -> bool:
    compatible = read_word(root / "proc/device-tree/compatible")
    return "nvidia,tegra" in compatible or (root / "etc/nv_tegra_release").exists()
