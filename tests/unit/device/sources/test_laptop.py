"""A PC or a small board is read by what its processor, its battery and its card tell."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.sources.laptop import Laptop
from qwen_edge.device.sources.rapl import counter_difference
from qwen_edge.device.telemetry import Battery, Trips
from qwen_edge.device.telemetry import Clock as Hertz
from tests.unit.device.sources.trees import Clock, put, zone

HWMON = "sys/class/hwmon/hwmon3"
RAPL = "sys/class/powercap/intel-rapl:0"
SUPPLY = "sys/class/power_supply"
NOBODY = 65534


def intel(root: Path, degrees: int = 61_000) -> None:
    put(root, f"{HWMON}/name", "coretemp")
    for number, label in [(1, "Package id 0"), (2, "Core 0")]:
        put(root, f"{HWMON}/temp{number}_label", label)
        put(root, f"{HWMON}/temp{number}_input", degrees)
        put(root, f"{HWMON}/temp{number}_max", 100_000)
        put(root, f"{HWMON}/temp{number}_crit", 105_000)
    zone(root, 0, "acpitz", 45_000, critical=119_000)
    zone(root, 1, "iwlwifi_1", 70_000)
    zone(root, 2, "x86_pkg_temp", 62_000, passive=0)


def rapl(root: Path, microjoules: int, most: int = 262_143_328_850) -> None:
    put(root, f"{RAPL}/name", "package-0")
    put(root, f"{RAPL}/energy_uj", microjoules)
    put(root, f"{RAPL}/max_energy_range_uj", most)
    put(root, "sys/class/powercap/intel-rapl:0:0/name", "core")


def battery(root: Path, status: str, name: str = "BAT0", **files: int) -> None:
    for file, value in {"type": "Battery", "status": status, "capacity": 80, **files}.items():
        put(root, f"{SUPPLY}/{name}/{file}", value)


def test_an_intel_laptop_is_as_hot_as_its_package(tmp_path):
    intel(tmp_path)
    assert Laptop.found(tmp_path)
    sample = Laptop(tmp_path, Clock(7.0)).read()
    assert (sample.source, sample.at, sample.tj) == ("laptop", 7.0, 61.0)
    assert sample.temperatures == {"package id 0": 61.0, "acpitz": 45.0, "x86_pkg_temp": 62.0}
    assert sample.trips == Trips(passive=100.0, critical=105.0)
    assert (sample.watts, sample.battery, sample.mains, sample.missing) == (None, None, None, ())


def test_a_ryzen_is_as_hot_as_its_die_with_the_trip_points_of_the_board(tmp_path):
    put(tmp_path, f"{HWMON}/name", "k10temp")
    for number, label, degrees in [(1, "Tctl", 87_000), (2, "Tdie", 60_000), (3, "Tccd1", 58_000)]:
        put(tmp_path, f"{HWMON}/temp{number}_label", label)
        put(tmp_path, f"{HWMON}/temp{number}_input", degrees)
    zone(tmp_path, 0, "acpitz", 45_000, critical=119_000, passive=99_000)
    sample = Laptop(tmp_path).read()
    assert sample.temperatures == {"tctl": 87.0, "tdie": 60.0, "acpitz": 45.0}
    assert (sample.tj, sample.trips) == (60.0, Trips(passive=99.0, critical=119.0))
    shutil.rmtree(tmp_path / HWMON)
    put(tmp_path, f"{HWMON}/name", "k10temp")
    put(tmp_path, f"{HWMON}/temp1_input", 55_000)
    assert Laptop(tmp_path).read().tj == 55.0, "older ones have no label"


def test_a_raspberry_pi_has_one_zone(tmp_path):
    zone(tmp_path, 0, "cpu-thermal", 55_017, critical=110_000)
    sample = Laptop(tmp_path).read()
    assert (sample.tj, sample.trips) == (55.017, Trips(critical=110.0))


def test_a_board_with_zones_of_other_names_is_as_hot_as_the_hottest_but_not_its_radio(tmp_path):
    for number, (kind, heat) in enumerate(
        [("littlecore-thermal", 50_000), ("npu-thermal", 52_000), ("ath10k", 80_000)]
    ):
        zone(tmp_path, number, kind, heat)
    assert Laptop(tmp_path).read().tj == 52.0


def test_a_virtual_machine_tells_nothing(tmp_path):
    put(tmp_path, "proc/stat", "cpu 1 1 1 1 1")
    put(tmp_path, f"{SUPPLY}/.keep")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 2_000_000)
    assert not Laptop.found(tmp_path)


def test_power_is_the_energy_since_the_last_time(tmp_path):
    intel(tmp_path)
    clock = Clock()
    rapl(tmp_path, 1_000_000)
    source = Laptop(tmp_path, clock)
    clock.now += 2
    rapl(tmp_path, 31_000_000)
    sample = source.read()
    assert (sample.watts, sample.rails) == (15.0, {"processor": 15.0})
    assert sample.mean, "of the two seconds"
    clock.now += 0.2
    rapl(tmp_path, 33_000_000)
    assert source.watts() == pytest.approx(10.0)
    assert source.watts() == pytest.approx(10.0), "too soon for the counter: still what it was"


def test_an_energy_counter_that_begins_again_is_no_huge_power(tmp_path):
    clock = Clock()
    rapl(tmp_path, 900, most=1000)
    source = Laptop(tmp_path, clock)
    rapl(tmp_path, 400, most=1000)
    clock.now += 1
    assert source.watts() == pytest.approx(500e-6)


@given(most=st.integers(1, 2**62), data=st.data())
def test_a_counter_gives_back_what_was_added_however_often_it_begins_again(most, data):
    before = data.draw(st.integers(0, most - 1))
    added = data.draw(st.integers(0, most - 1))
    assert counter_difference(before, (before + added) % most, most) == added


@contextmanager
def anybody():
    """Like a user who is not root, for as long as it lasts."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_energy_for_root_only_is_no_power_and_no_error_but_a_hint():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        intel(root)
        rapl(root, 1)
        shutil.copytree(root / RAPL, root / "sys/class/powercap/intel-rapl:1")
        for package in root.glob("sys/class/powercap/*/energy_uj"):
            package.chmod(0)
        with anybody():
            sample = Laptop(root).read()
        assert (sample.watts, sample.tj) == (None, 61.0)
        (said,) = sample.missing
        assert "only root may read" in said
        assert "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" in said
        for package in root.glob("sys/class/powercap/*/energy_uj"):
            package.chmod(0o600)


