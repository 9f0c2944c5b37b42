"""The table of plants and controllers, and the pictures of docs/heat.md.

usage: python -m scripts.heat.figures [--plants FILE] [--pictures FOLDER]

FILE is another simulator's Python file with PLANTS (see plant.py). With --pictures nothing is printed but their names.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.device.governor.thresholds import GovernorSettings
from scripts.heat.draw import Line, Panel, draw
from scripts.heat.loop import Constant, Controller, Governor, OnOff, Point, Scene, bursts, close_loop, course
from scripts.heat.plant import PLANTS, Plant, read_plants

_TARGET = 85.0
_AMBIENTS = (25.0, 35.0, 45.0)
_TITLES = ("peak", "mean", "sd", "work", "of best", "jumps")
_HEAD = f"{'plant':16} {'air':>4} {'controller':12} " + " ".join(f"{title:>7}" for title in _TITLES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    plants = read_plants(given.plants) if given.plants else PLANTS
    if given.pictures:
        _pictures(given.pictures)
    else:
        _table(plants)


def _table(plants: Mapping[str, Plant]) -> None:
    """Steady load for an hour; mean and spread are those behind the first 25 minutes."""
    print(_HEAD)
    for name, plant in plants.items():
        for ambient in _AMBIENTS:
            best = plant.best_duty(_TARGET, ambient)
            for title, controller in _controllers(best):
                one = course(close_loop(Scene(plant, ambient), controller))
                print(
                    f"{name:16} {ambient:4.0f} {title:12} {one.peak:7.1f} {one.mean:7.1f} {one.spread:7.2f} "
                    f"{one.work:7.3f} {one.work / best:7.3f} {one.jumps:7}",
                    flush=True,
                )


def _controllers(best: float) -> list[tuple[str, Controller]]:
    if best >= 1.0:
        return [("none needed", Governor())]
    wrong = [
        (f"gain x{gain:g}", Governor(GovernorSettings(kp=gain * GovernorSettings.kp, ki=gain * GovernorSettings.ki)))
        for gain in (0.25, 4.0)
    ]
    return [("governor", Governor()), *wrong, ("on/off", OnOff()), ("best duty", Constant(best)), ("none", Constant())]


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plant = PLANTS["nano, no fan"]
    ours, on_off = close_loop(Scene(plant, 35.0), Governor()), close_loop(Scene(plant, 35.0), OnOff())
    _write(folder / "heat-steady.svg", "A board without a fan at 35 °C, an hour of steady work", ours, on_off)
    laptop = Scene(PLANTS["laptop"], 35.0, bursts(60.0))
    ours, on_off = close_loop(laptop, Governor(), 1500.0), close_loop(laptop, OnOff(), 1500.0)
    _write(folder / "heat-bursts.svg", "A laptop at 35 °C, a minute of work and one of rest", ours, on_off)


def _write(file: Path, title: str, ours: list[Point], on_off: list[Point]) -> None:
    lines = {"governor": ours, "on/off at 85 and 80": on_off}
    panels = [
        Panel(
            "chip, °C",
            40.0,
            100.0,
            [Line(name, [(point.at, point.chip) for point in points]) for name, points in lines.items()],
            [("target", _TARGET), ("pause", 95.0)],
        ),
        Panel("computed, of the time", 0.0, 1.0, [Line(name, _smooth(points)) for name, points in lines.items()]),
    ]
    file.write_text(draw(title, panels), encoding="utf-8")
    print(file)


def _smooth(points: list[Point], window: int = 40) -> list[tuple[float, float]]:
    """Means over ten seconds."""
    parts = [points[at : at + window] for at in range(0, len(points), window)]
    return [(part[0].at, sum(point.work for point in part) / len(part)) for part in parts]


if __name__ == "__main__":
    main()
