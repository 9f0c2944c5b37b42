"""jtop is read through a process of its own, and whatever that does, the one who reads is told in time."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.python_process import python_command
from qwen_edge.device.sources.jtop import Jtop
from qwen_edge.device.sources.jtop_connection import HelperProcess, HelperService
from qwen_edge.device.sources.jtop_errors import sentence
from qwen_edge.device.sources.jtop_values import telemetry
from qwen_edge.device.telemetry import Clock as Hertz
from qwen_edge.device.telemetry import Telemetry, TelemetryError, Trips
from tests.unit.device.sources.trees import Clock, orin_nano

ROOT = Path(__file__).resolve().parents[4]


def sample(at: float) -> str:
    return msgspec.json.encode(Telemetry(source="jtop", at=at)).decode()


SAY = "import sys, time, os, signal\ndef say(*lines): [print(line, flush=True) for line in lines]\n"
HANG = "time.sleep(100)"


class Lives:
    """Helper processes that do what their scripts say, one script a life; the last for all that follow."""

    def __init__(self, *scripts: str) -> None:
        self.scripts, self.begun = list(scripts), []

    def __call__(self) -> HelperProcess:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.begun.append(HelperProcess([sys.executable, "-c", SAY + script]))
        return self.begun[-1]

    def alive(self) -> int:
        return sum(psutil.pid_exists(life.pid) for life in self.begun)


@pytest.fixture
def jtop(request):
    """A source over such processes, and what it leaves behind: nothing."""
    made = []

    def make(*scripts: str, **options) -> tuple[Jtop, Lives]:
        lives = Lives(*scripts)
        made.append((Jtop(lives, **options), lives))
        return made[-1]

    yield make
    for source, lives in made:
        source.close()
        assert lives.alive() == 0


def test_the_newest_sample_is_read_and_older_ones_are_passed_over(jtop):
    both = f"{sample(1)}\n{sample(2)}\n".encode()
    source, lives = jtop(f"os.write(1, {both!r}); {HANG}")
    assert source.read().at == 2
    assert len(lives.begun) == 1


def test_a_line_that_comes_in_pieces_is_one_line(jtop):
    line = sample(5)
    source, _ = jtop(
        f"os.write(1, {line[:9].encode()!r}); time.sleep(0.05); os.write(1, {line[9:].encode()!r})\nsay('')"
    )
    assert source.read().at == 5


def test_what_it_says_at_its_end_is_the_reason(jtop):
    said = json.dumps({"error": "No jtop. Do this."})
    source, lives = jtop(f"say({sample(1)!r}, {said!r})")
    with pytest.raises(TelemetryError, match=r"^No jtop\. Do this\.$"):
        while source.read():
            pass
    assert lives.alive() == 0


@pytest.mark.parametrize(
    "script, reason",
    [
        ("sys.exit(7)", "without a message (exit code 7)"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "without a message (killed by SIGABRT)"),
        ("say('Traceback')", "wrote b'Traceback', which is not a sample"),
        ("os.write(1, bytes([0xff, 10]))", "which is not a sample"),
        (f"os.close(1)\n{HANG}", "without a message (killed by SIGKILL)"),
    ],
)
def test_any_other_end_is_a_reason_too(jtop, script, reason):
    source, lives = jtop(script)
    with pytest.raises(TelemetryError) as caught:
        source.read()
    assert reason in str(caught.value)
    assert lives.alive() == 0


@pytest.mark.parametrize(
    "first", [f"say({sample(1)!r})\n{HANG}", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANG]
)
def test_one_that_hangs_is_killed_in_time_and_said_to(jtop, first):
    source, lives = jtop(first, interval=0.1, grace=1.0)
    with pytest.raises(TelemetryError, match="is silent"):
        while source.read():
            pass
    assert lives.alive() == 0


def test_the_next_one_is_started_after_a_pause_that_grows_while_nothing_comes(jtop):
    clock = Clock(0.0)
    bad, good = "sys.exit(1)", f"say({sample(4)!r})"
    source, lives = jtop(bad, bad, bad, good, bad, clock=clock)
    begun, said = [], []
    while len(lives.begun) < 6:
        before = len(lives.begun)
        try:
            assert source.read().at == 4
        except TelemetryError as error:
            said.append((str(error), error.again))
        if len(lives.begun) > before:
            begun.append(clock.now)
        clock.now += 0.5
    pauses = [late - early for early, late in pairwise(begun)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[3] <= 1.5, "a sample ends the bad times"
    assert said[0][0].endswith("without a message (exit code 1).")
    assert said[:2] == [(said[0][0], 0.0), (said[0][0], 0.5)]


def test_closing_ends_the_process_and_whoever_reads_at_once(jtop):
    source, lives = jtop(f"say({sample(1)!r})\n{HANG}", interval=30.0)
    assert source.read().at == 1
    ended = []

    def read() -> None:
        with pytest.raises(TelemetryError) as caught:
            source.read()
        ended.append(str(caught.value))

    reader = threading.Thread(target=read)
    reader.start()
    source.close()
    reader.join(10)
    assert len(ended) == 1
    assert lives.alive() == 0
    with pytest.raises(TelemetryError, match=r"is stopping|without a message"):
        source.read()
    assert len(lives.begun) == 1


def test_a_process_that_cannot_be_started_is_said_to(tmp_path):
    source = Jtop(partial(HelperProcess, [str(tmp_path / "python")]))
    with pytest.raises(TelemetryError, match="cannot be started: No such file"):
        source.read()


@pytest.fixture
def listener(tmp_path):
    """A server at a socket's path, as systemd's would be."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "side.sock"))
        server.listen()
        server.settimeout(10)
        yield server


