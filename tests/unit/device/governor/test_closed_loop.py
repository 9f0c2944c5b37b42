"""The real governor on simulated devices, in virtual time: the promise of docs/heat.md, plant by plant."""

import math
from pathlib import Path

import pytest

from qwen_edge.device.governor.thresholds import GovernorSettings
from scripts.heat.loop import Constant, Governor, OnOff, Scene, bursts, close_loop, course
from scripts.heat.plant import PLANTS, read_plants

TARGET = 85.0
AMBIENTS = (25.0, 35.0, 45.0)
PLACES = [(name, ambient) for name in PLANTS for ambient in AMBIENTS]
TOO_WARM = [(name, ambient) for name, ambient in PLACES if PLANTS[name].best_duty(TARGET, ambient) < 1.0]


def governor_settings(gain: float = 1.0, **more) -> GovernorSettings:
    return GovernorSettings(kp=gain * GovernorSettings.kp, ki=gain * GovernorSettings.ki, **more)


@pytest.mark.parametrize(("name", "ambient"), TOO_WARM)
def test_under_steady_load_the_target_is_held_and_nothing_worth_having_is_given_away(name, ambient):
    scene = Scene(PLANTS[name], ambient)
    ours, on_off = course(close_loop(scene, Governor())), course(close_loop(scene, OnOff()))
    assert abs(ours.mean - TARGET) < 1.0
    assert ours.spread < 0.5
    assert ours.peak < TARGET + 4.0
    assert ours.wobble < 0.05, "a limit cycle"
    assert ours.jumps == 0
    assert ours.work > 0.95 * PLANTS[name].best_duty(TARGET, ambient)
    assert ours.work > on_off.work, "hysteresis does better"


@pytest.mark.parametrize(("name", "ambient"), sorted(set(PLACES) - set(TOO_WARM)))
def test_a_device_that_stays_cool_is_left_alone(name, ambient):
    points = close_loop(Scene(PLANTS[name], ambient), Governor(), seconds=2400)
    assert min(point.duty for point in points) == 1.0


@pytest.mark.parametrize("seconds", [5.0, 20.0, 60.0, 300.0])
@pytest.mark.parametrize("name", PLANTS)
def test_bursts_do_not_overshoot_either(name, seconds):
    points = close_loop(Scene(PLANTS[name], 45.0, bursts(seconds)), Governor(), seconds=2400)
    assert max(point.chip for point in points) < TARGET + 4.0


@pytest.mark.parametrize("gain", [0.25, 4.0])
@pytest.mark.parametrize("name", ["nano, no fan", "nx, fan", "laptop"])
def test_a_controller_whose_gain_is_wrong_by_four_holds_the_target_too(name, gain):
    ours = course(close_loop(Scene(PLANTS[name], 45.0), Governor(governor_settings(gain))))
    assert abs(ours.mean - TARGET) < 1.0
    assert ours.peak < TARGET + 4.0
    assert (ours.wobble < 0.1, ours.jumps) == (True, 0)


@pytest.mark.parametrize("delay", [0.0, 2.0, 3.0])
@pytest.mark.parametrize("name", ["nano, no fan", "laptop"])
def test_a_sensor_that_is_late_does_not_make_it_swing(name, delay):
    ours = course(close_loop(Scene(PLANTS[name], 45.0, delay=delay), Governor()))
    assert abs(ours.mean - TARGET) < 1.0
    assert ours.peak < TARGET + 4.0
    assert (ours.wobble < 0.05, ours.jumps) == (True, 0)


@pytest.mark.parametrize("powered", [True, False], ids=["power is read yet", "nothing is read"])
@pytest.mark.parametrize("name", PLANTS)
def test_a_sensor_that_is_lost_heats_nothing_and_takes_no_answer(name, powered):
    def lost(now: float, celsius: float) -> float | None:
        return None if 1200 <= now < 1500 else celsius

    silent = (lambda _now: 0.0) if powered else (lambda now: float(1200 <= now < 1500))
    scene = Scene(PLANTS[name], 35.0, fault=lost, lost_watts=silent)
    points = close_loop(scene, Governor(), seconds=2700)
    before = max(point.duty for point in points if 1195 <= point.at < 1203)
    blind = [point.duty for point in points if 1204 <= point.at < 1500]
    assert max(blind) <= before
    assert min(blind) > 0, "answers go on"
    assert blind == sorted(blind, reverse=True)
    assert max(point.chip for point in points) < TARGET + 4.0
    assert points[-1].duty == pytest.approx(before, abs=0.1), "it is trusted again"


