"""The drawing of the device's history."""

import os
import re
from datetime import timezone
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from qwen_edge.cli.device_plot import History, drawn, plot
from qwen_edge.core.errors import UserError
from qwen_edge.device.history_file import Sample


def minutes(*numbers: int, **values) -> History:
    samples = [Sample(at=1_764_500_000 + 60 * number, **values) for number in numbers]
    return History("device.history", 60, samples)


MEASURED = {"celsius": 61.0, "target": 85.0, "watts": 7.0, "duty": 0.5, "tokens_per_second": 12.0}


def test_heat_against_its_target_duty_watts_and_speed_are_drawn():
    svg = drawn(minutes(*range(60), **MEASURED), 1, timezone.utc)
    ElementTree.fromstring(svg)
    for title in ("Hottest zone", "Duty", "Power", "Tokens per second", "target"):
        assert title in svg


@pytest.mark.parametrize(
    ("hours", "words"), [(0.5, "the last 30 min"), (1, "the last hour"), (1.5, "the last 1.5 hours")]
)
def test_the_title_says_what_time_is_drawn(hours, words):
    assert f"The device in {words}<" in drawn(minutes(*range(10), **MEASURED), hours, timezone.utc)


def test_what_was_never_measured_has_no_plot():
    svg = drawn(minutes(*range(60), duty=1.0), 1, timezone.utc)
    assert "Duty" in svg
    assert "Hottest zone" not in svg
    assert "Power" not in svg


def test_no_line_joins_two_samples_between_which_no_daemon_ran():
    whole = drawn(minutes(*range(100), duty=1.0), 2, timezone.utc)
    halves = drawn(minutes(*range(50), *range(60, 100), duty=1.0), 2, timezone.utc)
    paths = len(re.findall("<path", whole))
    assert len(re.findall("<path", halves)) == paths + 2, "of both plots"
    assert len(re.findall("<path", drawn(minutes(*range(50), *range(51, 100), duty=1.0), 2, timezone.utc))) == paths


def test_a_drawing_is_written_to_a_device_and_does_not_replace_it(monkeypatch, tmp_path):
    answer = msgspec.to_builtins(minutes(*range(9), duty=1.0))
    monkeypatch.setattr("qwen_edge.cli.device_plot.ask", lambda *_: answer)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        plot("http://127.0.0.1:9", 1, pipe)
        assert os.read(reader, 4) == b"<svg"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_name_that_no_file_can_have_is_a_sentence(monkeypatch):
    answer = msgspec.to_builtins(minutes(*range(9), duty=1.0))
    monkeypatch.setattr("qwen_edge.cli.device_plot.ask", lambda *_: answer)
    for name in ("a\0b", "x" * 300):
        with pytest.raises(UserError, match="cannot be written"):
            plot("http://127.0.0.1:9", 1, Path(name))