def test_the_battery_is_the_power_of_all_while_the_machine_runs_on_it(tmp_path):
    battery(tmp_path, "Discharging", power_now=7_500_000)
    put(tmp_path, f"{SUPPLY}/AC/type", "Mains")
    put(tmp_path, f"{SUPPLY}/AC/online", 0)
    assert Laptop.found(tmp_path)
    source = Laptop(tmp_path)
    sample = source.read()
    assert (sample.watts, sample.battery, sample.mains) == (7.5, Battery(0.8, True), False)
    assert source.watts() is None, "its controller is slow, and measures seldom"
    battery(tmp_path, "Charging", power_now=20_000_000)
    put(tmp_path, f"{SUPPLY}/AC/online", 1)
    sample = source.read()
    assert (sample.watts, sample.battery, sample.mains) == (None, Battery(0.8, False), True)


def test_a_battery_may_tell_current_and_voltage_and_count_backwards(tmp_path):
    battery(tmp_path, "Discharging", current_now=-2_000_000, voltage_now=11_000_000)
    assert Laptop(tmp_path).read().watts == 22.0


def test_two_batteries_count_by_their_size_and_a_mouse_does_not(tmp_path):
    battery(tmp_path, "Discharging", capacity=40, energy_full=30_000_000, power_now=5_000_000)
    battery(tmp_path, "Unknown", "BAT1", capacity=80, energy_full=10_000_000, power_now=0)
    battery(tmp_path, "Discharging", "hidpp_battery_0", capacity=5)
    put(tmp_path, f"{SUPPLY}/hidpp_battery_0/scope", "Device")
    source = Laptop(tmp_path)
    sample = source.read()
    assert (sample.watts, sample.battery) == (5.0, Battery(0.5, True))
    shutil.rmtree(tmp_path / SUPPLY / "BAT1")
    assert source.read().battery == Battery(0.4, True)
    assert source.read().missing == (), "it was taken out, and is not missed"


def test_a_machine_fed_by_usb_c_has_mains(tmp_path):
    intel(tmp_path)
    for port, online in enumerate([0, 1]):
        put(tmp_path, f"{SUPPLY}/ucsi{port}/type", "USB")
        put(tmp_path, f"{SUPPLY}/ucsi{port}/online", online)
    assert Laptop(tmp_path).read().mains is True