@pytest.mark.parametrize("size", [30.0, -60.0])
def test_a_spike_is_not_believed(size):
    def spike(now: float, celsius: float) -> float:
        return celsius + size if 1500 <= now < 1502 else celsius

    scene = Scene(PLANTS["nano, no fan"], 35.0)
    governor, undisturbed = Governor(), close_loop(scene, Governor(), seconds=1800)
    points = close_loop(Scene(PLANTS["nano, no fan"], 35.0, fault=spike), governor, seconds=1800)
    assert {decision.level for decision in governor.decisions} <= {"nominal", "warm"}
    assert points[-1].duty == pytest.approx(undisturbed[-1].duty, abs=0.02)


def test_a_fan_that_fails_is_believed():
    """Thirty kelvin more, for good."""
    governor = Governor()
    points = close_loop(Scene(PLANTS["nx, fan"], 25.0, weather=lambda now: 30.0 * (now > 1200)), governor, seconds=3600)
    assert max(point.chip for point in points) < TARGET + 4.0
    assert points[-1].chip == pytest.approx(TARGET, abs=1.0)


def test_a_device_that_cannot_be_held_pauses_and_tells_when_it_is_worth_asking_again():
    """In an oven the board is too warm with hardly any work."""
    governor = Governor()
    oven = Scene(PLANTS["nano, fan"], 60.0, weather=lambda now: 35.0 * (600 < now < 900))
    points = close_loop(oven, governor, seconds=1800)
    critical = [number for number, decision in enumerate(governor.decisions) if decision.level == "critical"]
    assert critical
    assert all(governor.decisions[number].limits.duty == 0 for number in critical)
    assert all(set(governor.decisions[number].refused) == {"interactive", "background", "idle"} for number in critical)
    assert points[-1].duty > 0, "it goes on when it has cooled down"
    # when it cools down, what was told is about what it takes
    weather_is_better = next(number for number in critical if number > 930)
    told, took = governor.decisions[weather_is_better].retry_after, critical[-1] + 1 - weather_is_better
    assert took / 3 < told < 3 * took


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("limit", [9.0, 12.0])
def test_a_limit_in_watts_is_kept_however_cool_it_is_and_however_noisy_the_sensor(limit, noise):
    scene = Scene(PLANTS["nano, fan"], 25.0, watts_noise=noise)
    points = close_loop(scene, Governor(governor_settings(watts=limit)), seconds=3600)
    tail = [point.watts for point in points if point.at > 300]
    assert 0.9 * limit < math.fsum(tail) / len(tail) < 1.02 * limit
    tens = [math.fsum(tail[at : at + 40]) / 40 for at in range(0, len(tail) - 40, 40)]
    assert max(tens) < 1.15 * limit, "over ten seconds"


def test_a_limit_in_watts_stays_when_power_can_be_read_no_more():
    scene = Scene(PLANTS["nano, fan"], 25.0, lost_watts=lambda now: float(now > 600))
    governor = Governor(governor_settings(watts=9.0))
    points = close_loop(scene, governor, seconds=1200)
    assert max(point.watts for point in points if point.at > 620) < 9.9
    assert governor.decision.because == "no telemetry"


def test_without_a_governor_these_devices_would_be_too_warm():
    """Else the tests above show nothing."""
    assert len(TOO_WARM) >= 8
    for name, ambient in TOO_WARM:
        assert course(close_loop(Scene(PLANTS[name], ambient), Constant())).mean > TARGET


def test_plants_of_another_simulator_can_be_read(tmp_path: Path):
    file = tmp_path / "sim.py"
    file.write_text("PLANTS = {'toaster': (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}\n")
    (plant,) = read_plants(file).values()
    assert (plant.idle, plant.busy, plant.r1, plant.c1, plant.r2, plant.c2) == (1, 2, 3, 4, 5, 6)
