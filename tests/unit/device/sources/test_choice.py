"""The source is the one that was asked for, or the best there is; and one is told which, or why there is none."""

import socket
import threading
from typing import get_args

import msgspec
import pytest

from qwen_edge.config.schema import SourceKind
from qwen_edge.device.sources.choice import choose
from qwen_edge.device.sources.jtop import Jtop
from qwen_edge.device.sources.laptop import Laptop
from qwen_edge.device.sources.sysfs import Sysfs
from qwen_edge.device.sources.trace import Trace, record
from qwen_edge.device.telemetry import Telemetry, TelemetryError
from tests.unit.device.sources.trees import orin_nano, zone


def no_card() -> None:
    """As where there is no library of NVIDIA's."""


def test_a_jetson_is_read_by_itself_first(tmp_path):
    orin_nano(tmp_path)
    source, words = choose("auto", root=tmp_path, nvml=no_card)
    assert isinstance(source, Sysfs)
    assert words == "sysfs: the sensors of this Jetson"


def test_else_a_pc_is_read(tmp_path):
    zone(tmp_path, 0, "x86_pkg_temp", 50_000)
    source, words = choose("auto", root=tmp_path, nvml=no_card)
    assert isinstance(source, Laptop)
    assert words == "laptop: the sensors of this machine"


def test_a_machine_that_tells_nothing_has_no_source_and_it_is_said_why(tmp_path):
    source, words = choose("auto", root=tmp_path, nvml=no_card)
    assert source is None
    assert words.startswith("none: /sys shows no temperature zone and no power rail of a Jetson")
    assert "as in most virtual machines" in words


def test_what_was_asked_for_and_is_not_there_is_not_replaced(tmp_path):
    zone(tmp_path / "pc", 0, "x86_pkg_temp", 50_000)
    source, words = choose("sysfs", root=tmp_path / "pc", nvml=no_card)
    assert source is None
    assert words.startswith("none: /sys shows no temperature zone and no power rail of a Jetson")
    source, words = choose("laptop", root=tmp_path, nvml=no_card)
    assert source is None
    assert words.startswith("none: /sys shows no processor temperature")
    assert choose("none", root=tmp_path / "pc") == (None, "none: telemetry is switched off")


def test_jtop_is_a_process_of_our_own_where_systemd_has_none(tmp_path):
    source, words = choose("jtop", root=tmp_path)
    assert isinstance(source, Jtop)
    assert words == "jtop: read by a helper process of qwen-edge"


def test_jtop_is_systemds_process_where_its_socket_is(tmp_path):
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "run/qwen-edge-jtop.sock"))
        server.listen()
        source, words = choose("jtop", root=tmp_path)
        assert words == f"jtop: read by the process behind qwen-edge-jtop.socket ({tmp_path}/run/qwen-edge-jtop.sock)"

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(msgspec.json.encode(Telemetry(source="jtop", at=1.0)) + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert source.read().at == 1.0
        thread.join()
    source.close()


def test_a_trace_is_played_at_the_speed_that_was_asked_for(tmp_path):
    path = tmp_path / "day.jsonl"
    with path.open("wb") as file:
        record([Telemetry(source="sysfs", at=1.0)], file)
    source, words = choose("trace", trace=path, speed=60.0)
    assert isinstance(source, Trace)
    assert words == f"trace: {path}, 60 times as fast"
    with pytest.raises(TelemetryError, match=r"set device\.trace"):
        choose("trace")


@pytest.mark.parametrize("kind", get_args(SourceKind))
def test_every_kind_that_the_settings_take_is_a_source_or_says_why_it_is_none(tmp_path, kind):
    file = tmp_path / "trace"
    with file.open("wb") as opened:
        record([Telemetry(source="sysfs", at=0.0)], opened)
    source, words = choose(kind, root=tmp_path, trace=file, nvml=no_card)
    assert words.startswith("none: " if source is None else f"{kind}: ")