def test_what_is_there_twice_has_two_names_and_one_reason(tmp_path):
    for number, heat in enumerate([40_000, 50_000]):
        zone(tmp_path, number, "acpitz", heat)
        put(tmp_path, f"sys/class/thermal/cooling_device{number}/type", "Processor")
        put(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", 1)
    sample = Laptop(tmp_path).read()
    assert sample.temperatures == {"acpitz": 40.0, "acpitz 2": 50.0}
    assert (sample.tj, sample.throttled) == (50.0, ("heat slows down Processor",))


def test_a_package_that_slowed_itself_down_since_the_last_time_is_told(tmp_path):
    intel(tmp_path)
    for core in range(2):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/topology/physical_package_id", 0)
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/package_throttle_count", 5)
    source = Laptop(tmp_path)
    assert source.read().throttled == ()
    put(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", 6)
    assert source.read().throttled == ("heat slows down package 0",)
    assert source.read().throttled == ()


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 13: "Function Not Found", 15: "GPU is lost"}[value])
        self.value = value


class Nvml(SimpleNamespace):
    """Like pynvml with one card; what is in `failing` raises that error."""

    NVMLError, NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND = NvmlError, 3, 13
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
    NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0, 1

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        answers = {
            "Count": lambda: 1,
            "HandleByIndex": lambda index: f"card {index}",
            "Temperature": lambda card, sensor: 71,
            "TemperatureThreshold": lambda card, which: [98, 93][which],
            "PowerUsage": lambda card: 34_100,
            "ClockInfo": lambda card, which: 1500,
            "MaxClockInfo": lambda card, which: 2100,
            "UtilizationRates": lambda card: SimpleNamespace(gpu=95),
            "CurrentClocksThrottleReasons": lambda card: 0x1 | 0x4 | 0x20,
        }
        super().__init__(**{f"nvmlDeviceGet{name}": self._answer(name, call) for name, call in answers.items()})

    def _answer(self, name, call):
        def ask(*arguments):
            if name in self.failing:
                raise NvmlError(self.failing[name])
            return call(*arguments)

        return ask


def test_a_card_is_part_of_the_machine(tmp_path):
    clock = Clock()
    intel(tmp_path)
    rapl(tmp_path, 0)
    source = Laptop(tmp_path, clock, Nvml())
    clock.now += 1
    rapl(tmp_path, 10_000_000)
    sample = source.read()
    assert (sample.tj, sample.temperatures["gpu"], sample.gpu_load) == (71.0, 71.0, 0.95)
    assert sample.rails == {"processor": 10.0, "gpu": 34.1}
    assert sample.watts == source.watts() == pytest.approx(44.1)
    assert sample.clocks == {"gpu": Hertz(1.5e9, 2.1e9)}
    assert sample.trips == Trips(passive=93.0, critical=98.0)
    assert sample.throttled == ("gpu: power limit", "gpu: heat")


def test_what_a_card_does_not_know_is_not_missing_and_what_it_refuses_is(tmp_path):
    clock, nvml = Clock(), Nvml()
    rapl(tmp_path, 0)
    source = Laptop(tmp_path, clock, nvml)
    nvml.failing = {"ClockInfo": 3, "PowerUsage": 15, "Temperature": 15, "CurrentClocksThrottleReasons": 3}
    clock.now += 1
    sample = source.read()
    assert sample.missing == ("gpu temperature: GPU is lost", "gpu power: GPU is lost")
    assert (sample.watts, sample.tj, sample.clocks, sample.throttled) == (None, None, {}, ())
    assert source.watts() is None, "the processor's alone is not the machine's"


def test_a_call_that_a_release_has_under_another_name_is_found(tmp_path):
    nvml = Nvml()
    nvml.failing = {"Temperature": 13}
    nvml.nvmlDeviceGetTemperatureV = lambda card, sensor: 72
    nvml.nvmlDeviceGetCurrentClocksEventReasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    del nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    sample = Laptop(tmp_path, nvml=nvml).read()
    assert (sample.tj, sample.throttled, sample.missing) == (72.0, ("gpu: power limit", "gpu: heat"), ())


def test_a_card_alone_is_reason_enough_to_look(tmp_path):
    assert Laptop.found(tmp_path, Nvml())
