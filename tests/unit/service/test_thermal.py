"""What is said of the device, and how often."""

from types import SimpleNamespace

from qwen_edge.config.schema import DeviceConfig
from qwen_edge.device.sources.reader import SourceSearch
from qwen_edge.device.telemetry import Telemetry
from qwen_edge.service.thermal import ThermalControl


def thermal(**settings) -> ThermalControl:
    engine = SimpleNamespace(on_step=None, pending=0, limit=lambda limits: None, client_of=lambda request: "")
    return ThermalControl(engine, DeviceConfig(**settings))


def test_what_cannot_be_kept_to_is_said_once_however_often_a_source_is_looked_for(caplog):
    one = thermal(watts=15.0)
    for _ in range(3):
        one._on_reader_event(SourceSearch("none: nothing is there", False))
    assert sum("device.watts has no effect" in line for line in caplog.messages) == 1


def test_a_sensor_that_does_not_answer_is_said_once(caplog):
    one = thermal()
    one._on_reader_event(SourceSearch("test", True))
    for at in range(4):
        missing = ("VDD_IN: no such device",) if at != 2 else ()
        one._on_reader_event(Telemetry(source="test", at=float(at), tj=50.0, missing=missing))
    assert sum("VDD_IN: no such device" in line for line in caplog.messages) == 1