def test_a_process_of_systemds_is_read_through_its_socket(listener):
    source = Jtop(lambda: HelperService(Path(listener.getsockname())))

    def serve() -> None:
        with listener.accept()[0] as connection:
            connection.sendall(f"{sample(8)}\n".encode())
            assert connection.recv(1) == b"", "closed by the reader, and so its process would end"

    server = threading.Thread(target=serve)
    server.start()
    assert source.read().at == 8
    source.close()
    server.join(10)
    assert not server.is_alive()


def test_a_connection_that_ends_without_a_message_points_to_the_log(listener):
    source = Jtop(lambda: HelperService(Path(listener.getsockname())))

    def serve() -> None:
        listener.accept()[0].close()

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(TelemetryError, match=r"without a message \(see: journalctl -u 'qwen-edge-jtop@\*'\)"):
        source.read()
    server.join()


def test_nobody_at_the_socket_is_said_with_the_remedy(tmp_path, listener):
    with pytest.raises(TelemetryError, match=r"No such file.*systemctl enable --now qwen-edge-jtop\.socket"):
        HelperService(tmp_path / "none.sock")
    listener.close()
    with pytest.raises(TelemetryError, match="Connection refused"):
        HelperService(tmp_path / "side.sock")


@pytest.mark.parametrize(
    "error, said",
    [
        (Exception("The jtop.service is not active. Please run:\nsudo jtop --install-service"), "enable --now jtop"),
        (FileNotFoundError(2, "No such file or directory"), "enable --now jtop"),
        (ConnectionRefusedError(111, "Connection refused"), "enable --now jtop"),
        (Exception("I can't access jtop.service.\nPlease logout or reboot this board."), "usermod -aG jtop"),
        (PermissionError(13, "Permission denied"), "usermod -aG jtop"),
        (
            Exception("Mismatch version jtop service: [7.1.0] and client: [7.2.2]. Please"),
            "of release 7.1.0, .* 7.2.2",
        ),
        (Exception("Mismatch of Python versions between library and service"), "with an incompatible Python version"),
        (Exception("Authentication with jetson-stats server failed"), "rejects the key"),
        (Exception("Lost connection with jtop server"), "systemctl status jtop"),
        (Exception("Error connection"), "systemctl status jtop"),
        (BrokenPipeError(32, "Broken pipe"), "systemctl status jtop"),
        (ConnectionResetError(104, "Connection reset by peer"), "systemctl status jtop"),
        (EOFError(), "systemctl status jtop"),
        (ModuleNotFoundError("No module named 'jtop'", name="jtop"), r"pip install 'qwen-edge\[jetson\]'"),
        (ImportError("cannot import name 'x'", name="smbus2"), "cannot be imported"),
        (TelemetryError("As it is."), "As it is."),
    ],
)
def test_every_way_of_jtop_to_fail_is_a_sentence_with_what_to_do(error, said):
    assert re.search(said, sentence(error))
    assert "\n" not in sentence(error)


