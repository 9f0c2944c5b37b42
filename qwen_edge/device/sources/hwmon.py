"""Where a PC is hot: thermal zones, and what its processor tells of itself (Documentation/hwmon/coretemp.rst,
k10temp.rst and sysfs-interface.rst in the kernel's sources)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qwen_edge.device.sources.files import glob_numbered, read_word
from qwen_edge.device.sources.thermal_zones import Zone, find_zones, read_trip
from qwen_edge.device.telemetry import Trips

_CHIPS = re.compile(r"coretemp|k10temp|zenpower")
# Each core has one, too, but what counts is the package. AMD's Tccd are parts of it.
_LABELS = re.compile(r"package id \d+|tctl|tdie|", re.IGNORECASE)

# The best witness of how hot the processor is comes first; Tctl may have an offset, which Tdie has not.
_PROCESSOR_SENSORS = (
    r"package id \d+",
    r"tdie",
    r"tctl|k10temp|zenpower",
    r"x86_pkg_temp( \d+)?",
    r"cpu.*",
    r"tcpu( \d+)?",
    r"acpitz( \d+)?",
)
# no computing makes these hot, or they are no place at all; a radio that is switched off does not answer
_ELSEWHERE = re.compile(r"wifi|ath\d|int3400|pch|bat|charge|nvme|ambient|skin")


def find_sensors(root: Path) -> dict[str, Zone]:
    """Zones by their type; the processor's own temperatures by label or, without one, by the chip's name."""
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
    """Those of these places that tell how hot the processor is; where none is known to, all of them."""
    known = list(names)
    for witness in _PROCESSOR_SENSORS:
        if chosen := [name for name in known if re.fullmatch(witness, name)]:
            return chosen
    return known
