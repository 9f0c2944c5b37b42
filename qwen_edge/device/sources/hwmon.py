"""The temperature sensors of a PC: thermal zones and the processor's own (Documentation/hwmon/coretemp.rst,
k10temp.rst and sysfs-interface.rst in the kernel's sources)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qwen_edge.device.sources.files import glob_numbered, read_word
from qwen_edge.device.sources.thermal_zones import Zone, find_zones, read_trip
from qwen_edge.device.telemetry import Trips

_CHIPS = re.compile(r"coretemp|k10temp|zenpower")
# Each core has a sensor, too, but the package's is the relevant one. AMD's Tccd are parts of the package.
_LABELS = re.compile(r"package id \d+|tctl|tdie|", re.IGNORECASE)

# Sensors that show the processor's temperature, the best first. Tctl may have an offset, Tdie has none.
_PROCESSOR_SENSORS = (
    r"package id \d+",
    r"tdie",
    r"tctl|k10temp|zenpower",
    r"x86_pkg_temp( \d+)?",
    r"cpu.*",
    r"tcpu( \d+)?",
    r"acpitz( \d+)?",
)
# not heated by computing, or not a real place; a radio that is switched off does not answer
_ELSEWHERE = re.compile(r"wifi|ath\d|int3400|pch|bat|charge|nvme|ambient|skin")


def find_sensors(root: Path) -> dict[str, Zone]:
    """Thermal zones by type; the processor's own sensors by label or, without one, by the name of the chip."""
    found = {name: zone for name, zone in find_zones(root).items() if not _ELSEWHERE.search(name)}
    for folder in glob_numbered(root / "sys/class/hwmon", "hwmon*"):
        chip = read_word(folder / "name")
        for file in glob_numbered(folder, "temp*_input") if _CHIPS.fullmatch(chip) else []:
            place = file.name.removesuffix("_input")
            label = read_word(folder / f"{place}_label")
            if _LABELS.fullmatch(label):
                limits = Trips(passive=read_trip(folder / f"{place}_max"), critical=read_trip(folder / f"{place}_crit"))
                found[(label or chip).lower()] = Zone(file, limits)
    return found


def processor_sensors(names: Iterable[str]) -> list[str]:
    """Those of `names` that show the processor's temperature; all of them if none is known to."""
    known = list(names)
    for witness in _PROCESSOR_SENSORS:
        if chosen := [name for name in known if re.fullmatch(witness, name)]:
            return chosen
    return known
