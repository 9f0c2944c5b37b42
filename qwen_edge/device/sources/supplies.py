"""The power supplies of a PC: mains and batteries (Documentation/ABI/testing/sysfs-class-power in the kernel's
sources)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_int, read_word
from qwen_edge.device.telemetry import Battery

_MOST_MICRO = 500_000_000  # microvolts, microamperes, microwatts


@dataclass(frozen=True)
class Supply:
    """Whether mains is connected, the charge of the batteries, and the watts they deliver while discharging. None: not
    reported."""

    mains: bool | None = None
    battery: Battery | None = None
    watts: float | None = None


class Supplies:
    """The supplies of the machine, not of its mouse. A battery may be removed and inserted again."""

    def __init__(self, root: Path) -> None:
        folders = glob_numbered(root / "sys/class/power_supply", "*")
        kinds = [(read_word(folder / "type"), folder) for folder in folders if read_word(folder / "scope") != "Device"]
        self.batteries = [folder for kind, folder in kinds if kind == "Battery"]
        # a laptop charged by USB-C may have no other supply
        mains = [folder for kind, folder in kinds if kind == "Mains"]
        self._mains = mains or [folder for kind, folder in kinds if kind == "USB"]

    def read(self, snapshot: FileSnapshot) -> Supply:
        plugs = [snapshot.read_number(f"{folder.name} online", folder / "online", 0, 2) for folder in self._mains]
        known = [bool(plug) for plug in plugs if plug is not None]
        mains = any(known) if known else None
        giving = [folder for folder in self.batteries if read_word(folder / "status") == "Discharging"]
        powers = [_watts(snapshot, folder) for folder in giving]
        whole = [power for power in powers if power is not None]
        level = self._level(snapshot)
        battery = None if level is None else Battery(level, bool(giving))
        return Supply(mains, battery, sum(whole) if whole and len(whole) == len(powers) else None)

    def _level(self, snapshot: FileSnapshot) -> float | None:
        """The charge of all batteries together, 0..1, weighted by capacity where every battery reports it."""
        levels = [
            (folder, snapshot.read_number(f"{folder.name} level", folder / "capacity", 0, 100))
            for folder in self.batteries
        ]
        known = [(level, _capacity(folder)) for folder, level in levels if level is not None]
        if not known:
            return None
        sizes = [size or 0 for _, size in known] if all(size for _, size in known) else [1] * len(known)
        return sum(level * size for (level, _), size in zip(known, sizes, strict=True)) / sum(sizes) / 100


def _capacity(folder: Path) -> int | None:
    return read_int(folder / "energy_full") or read_int(folder / "charge_full")


def _watts(snapshot: FileSnapshot, folder: Path) -> float | None:
    """Some drivers report power, others current and voltage, in millionths; some have a negative sign."""
    if (folder / "power_now").exists():
        power = snapshot.read_number(f"{folder.name} power", folder / "power_now", -_MOST_MICRO, _MOST_MICRO)
        return abs(power) / 1_000_000 if power else None
    current = snapshot.read_number(f"{folder.name} current", folder / "current_now", -_MOST_MICRO, _MOST_MICRO)
    voltage = snapshot.read_number(f"{folder.name} voltage", folder / "voltage_now", 1, _MOST_MICRO)
    return abs(current) * voltage / 1e12 if current and voltage else None