def test_what_is_no_known_failure_is_not_explained_away():
    assert sentence(KeyError("temperature")) is None


def client(**changes) -> SimpleNamespace:
    """What jtop has of an Orin Nano, as its client shows it."""
    core = {"online": True, "freq": {"min": 729_600, "max": 1_510_400, "cur": 1_190_400}, "idle": 70.0, "user": 30.0}
    values = {
        "temperature": {
            "tj": {"temp": 48.5, "online": True},
            "CPU": {"temp": 48.0, "online": True},
            "cv0": {"temp": -256, "online": False},
        },
        "power": {
            "rail": {"VDD_SOC": {"volt": 5080, "curr": 260, "power": 1320, "crit": 5920, "online": True}},
            "tot": {"volt": 5080, "curr": 1200, "power": 6096, "crit": 5920, "name": "VDD_IN"},
        },
        "gpu": {"ga10b": {"status": {"load": 3.5}, "freq": {"cur": 306_000, "max": 624_750, "min": 306_000}}},
        "cpu": {"total": {"idle": 1.0}, "cpu": [core, core | {"idle": 50.0}, {"online": False}]},
        "memory": {"RAM": {"tot": 8000, "used": 2000}, "EMC": {"cur": 2_133_000, "max": 2_133_000}},
        "fan": {"pwmfan": {"speed": [25.0], "rpm": [1800]}},
        "nvpmodel": SimpleNamespace(name="15W", id=0),
    }
    return SimpleNamespace(**values | changes)


def test_jtops_values_are_converted_to_our_units():
    assert telemetry(client(), 7.0, Trips(passive=99.0)) == Telemetry(
        source="jtop",
        at=7.0,
        temperatures={"tj": 48.5, "cpu": 48.0},
        tj=48.5,
        trips=Trips(passive=99.0),
        rails={"VDD_SOC": 1.32},
        watts=6.096,
        clocks={"cpu": Hertz(1190.4e6, 1510.4e6), "gpu": Hertz(306e6, 624.75e6), "memory": Hertz(2133e6, 2133e6)},
        gpu_load=0.035,
        cpu_load=0.4,
        memory_used=2000 * 1024,
        memory_total=8000 * 1024,
        fan=0.25,
        fan_rpm=1800.0,
        mode="15W",
    )


def test_a_total_without_a_name_is_a_sum_of_whatever_was_read_and_is_not_taken():
    rails = {"VDD_SOC": {"power": 1320}, "VDD_CPU_GPU_CV": {"power": 1524}}
    sample = telemetry(client(power={"rail": rails, "tot": {"power": 2844}}), 0.0, Trips())
    assert sample.watts is None
    assert sample.missing == ("board power: a rail that is part of the sum was not read",)


