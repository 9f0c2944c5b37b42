"""A Jetson's power rails: its INA3221 chips measure voltage and current of up to three rails each
(Documentation/hwmon/ina3221.rst in the kernel's sources)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_word

_MOST_MILLIVOLTS = 26_000  # the chip's range
_MOST_MILLIAMPERES = 200_000  # of its shunt's voltage, with the smallest shunt in use
# Sets of rails that add up to the power of the whole board: Orin Nano, Orin NX and Xavier NX; Nano; AGX Orin, whose
# other rails are fed by these (NVIDIA Jetson Linux Developer Guide, Platform Power and Performance)
_TOTALS = (("VDD_IN",), ("POM_5V_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
_FOLDERS = ("sys/bus/i2c/drivers/ina3221", "sys/bus/i2c/devices")


@dataclass(frozen=True)
class Rail:
    """The files of one channel: millivolts, milliamperes, and alarms, which are 1 while the current is too high."""

    voltage: Path
    current: Path
    alarms: tuple[Path, ...]


def find_rails(root: Path) -> dict[str, Rail]:
    """Rails by label. Unconnected channels (labelled "NC") and channel 7, a sum of others, are left out."""
    found: dict[str, Rail] = {}
    for folder in (hwmon for base in _FOLDERS for hwmon in glob_numbered(root / base, "*/hwmon/hwmon*")):
        if read_word(folder / "name") != "ina3221":
            continue
        for file in glob_numbered(folder, "in*_label"):
            channel, label = file.name[2:].removesuffix("_label"), read_word(file)
            if channel == "7" or not label or label.upper() == "NC" or label.startswith("sum of"):
                continue
            alarms = tuple(folder / f"curr{channel}_{kind}_alarm" for kind in ("crit", "max"))
            there = tuple(alarm for alarm in alarms if alarm.exists())
            found[label] = Rail(folder / f"in{channel}_input", folder / f"curr{channel}_input", there)
    return found


def rail_watts(snapshot: FileSnapshot, rails: Mapping[str, Rail]) -> dict[str, float]:
    """Watts of the rails that can be read now. A negative current is noise around 0 and counts as 0."""
    found = {}
    for name, rail in rails.items():
        millivolts = snapshot.read_number(f"voltage of {name}", rail.voltage, 0, _MOST_MILLIVOLTS)
        milliamperes = snapshot.read_number(f"current of {name}", rail.current, -1000, _MOST_MILLIAMPERES)
        if millivolts is not None and milliamperes is not None:
            found[name] = max(0, millivolts * milliamperes) / 1_000_000
    return found


def total_rails(names: Iterable[str]) -> tuple[str, ...]:
    """The rails that add up to the power of the whole board; () on a board that does not measure it."""
    known = set(names)
    return next((total for total in _TOTALS if known.issuperset(total)), ())


def board_watts(rails: Mapping[str, float]) -> float | None:
    """The power of the whole board in watts; None if a rail of the sum is missing, as the rest would be too low."""
    total = total_rails(rails)
    return sum(rails[name] for name in total) if total else None


def partial_rails(rails: Mapping[str, float]) -> dict[str, float]:
    """The rails without the one that measures the whole board."""
    total = total_rails(rails)
    return {name: watts for name, watts in rails.items() if (name,) != total}


def over_current(snapshot: FileSnapshot, rails: Mapping[str, Rail]) -> list[str]:
    """Rails whose current is above a limit, at which the hardware divides its clocks."""
    alarms = {
        name: [snapshot.read_number(f"alarm of {name}", file, 0, 1) for file in rail.alarms]
        for name, rail in rails.items()
    }
    return [f"over-current on {name}" for name, raised in alarms.items() if any(raised)]
