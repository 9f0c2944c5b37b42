"""A Jetson is read from what its kernel shows, however much of it does not answer."""

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.device.sources.files import FileSnapshot
from qwen_edge.device.sources.rails import board_watts, partial_rails
from qwen_edge.device.sources.sysfs import Sysfs
from qwen_edge.device.sources.thermal_zones import zone_name
from qwen_edge.device.sources.usage import busy_share
from qwen_edge.device.telemetry import Clock as Hertz
from qwen_edge.device.telemetry import TelemetryError, Trips
from tests.unit.device.sources.trees import Clock, break_down, orin_nano, power_off, put, rail, zone

ZONES = "sys/class/thermal"
CURRENT = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon0/curr1_input"


@pytest.fixture
def root(tmp_path):
    orin_nano(tmp_path)
    return tmp_path


def test_an_orin_nano_is_read_whole(root):
    assert Sysfs.found(root)
    sample = Sysfs(root, Clock(7.0)).read()
    assert (sample.source, sample.at) == ("sysfs", 7.0)
    assert sample.temperatures == {"cpu": 48.0, "gpu": 47.5, "cv0": 46.0, "tj": 48.5}
    assert sample.tj == 48.5
    assert sample.trips == Trips(passive=99.0, hot=103.0, critical=104.5)
    assert sample.watts == 6.0
    assert sample.rails == {"VDD_CPU_GPU_CV": 1.5, "VDD_SOC": 1.3}
    assert (sample.throttled, sample.missing) == ((), ())


def test_a_machine_without_zones_and_rails_is_no_jetson(tmp_path):
    assert not Sysfs.found(tmp_path)
    zone(tmp_path, 0, "acpitz", 40_000)
    assert not Sysfs.found(tmp_path)
    put(tmp_path, "proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0003\0nvidia,tegra234\0")
    assert Sysfs.found(tmp_path)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("cpu-thermal", "cpu"),
        ("CPU-therm", "cpu"),
        ("soc0-thermal", "soc0"),
        ("Tboard_tegra", "tboard"),
        ("x86_pkg_temp", "x86_pkg_temp"),
        ("thermal-fan-est", "thermal-fan-est"),
    ],
)
def test_zones_have_one_name_with_every_jetpack(kind, name):
    assert zone_name(kind) == name


def test_without_a_zone_tj_the_hottest_counts_but_not_the_constant_of_the_power_controller(tmp_path):
    zone(tmp_path, 0, "CPU-therm", 51_000)
    zone(tmp_path, 1, "GPU-therm", 53_500, passive=95_000)
    zone(tmp_path, 2, "PMIC-Die", 100_000)
    sample = Sysfs(tmp_path).read()
    assert sample.tj == 53.5
    assert "pmic-die" not in sample.temperatures
    assert sample.trips == Trips(passive=95.0)


def test_a_gated_zone_is_left_out_and_the_others_are_read(root):
    held = power_off(root / ZONES / "thermal_zone2/temp")
    sample = Sysfs(root).read()
    os.close(held)
    assert sample.temperatures == {"cpu": 48.0, "gpu": 47.5, "tj": 48.5}
    assert sample.missing == ()


def test_a_broken_zone_is_named(root):
    break_down(root / ZONES / "thermal_zone3/temp")
    sample = Sysfs(root).read()
    assert sample.missing == ("tj: Input/output error",)
    assert sample.tj == 48.0, "the hottest of the others"


@pytest.mark.parametrize(
    "said, missing",
    [
        ("-256000", "tj: -256000 is out of range"),
        ("", "tj: the file is empty"),
        ("hot", "tj: 'hot' is not a number"),
        ("9" * 30, "tj: 99999999999999999999 is out of range"),
    ],
)
def test_what_cannot_be_true_is_left_out_and_named(root, said, missing):
    put(root, f"{ZONES}/thermal_zone3/temp", said)
    sample = Sysfs(root).read()
    assert "tj" not in sample.temperatures
    assert sample.missing == (missing,)


