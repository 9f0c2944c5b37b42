"""What every Linux machine shows in /sys and /proc, a Jetson or a PC: temperatures, cooling, processor and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.device.sources.clocks import ProcessorClock
from qwen_edge.device.sources.files import FileSnapshot
from qwen_edge.device.sources.thermal_zones import Zone, active_cooling, find_cooling_devices, read_celsius
from qwen_edge.device.sources.usage import ProcessorLoad, memory_bytes
from qwen_edge.device.telemetry import Clock


@dataclass(frozen=True)
class MachineReading:
    """One reading, with the names and units of Telemetry. `clocks`: the processor's, if it is known. `throttled`: the
    cooling devices that lower clocks now."""

    temperatures: dict[str, float]
    clocks: dict[str, Clock]
    cpu_load: float | None
    memory_used: int | None
    memory_total: int | None
    throttled: tuple[str, ...]


class Machine:
    """The sensors that all machines have. `zones`: by name. Used by one thread."""

    def __init__(self, root: Path, find_zones: Callable[[Path], dict[str, Zone]]) -> None:
        self._root, self._find_zones = root, find_zones
        self._load = ProcessorLoad(root)
        self.zones: dict[str, Zone] = {}
        self.search()

    def search(self) -> None:
        """Find the files. A sensor that has gone stays on the list and counts as missing."""
        self.zones |= self._find_zones(self._root)
        self._cooling_devices = find_cooling_devices(self._root)
        self._processor = ProcessorClock(self._root)

    def read(self, snapshot: FileSnapshot) -> MachineReading:
        """Read all of it; sensors that do not answer are listed in the snapshot."""
        temperatures, processor = read_celsius(snapshot, self.zones), self._processor.read(snapshot)
        used, total = memory_bytes(self._root)
        return MachineReading(
            temperatures=temperatures,
            clocks={"cpu": processor} if processor else {},
            cpu_load=self._load.read(),
            memory_used=used,
            memory_total=total,
            throttled=tuple(active_cooling(snapshot, self._cooling_devices)),
        )
