"""A device as heat sees it: a chip on a sink in the air, two masses and two resistances.

C1 dTj/dt = P - (Tj - Th) / R1;  C2 dTh/dt = (Tj - Th) / R1 - (Th - Ta) / R2, where leakage makes a warm chip draw more:
0.4 % a kelvin. Resistances in K/W, capacities in J/K. The numbers of `PLANTS` are estimates that give boards their
published plateaus and the minutes they take to get there; a real board's want fitting to a log of half an hour.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LEAKAGE, _AT = 0.004, 60.0


@dataclass(frozen=True)
class Plant:
    """Watts with no work and with all of it; chip to sink; sink to air."""

    idle: float
    busy: float
    r1: float
    c1: float
    r2: float
    c2: float

    def watts(self, work: float, chip: float) -> float:
        """Drawn while so much is computed (0..1) and the chip is so warm."""
        return (self.idle + (self.busy - self.idle) * work) * max(0.8, 1 + _LEAKAGE * (chip - _AT))

    def settled(self, work: float, ambient: float) -> float:
        """The chip's temperature in the end; no more than 400: leakage may run away."""
        chip = ambient
        for _ in range(1000):
            chip, before = min(400.0, ambient + self.watts(work, chip) * (self.r1 + self.r2)), chip
            if abs(chip - before) < 1e-6:
                break
        return chip

    def best_duty(self, target: float, ambient: float) -> float:
        """The most that can be computed all the time without getting warmer than the target."""
        low, high = 0.0, 1.0
        if self.settled(high, ambient) <= target:
            return high
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (middle, high) if self.settled(middle, ambient) <= target else (low, middle)
        return low


PLANTS: Mapping[str, Plant] = {
    "nano, fan": Plant(4.8, 17.0, 0.7, 10.0, 2.0, 120.0),
    "nano, no fan": Plant(4.8, 17.0, 0.7, 10.0, 4.8, 150.0),
    "nx, fan": Plant(4.6, 29.0, 0.6, 12.0, 1.5, 130.0),
    "agx, fan": Plant(9.5, 58.0, 0.25, 30.0, 0.75, 450.0),
    "laptop": Plant(4.0, 28.0, 1.0, 8.0, 2.0, 90.0),
}


def read_plants(file: Path) -> Mapping[str, Plant]:
    """Those of another simulator: a Python file with PLANTS, names to the six numbers in this order."""
    return {name: Plant(*numbers) for name, numbers in runpy.run_path(str(file))["PLANTS"].items()}


@dataclass
class Body:
    """A plant in its course. It begins where it has rested."""

    plant: Plant
    ambient: float
    chip: float = 0.0
    sink: float = 0.0
    joules: float = 0.0

    def __post_init__(self) -> None:
        self.chip = self.plant.settled(0.0, self.ambient)
        self.sink = self.chip - self.plant.r1 * self.plant.watts(0.0, self.chip)

    def work(self, share: float, seconds: float) -> float:
        """Compute for so much of so few seconds; returns the watts."""
        plant, watts = self.plant, self.plant.watts(share, self.chip)
        flow = (self.chip - self.sink) / plant.r1
        self.chip += seconds * (watts - flow) / plant.c1
        self.sink += seconds * (flow - (self.sink - self.ambient) / plant.r2) / plant.c2
        self.joules += watts * seconds
        return watts