@given(content=st.binary(max_size=5000))
def test_whatever_a_file_holds_a_look_gives_a_possible_value_or_names_it(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "temp"
    file.write_bytes(content)
    snapshot = FileSnapshot()
    value = snapshot.read_number("tj", file, -50, 150)
    assert (value is None) == bool(snapshot.missing)
    assert value is None or -50 <= value <= 150


def test_the_first_trip_point_of_the_hottest_place_counts_and_what_it_lacks_is_that_of_others(tmp_path):
    zone(tmp_path, 0, "cpu-thermal", 50_000, passive=95_000, critical=105_000, hot=101_000)
    zone(tmp_path, 1, "tj-thermal", 50_000, passive=99_000, passive_=97_000, critical=104_500, active=50_000)
    assert Sysfs(tmp_path).read().trips == Trips(passive=97.0, hot=101.0, critical=104.5)


def test_a_trip_point_that_only_announces_a_hot_surface_or_drives_a_fan_slows_nothing(tmp_path):
    zone(tmp_path, 0, "tj-thermal", 50_000, passive=99_000, passive_=70_000)
    folder = tmp_path / ZONES / "thermal_zone0"
    for device, kind, trip in [(0, "cpufreq-cpu0", 0), (1, "hot-surface-alert", 1), (2, "pwm-fan", 1)]:
        put(folder, f"cdev{device}/type", kind)
        put(folder, f"cdev{device}_trip_point", trip)
    assert Sysfs(tmp_path).read().trips.passive == 99.0


def test_a_trip_point_that_firmware_has_not_set_is_none(tmp_path):
    zone(tmp_path, 0, "tj-thermal", 50_000, passive=-274_000, hot=0, critical=104_000)
    assert Sysfs(tmp_path).read().trips == Trips(critical=104.0)


def test_a_lost_total_is_never_the_sum_of_the_other_rails(root):
    source = Sysfs(root)
    current = root / CURRENT
    current.unlink()
    for _ in range(2):  # also after the files were searched for again
        sample = source.read()
        assert sample.watts is None
        assert source.watts() is None
        assert sample.rails == {"VDD_CPU_GPU_CV": 1.5, "VDD_SOC": 1.3}
        assert sample.missing == ("current of VDD_IN: No such file or directory",)
    current.write_text("2000\n")
    assert source.read().watts == source.watts() == 10.0


def test_an_agx_is_the_sum_of_its_three_rails_or_nothing(tmp_path):
    zone(tmp_path, 0, "tj-thermal", 50_000)
    rail(tmp_path, 1, "VDD_GPU_SOC", 10_000, 400)
    lost = rail(tmp_path, 2, "VDD_CPU_CV", 10_000, 100)
    rail(tmp_path, 3, "VIN_SYS_5V0", 5000, 600)
    rail(tmp_path, 1, "NC", 5000, 9000, "1-0041")
    rail(tmp_path, 2, "VDDQ_VDD2_1V8AO", 5000, 100, "1-0041")
    source = Sysfs(tmp_path)
    assert source.watts() == source.read().watts == 8.0
    assert set(source.read().rails) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    lost.unlink()
    assert source.read().watts is None
    assert source.watts() is None


@given(
    st.dictionaries(st.sampled_from(["VDD_IN", "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDD_SOC"]), st.just(1.0))
)
def test_the_boards_power_is_a_measured_total_or_all_that_make_it_up(rails):
    watts = board_watts(rails)
    if "VDD_IN" in rails:
        assert watts == 1.0
        assert "VDD_IN" not in partial_rails(rails)
    else:
        assert watts == (3.0 if {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"} <= set(rails) else None)
        assert partial_rails(rails) == rails


def test_a_chip_is_also_found_without_its_driver_in_sysfs(root):
    shutil.move(root / "sys/bus/i2c/drivers/ina3221/1-0040", root / "sys/bus/i2c/devices/1-0040")
    assert Sysfs(root).read().watts == 6.0


def test_rails_that_come_back_under_another_number_are_found_again(root):
    source = Sysfs(root)
    chip = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon"
    shutil.move(chip / "hwmon0", chip / "hwmon7")
    assert source.read().watts is None
    assert source.read().watts == 6.0


def test_noise_around_no_current_is_no_power(root):
    put(root, CURRENT, -8)
    assert Sysfs(root).read().watts == 0.0


def test_heat_current_and_voltage_that_slow_something_down_are_told(root):
    for number, (kind, state) in enumerate([("pwm-fan", 3), ("cpufreq-cpu0", 2), ("hot-surface-alert", 1), ("gpu", 0)]):
        put(root, f"{ZONES}/cooling_device{number}/type", kind)
        put(root, f"{ZONES}/cooling_device{number}/cur_state", state)
    put(root, "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon0/curr1_crit_alarm", 1)
    put(root, "sys/class/hwmon/hwmon4/oc1_event_cnt", 2)
    source = Sysfs(root)
    assert source.read().throttled == ("heat slows down cpufreq-cpu0", "over-current on VDD_IN")
    put(root, "sys/class/hwmon/hwmon4/oc1_event_cnt", 3)
    assert source.read().throttled[-1] == "under-voltage"
    assert len(source.read().throttled) == 2, "what happened once is told once"


@pytest.mark.parametrize("place", ["sys/devices/platform/bus@0/17000000.gpu", "sys/devices/gpu.0"])
def test_load_and_clocks(root, place):
    put(root, f"{place}/load", 35)
    for name, value in {"cur_freq": 306_000_000, "max_freq": 624_750_000}.items():
        put(root, f"sys/class/devfreq/17000000.gpu/{name}", value)
    for core, kilohertz in enumerate([729_600, 1_190_400, 9_999_999]):
        put(root, f"sys/devices/system/cpu/cpu{core}/online", int(core < 2))
        for name, value in {"cur": kilohertz, "max": 1_510_400}.items():
            put(root, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_{name}_freq", value)
        put(root, f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", 1_728_000)
    put(root, "sys/kernel/debug/bpmp/debug/clk/emc/rate", 2_133_000_000)
    put(root, "sys/kernel/debug/bpmp/debug/clk/emc/max_rate", 2_133_000_000)
    sample = Sysfs(root).read()
    assert sample.gpu_load == 0.035
    assert sample.clocks == {
        "gpu": Hertz(306e6, 624.75e6),
        "cpu": Hertz(1190.4e6, 1510.4e6),
        "memory": Hertz(2133e6, 2133e6),
    }


def test_processor_load_is_that_since_the_last_time(root):
    put(root, "proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1")
    source = Sysfs(root)
    put(root, "proc/stat", "cpu  150 0 125 875 50 0 0 0 50 0\ncpu0 1 1")
    assert source.read().cpu_load == pytest.approx(75 / 200)
    assert source.read().cpu_load is None, "no time has passed"


@given(st.lists(st.integers(0, 2**40), max_size=10), st.lists(st.integers(0, 2**40), max_size=10))
def test_load_is_a_share_whatever_the_counters_do(before, after):
    share = busy_share(before, after)
    assert share is None or 0 <= share <= 1


def test_memory_fan_and_mode(root):
    put(root, "proc/meminfo", "MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  6000 kB")
    put(root, "sys/class/hwmon/hwmon2/name", "pwmfan")
    put(root, "sys/class/hwmon/hwmon2/pwm1", 51)
    put(root, "sys/class/hwmon/hwmon10/name", "pwm_tach")
    put(root, "sys/class/hwmon/hwmon10/rpm", 1800)
    put(root, "var/lib/nvpmodel/status", "pmode:0002 fmode:fanNull")
    put(root, "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >")
    sample = Sysfs(root).read()
    assert (sample.memory_used, sample.memory_total) == (2000 * 1024, 8000 * 1024)
    assert (sample.fan, sample.fan_rpm, sample.mode) == (0.2, 1800.0, "MAXN_SUPER")
    put(root, "var/lib/nvpmodel/status", "pmode:0007 fmode:fanNull")
    assert Sysfs(root).read().mode is None, "a number without a name says nothing"


def test_a_board_without_a_single_answer_is_an_error_that_says_which(root):
    source = Sysfs(root)
    shutil.rmtree(root / "sys")
    with pytest.raises(TelemetryError, match=r"No sensor of this board answers \(cpu: No such file"):
        source.read()
    orin_nano(root)
    assert source.read().tj == 48.5
