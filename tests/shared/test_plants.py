"""The governor on every plant of the shared simulator, in virtual time."""

from collections.abc import Mapping

import pytest

from qwen_edge.device.points import Aims
from scripts.heat.loop import Governor, OnOff, Scene, close_loop, course
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
        ours = course(close_loop(scene, Governor(Aims(kp=gain * Aims.kp, ki=gain * Aims.ki))))
        assert ours.peak < TARGET + 4.0, name
        assert ours.work > 0.95 * best, name
        if best < 1.0:
            assert abs(ours.mean - TARGET) < 1.0, name
            assert (ours.spread < 0.5, ours.jumps) == (True, 0), name
            assert ours.work > course(close_loop(scene, OnOff())).work, name
