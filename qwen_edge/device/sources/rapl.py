"""The power of a PC's processor, from RAPL's energy counters, which wrap around
(Documentation/power/powercap/powercap.rst in the kernel's sources)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_int, read_word

_LEAST_SECONDS = 0.01  # the counter advances every millisecond: over a shorter time the power is mostly rounding
_MOST_WATTS = 10_000
_DENIED = (
    "only root may read energy_uj, as it reveals more than power (CVE-2020-8694); "
    "to let every user read it until the next reboot: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
)


@dataclass
class _Package:
    """One socket: its counter in microjoules, the value at which it wraps (`range`), and the last reading, at `at`
    (seconds)."""

    file: Path
    range: int
    before: int | None = None
    at: float = 0.0
    watts: float | None = None


class Rapl:
    """The mean power of all sockets between two calls of `watts`."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        folders = glob_numbered(root / "sys/class/powercap", "intel-rapl:*")
        self._packages = [
            _Package(folder / "energy_uj", read_int(folder / "max_energy_range_uj") or 0)
            for folder in folders
            if read_word(folder / "name").startswith("package")
        ]
        self.watts(FileSnapshot())

    def __bool__(self) -> bool:
        return bool(self._packages)

    def watts(self, snapshot: FileSnapshot) -> float | None:
        """Watts; None on the first call, and if a counter cannot be read."""
        powers = [self._read(snapshot, package) for package in self._packages]
        known = [power for power in powers if power is not None]
        return sum(known) if known and len(known) == len(powers) else None

    def _read(self, snapshot: FileSnapshot, package: _Package) -> float | None:
        now, before = self._clock(), package.before
        if before is not None and now - package.at < _LEAST_SECONDS:
            return package.watts
        most = package.range or 2**63
        package.before = snapshot.read_number("processor power", package.file, 0, most, _DENIED)
        seconds, package.at, package.watts = now - package.at, now, None
        if before is not None and package.before is not None:
            watts = counter_difference(before, package.before, package.range) / 1_000_000 / seconds
            package.watts = watts if watts <= _MOST_WATTS else None
        return package.watts


def counter_difference(before: int, after: int, most: int) -> int:
    """The increase between two readings of a counter that goes from 0 to `most` and has wrapped at most once."""
    return after - before if after >= before else after + most - before
