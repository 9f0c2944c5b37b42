"""Thermal zones and the cooling devices that lower clocks when the zones are hot
(Documentation/driver-api/thermal/sysfs-api.rst in the kernel's sources).

Zones are identified by their type, never by their number, which changes with the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_edge.device.sources.files import FileSnapshot, glob_numbered, read_int, read_word
from qwen_edge.device.telemetry import Trips

_COLDEST, _HOTTEST = -50_000, 150_000  # thousandths of a degree Celsius, as in all files here
_LOWEST_TRIP = 40_000  # a trip point that firmware has not set is 0 or -274 degrees
# these only announce something, move air or are a setting; Jetson Orin's hot-surface-alert trips at 70 degrees
_SLOWS_NOTHING = re.compile(r"fan|surface|lcd|backlight|tcc offset|wifi|ath\d|mt7|charge", re.IGNORECASE)


@dataclass(frozen=True)
class Zone:
    """A sensor: the file with its temperature, and its trip points."""

    file: Path
    trips: Trips = field(default_factory=Trips)


def zone_name(kind: str) -> str:
    """The common name: `cpu` for cpu-thermal (JetPack 6, Raspberry Pi) and for CPU-therm (JetPack 5)."""
    return re.sub(r"[-_](thermal|therm|tegra)$", "", kind.strip().lower())


def find_zones(root: Path) -> dict[str, Zone]:
    """All zones by name; a second one of the same name gets a number. A Jetson's power controller (PMIC) is left out:
    its value is a constant."""
    found: dict[str, Zone] = {}
    for folder in glob_numbered(root / "sys/class/thermal", "thermal_zone*"):
        name = zone_name(read_word(folder / "type"))
        if not name or name.startswith("pmic"):
            continue
        same = sum(1 for other in found if re.fullmatch(rf"{re.escape(name)}( \d+)?", other))
        found[f"{name} {same + 1}" if same else name] = Zone(folder / "temp", _trips(folder))
    return found


def read_celsius(snapshot: FileSnapshot, zones: Mapping[str, Zone]) -> dict[str, float]:
    """The temperatures (Celsius) of the zones that can be read now."""
    values = {name: snapshot.read_number(name, zone.file, _COLDEST, _HOTTEST) for name, zone in zones.items()}
    return {name: value / 1000 for name, value in values.items() if value is not None}


def read_trip(file: Path) -> float | None:
    """The trip temperature (Celsius) in the file; None if none is set."""
    value = read_int(file)
    return value / 1000 if value is not None and _LOWEST_TRIP <= value <= _HOTTEST else None


def lowest_trips(trips: Iterable[Trips]) -> Trips:
    """The lowest trip point of each kind."""
    several = list(trips)
    return Trips(
        min((one.passive for one in several if one.passive is not None), default=None),
        min((one.hot for one in several if one.hot is not None), default=None),
        min((one.critical for one in several if one.critical is not None), default=None),
    )


def fill_in(own: Trips, others: Trips) -> Trips:
    """`own`, with the kinds that it lacks taken from `others`."""
    return Trips(
        others.passive if own.passive is None else own.passive,
        others.hot if own.hot is None else own.hot,
        others.critical if own.critical is None else own.critical,
    )


def chip_trips(zones: Mapping[str, Zone]) -> Trips:
    """A Jetson's trip points: those of zone tj; a kind not set there is taken from the other zones."""
    everywhere = lowest_trips(zone.trips for zone in zones.values())
    return fill_in(zones["tj"].trips, everywhere) if "tj" in zones else everywhere


def find_cooling_devices(root: Path) -> list[tuple[str, Path]]:
    """The cooling devices that lower clocks: type and state file."""
    folders = glob_numbered(root / "sys/class/thermal", "cooling_device*")
    return [(kind, folder / "cur_state") for folder in folders if (kind := read_word(folder / "type")) and _slows(kind)]


def active_cooling(snapshot: FileSnapshot, brakes: Iterable[tuple[str, Path]]) -> list[str]:
    """A sentence for each device that is lowering clocks now. Intel's powerclamp is -1 while it is inactive."""
    states = ((kind, snapshot.read_number(f"cooling by {kind}", file, -1, 1_000_000)) for kind, file in brakes)
    # PCs have one device for each core, all of the same type
    return list(dict.fromkeys(f"heat slows down {kind}" for kind, state in states if state and state > 0))


def _slows(kind: str) -> bool:
    return not _SLOWS_NOTHING.search(kind)


def _trips(zone: Path) -> Trips:
    bound = _bound(zone)
    found = []
    for file in zone.glob("trip_point_*_type"):
        kind, number = read_word(file), file.name.split("_")[2]
        devices = bound.get(number, [])
        degrees = read_trip(zone / f"trip_point_{number}_temp")
        if kind in ("passive", "hot", "critical") and degrees and (not devices or any(map(_slows, devices))):
            found.append(Trips(**{kind: degrees}))
    return lowest_trips(found)


def _bound(zone: Path) -> dict[str, list[str]]:
    """The types of the cooling devices bound to each trip point of a zone, by the trip point's number."""
    bound: dict[str, list[str]] = {}
    for file in zone.glob("cdev*_trip_point"):
        device = zone / file.name.removesuffix("_trip_point")
        bound.setdefault(read_word(file), []).append(read_word(device / "type"))
    return bound
