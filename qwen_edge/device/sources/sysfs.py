"""A Jetson's telemetry from /sys and /proc: needs no root, no group and no other program.

Thermal zones, rails, clocks and fan are where NVIDIA's Linux for Tegra 35 and later has them. The files are searched
for once, and again when some have gone; a reading is then fifty small files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qwen_edge.device.sources.board import Fan, PowerMode, power_events
from qwen_edge.device.sources.clocks import JetsonClocks
from qwen_edge.device.sources.files import Counters, FileSnapshot, read_word
from qwen_edge.device.sources.machine import Machine
from qwen_edge.device.sources.rails import (
    Rail,
    board_watts,
    find_rails,
    over_current,
    partial_rails,
    rail_watts,
    total_rails,
)
from qwen_edge.device.sources.thermal_zones import chip_trips, find_zones
from qwen_edge.device.telemetry import Telemetry, TelemetryError


class Sysfs:
    """A source. Used by one thread; has nothing to close."""

    name = "sysfs"

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._machine = Machine(root, find_zones)
        self._rails: dict[str, Rail] = {}
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
            self._machine.search()
            self._search()
        at, snapshot = self._clock(), FileSnapshot()  # before reading: a hanging sensor makes all of it old
        machine, rails = self._machine.read(snapshot), rail_watts(snapshot, self._rails)
        fan, turns = self._fan.read(snapshot)
        currents, events = over_current(snapshot, self._rails), self._events.increased(snapshot)
        clocks, load = self._clocks.read(snapshot), self._clocks.gpu_load(snapshot)
        self._gone = snapshot.gone
        temperatures = machine.temperatures
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
            clocks=clocks | machine.clocks,
            gpu_load=load,
            cpu_load=machine.cpu_load,
            memory_used=machine.memory_used,
            memory_total=machine.memory_total,
            fan=fan,
            fan_rpm=turns,
            mode=self._mode.read(),
            throttled=(*machine.throttled, *currents, *events),
            missing=tuple(snapshot.missing),
        )

    def watts(self) -> float | None:
        """The power of the whole board: two files on most boards."""
        return board_watts(rail_watts(FileSnapshot(), {name: self._rails[name] for name in total_rails(self._rails)}))

    def close(self) -> None:
        pass

    def _search(self) -> None:
        """Find what only a Jetson has. A rail that has gone stays on the list and counts as missing."""
        self._rails |= find_rails(self._root)
        self._events.files |= power_events(self._root)
        self._clocks = JetsonClocks(self._root)
        self._fan = Fan(self._root)
        self._trips = chip_trips(self._machine.zones)


def _is_tegra(root: Path) -> bool:
    compatible = read_word(root / "proc/device-tree/compatible")
    return "nvidia,tegra" in compatible or (root / "etc/nv_tegra_release").exists()
