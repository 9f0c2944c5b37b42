"""Small machines made of files, as the kernel would show them, and faults that are real ones."""

from __future__ import annotations

import os
from pathlib import Path


def put(root: Path, path: str, value: object = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")
    return file


def zone(root: Path, number: int, kind: str, millidegrees: object, **trips: int) -> Path:
    """A thermal zone with trip points, in the order given."""
    folder = f"sys/class/thermal/thermal_zone{number}"
    put(root, f"{folder}/type", kind)
    for i, (name, value) in enumerate(trips.items()):
        put(root, f"{folder}/trip_point_{i}_type", name.rstrip("_"))
        put(root, f"{folder}/trip_point_{i}_temp", value)
    return put(root, f"{folder}/temp", millidegrees)


def rail(root: Path, channel: int, label: str, millivolts: int, milliamperes: int, chip: str = "1-0040") -> Path:
    """A channel of an INA3221; the file of its current."""
    folder = f"sys/bus/i2c/drivers/ina3221/{chip}/hwmon/hwmon{chip[-1]}"
    put(root, f"{folder}/name", "ina3221")
    put(root, f"{folder}/in{channel}_label", label)
    put(root, f"{folder}/in{channel}_input", millivolts)
    put(root, f"{folder}/curr{channel}_crit_alarm", 0)
    put(root, f"{folder}/curr{channel}_max_alarm", 0)
    return put(root, f"{folder}/curr{channel}_input", milliamperes)


def orin_nano(root: Path) -> None:
    """JetPack 6: units that are off by default are on here."""
    trips = {"critical": 104_500, "hot": 103_000, "passive": 99_000}
    for i, (name, heat) in enumerate({"cpu": 48_000, "gpu": 47_500, "cv0": 46_000, "tj": 48_500}.items()):
        zone(root, i, f"{name}-thermal", heat, **trips)
    rail(root, 1, "VDD_IN", 5000, 1200)
    rail(root, 2, "VDD_CPU_GPU_CV", 5000, 300)
    rail(root, 3, "VDD_SOC", 5000, 260)
    put(root, "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon0/in7_label", "sum of shunt voltages")


def power_off(file: Path) -> int:
    """Reading it is EAGAIN from now on, as with a unit without power: a pipe that is open and empty.

    Returns the descriptor that keeps it so."""
    file.unlink()
    os.mkfifo(file)
    return os.open(file, os.O_RDWR)


def break_down(file: Path) -> None:
    """Reading it is EIO from now on."""
    file.unlink()
    file.symlink_to("/proc/self/mem")


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
