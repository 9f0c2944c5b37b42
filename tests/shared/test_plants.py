"""The governor on every plant of the shared simulator, in virtual time."""

from collections.abc import Mapping

import pytest

from qwen_edge.device.governor.thresholds import GovernorSettings
from scripts.heat.loop import Governor, OnOff, Scene, bursts, close_loop, course
from scripts.heat.plant import Plant, read_plants
from tests.shared.conftest import SHARED

TARGET = 85.0
SIMULATOR = SHARED / "tools" / "thermal_sim.py"


@pytest.fixture(scope="module")
def plants() -> Mapping[str, Plant]:
    return read_plants(SIMULATOR)


@pytest.mark.parametrize("gain", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("ambient", [25.0, 35.0, 45.0])
def test_every_plant_is_held_at_its_target_and_better_than_by_hysteresis(plants, ambient, gain):
    assert plants
    for name, plant in plants.items():
        scene, best = Scene(plant, ambient), plant.best_duty(TARGET, ambient)
        ours = course(
            close_loop(scene, Governor(GovernorSettings(kp=gain * GovernorSettings.kp, ki=gain * GovernorSettings.ki)))
        )
        assert ours.peak < TARGET + 4.0, name
        assert ours.work > 0.95 * best, name
        if best < 1.0:
            assert abs(ours.mean - TARGET) < 1.0, name
            assert (ours.spread < 0.5, ours.jumps) == (True, 0), name
            assert ours.work > course(close_loop(scene, OnOff())).work, name


def lost(now: float, celsius: float) -> float | None:
    return None if 1200 <= now < 1500 else celsius


def spiky(now: float, celsius: float) -> float:
    return celsius + 40.0 if 150 <= now % 300 < 151 else celsius


SCENES = {
    "bursts of 20 s": {"load": bursts(20.0)},
    "bursts of 5 min": {"load": bursts(300.0)},
    "a sensor that is late": {"delay": 3.0},
    "a sensor that is lost": {"fault": lost},
    "a sensor with spikes": {"fault": spiky},
}


@pytest.mark.parametrize("change", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("ambient", [25.0, 35.0, 45.0])
def test_no_plant_overshoots_whatever_befalls_it(plants, ambient, change):
    for name, plant in plants.items():
        points = close_loop(Scene(plant, ambient, **change), Governor(), seconds=2400)
        assert max(point.chip for point in points) < TARGET + 4.0, name
        assert min(point.duty for point in points) > 0, name
