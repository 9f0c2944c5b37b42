"""The temperature that a PC's processor tells of itself (Documentation/hwmon/coretemp.rst, k10temp.rst and
sysfs-interface.rst in the kernel's sources)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qwen_edge.device.files import numbered, word
from qwen_edge.device.telemetry import Trips
from qwen_edge.device.thermal import Zone, trip

_CHIPS = re.compile(r"coretemp|k10temp|zenpower")
# Each core has one, too, but what counts is the package. AMD's Tccd are parts of it.
_LABELS = re.compile(r"package id \d+|tctl|tdie|", re.IGNORECASE)

# The best witness of how hot the processor is comes first. Tctl may have an offset, which Tdie has not.
_WITNESSES = (
    r"package id \d+",
    r"tdie",
    r"tctl|k10temp|zenpower",
    r"x86_pkg_temp( \d+)?",
    r"cpu.*",
    r"tcpu( \d+)?",
    r"acpitz( \d+)?",
)
_ELSEWHERE = re.compile(r"iwlwifi|wifi|ath\d|int3400|pch|bat|charge|nvme|ambient|skin")


def find_processor(root: Path) -> dict[str, Zone]:
    """The temperatures of the processor's chips, by label or, without one, by the chip's name."""
    found: dict[str, Zone] = {}
    for folder in numbered(root / "sys/class/hwmon", "hwmon*"):
        chip = word(folder / "name")
        for file in numbered(folder, "temp*_input") if _CHIPS.fullmatch(chip) else []:
            place = file.name.removesuffix("_input")
            label = word(folder / f"{place}_label")
            if _LABELS.fullmatch(label):
                limits = Trips(passive=trip(folder / f"{place}_max"), critical=trip(folder / f"{place}_crit"))
                found[(label or chip).lower()] = Zone(file, limits)
    return found


def witnesses(names: Iterable[str]) -> list[str]:
    """Those of these places that tell how hot the processor is; where none is known to, all that may."""
    known = list(names)
    for witness in _WITNESSES:
        if chosen := [name for name in known if re.fullmatch(witness, name)]:
            return chosen
    return [name for name in known if not _ELSEWHERE.search(name)]