def test_an_agx_is_the_sum_of_its_three_rails_or_nothing():
    rails = {name: {"power": 1000} for name in ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")}
    assert telemetry(client(power={"rail": rails, "tot": {"power": 4000}}), 0.0, Trips()).watts == 3.0
    del rails["VDD_CPU_CV"]
    assert telemetry(client(power={"rail": rails, "tot": {"power": 3000}}), 0.0, Trips()).watts is None


def test_a_board_with_little_to_tell_tells_the_rest():
    bare = client(power={}, gpu={}, fan={}, nvpmodel=None, memory={"RAM": {"tot": 1, "used": 1}})
    sample = telemetry(bare, 0.0, Trips())
    assert (sample.watts, sample.rails, sample.gpu_load, sample.fan, sample.mode) == (None, {}, None, None, None)
    assert (sample.tj, sample.missing) == (48.5, ())


def test_a_place_that_should_have_a_temperature_and_has_none_is_missing():
    heat = {"tj": {"temp": -256, "online": False}, "cpu": {"temp": 51.0, "online": True}}
    sample = telemetry(client(temperature=heat), 0.0, Trips())
    assert (sample.tj, sample.missing) == (51.0, ("tj: offline",))


def test_a_current_above_what_the_hardware_allows_is_told():
    over = {"curr": 6000, "power": 30_000, "crit": 5920, "name": "VDD_IN"}
    assert telemetry(client(power={"tot": over}), 0.0, Trips()).throttled == ("over-current on VDD_IN",)


@given(degrees=st.floats(allow_nan=True, allow_infinity=True), milliwatts=st.integers())
def test_no_temperature_or_power_that_cannot_be_gets_through(degrees, milliwatts):
    whole = {"power": milliwatts, "name": "VDD_IN"}
    sample = telemetry(
        client(temperature={"tj": {"temp": degrees, "online": True}}, power={"tot": whole}), 0.0, Trips()
    )
    assert sample.tj is None or -50 <= sample.tj <= 150
    assert sample.watts is None or 0 <= sample.watts <= 1000


# a library of this name, so small that one sees what it does: `script` is what its client's thread does
LIBRARY = """
import threading, time, datetime, os, sys
from types import SimpleNamespace
print("a library that prints")
class JtopException(Exception): pass
class jtop(threading.Thread):
    def __init__(self, interval):
        super().__init__(daemon=True)
        self.interval, self.error, self.hear = interval, None, None
        for name, value in VALUES.items(): setattr(self, name, value)
    def attach(self, hear): self.hear = hear
    def update(self, uptime):
        self.uptime = datetime.timedelta(seconds=uptime)
        self.hear(self)
    def ok(self, spin): raise self.error
    def run(self):
        try: SCRIPT(self)
        except Exception as error: self.error = error
"""


def helper(tmp_path: Path, script: str, *arguments: str) -> subprocess.Popen:
    """The helper process with that library."""
    (tmp_path / "jtop").mkdir()
    values = vars(client(nvpmodel=None))
    text = f"VALUES = {values!r}\n{LIBRARY}\ndef SCRIPT(self):\n" + "\n".join(
        f"    {line}" for line in script.split("\n")
    )
    (tmp_path / "jtop/__init__.py").write_text(text)
    (tmp_path / "jtop/service.py").write_text("JTOP_PIPE = None\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = python_command("qwen_edge.device.sources.jtop_helper", *arguments)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_helper_process_writes_a_line_a_new_value_but_not_the_first_which_may_be_old(tmp_path):
    orin_nano(tmp_path / "board")
    script = "for uptime in (1, 2, 2, 3): self.update(uptime)\nraise JtopException('Lost connection with jtop server')"
    lines, log = helper(tmp_path, script, "--root", str(tmp_path / "board")).communicate(timeout=30)
    *samples, last = lines.splitlines()
    found = [msgspec.json.decode(line, type=Telemetry) for line in samples]
    assert [(one.source, one.tj, one.trips.passive) for one in found] == 2 * [("jtop", 48.5, 99.0)]
    assert json.loads(last)["error"].startswith("The connection to jtop's service is lost")
    assert log == "a library that prints\n", "what libraries print is no line of ours"


def test_the_helper_process_says_that_the_service_hangs_when_its_values_are_always_the_same(tmp_path):
    script = "self.update(1); self.update(2)\nwhile True: self.update(2); time.sleep(0.01)"
    process = helper(tmp_path, script, "--interval", "0.1")
    lines, _ = process.communicate(timeout=30)
    assert json.loads(lines.splitlines()[-1])["error"].startswith("jtop's service hangs")
    assert process.returncode == 1


def test_the_helper_process_says_that_somebody_else_made_the_service_slow(tmp_path):
    lines, _ = helper(tmp_path, "self.interval = 5\ntime.sleep(9)", "--interval", "1").communicate(timeout=30)
    assert "set jtop's interval to 5 s" in json.loads(lines)["error"]


def test_values_of_another_shape_are_an_error_with_the_whole_story_in_the_log(tmp_path):
    lines, log = helper(tmp_path, "del self.memory\nself.update(1); self.update(2)").communicate(timeout=30)
    assert "does not understand (AttributeError" in json.loads(lines)["error"]
    assert "Traceback" in log


def test_the_helper_process_ends_when_nobody_reads_it(tmp_path):
    script = "up = 0\nwhile True:\n    up += 1\n    self.update(up)\n    time.sleep(0.01)"
    process = helper(tmp_path, script)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == "a library that prints\n"
    process.stderr.close()


def test_without_jetson_stats_the_remedy_is_said():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    hide = "import sys; sys.modules['jtop'] = None; "
    command = python_command("qwen_edge.device.sources.jtop_helper")
    command[2] = hide + command[2]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "pip install 'qwen-edge[jetson]'" in json.loads(done.stdout)["error"]
