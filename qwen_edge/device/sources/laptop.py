"""Telemetry of a laptop, a PC or a board other than a Jetson: processor sensors, power supplies and a graphics card.

Power is that of the processor plus that of NVIDIA cards, where it may be read; otherwise the power that the battery
delivers, which includes the whole machine with its screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_edge.device.sources.files import Counters, FileSnapshot, glob_numbered, read_word
from qwen_edge.device.sources.hwmon import find_sensors, processor_sensors
from qwen_edge.device.sources.machine import Machine
from qwen_edge.device.sources.nvml import Card, Nvidia
from qwen_edge.device.sources.rapl import Rapl
from qwen_edge.device.sources.supplies import Supplies
from qwen_edge.device.sources.thermal_zones import fill_in, lowest_trips
from qwen_edge.device.telemetry import Telemetry


class Laptop:
    """A source. Used by one thread; has nothing to close. `nvml` is the module pynvml, initialised."""

    name = "laptop"

    def __init__(
        self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic, nvml: Any | None = None
    ) -> None:
        self._root, self._clock = root, clock
        self._machine = Machine(root, find_sensors)
        self._processor_sensors: list[str] = []
        self._rapl = Rapl(root, clock)
        self._nvidia = Nvidia(nvml) if nvml else None
        self._throttles = Counters(_find_throttles(root))
        self._gone = False
        self._search()

    @staticmethod
    def found(root: Path = Path("/"), nvml: Any | None = None) -> bool:
        """Whether this machine has any sensor of heat or power. Most virtual machines have none."""
        return bool(
            nvml or processor_sensors(find_sensors(root)) or Rapl(root, time.monotonic) or Supplies(root).batteries
        )

    def read(self) -> Telemetry:
        """Read all sensors; those that do not answer are listed as missing. Never raises."""
        if self._gone:
            self._machine.search()
            self._search()
        at, snapshot = self._clock(), FileSnapshot()  # before reading: a hanging sensor makes all of it old
        machine = self._machine.read(snapshot)
        supply = self._supplies.read(snapshot)
        cards = self._nvidia.read(snapshot) if self._nvidia else {}
        package = self._rapl.watts(snapshot)
        rails = {"processor": package} | {name: card.watts for name, card in cards.items()}
        throttles = self._throttles.increased(snapshot)
        self._gone = snapshot.gone
        hottest = [machine.temperatures[name] for name in self._processor_sensors if name in machine.temperatures]
        heat = {name: float(card.celsius) for name, card in cards.items() if card.celsius is not None}
        return Telemetry(
            source=self.name,
            at=at,
            temperatures=machine.temperatures | heat,
            tj=max([*hottest, *heat.values()], default=None),
            trips=self._trips,
            rails={name: watts for name, watts in rails.items() if watts is not None},
            watts=supply.watts if package is None else _sum(package, cards),
            mean=package is not None,
            clocks=machine.clocks | {name: card.clock for name, card in cards.items() if card.clock},
            gpu_load=max((card.load for card in cards.values() if card.load is not None), default=None),
            cpu_load=machine.cpu_load,
            memory_used=machine.memory_used,
            memory_total=machine.memory_total,
            throttled=(
                *machine.throttled,
                *throttles,
                *(reason for card in cards.values() for reason in card.throttled),
            ),
            battery=supply.battery,
            mains=supply.mains,
            missing=tuple(snapshot.missing),
        )

    def watts(self) -> float | None:
        """Processor and cards. Not the battery, which updates slowly and takes long to read."""
        package = self._rapl.watts(FileSnapshot())
        cards = self._nvidia.watts(FileSnapshot()) if self._nvidia else 0.0
        return None if package is None or cards is None else package + cards

    def close(self) -> None:
        pass

    def _search(self) -> None:
        """Find the supplies, as a battery may be removed, and choose among the sensors of the machine."""
        zones = self._machine.zones
        self._supplies = Supplies(self._root)
        # chosen once: another sensor might stay cool under load
        self._processor_sensors = self._processor_sensors or processor_sensors(zones)
        cards = self._nvidia.trips if self._nvidia else []
        own = [zones[name].trips for name in self._processor_sensors]
        # trip points missing at the relevant sensors are taken from the other zones
        self._trips = fill_in(lowest_trips([*own, *cards]), lowest_trips(zone.trips for zone in zones.values()))


def _sum(package: float, cards: dict[str, Card]) -> float | None:
    powers = [card.watts for card in cards.values()]
    known = [power for power in powers if power is not None]
    return package + sum(known) if len(known) == len(powers) else None


def _find_throttles(root: Path) -> dict[str, Path]:
    """One counter a package, as all its cores show the same (Documentation/ABI/testing/sysfs-devices-system-cpu)."""
    found: dict[str, Path] = {}
    for folder in glob_numbered(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        file = folder / "thermal_throttle/package_throttle_count"
        if file.exists():
            found.setdefault(f"heat slows down package {read_word(folder / 'topology/physical_package_id') or 0}", file)
    return found
