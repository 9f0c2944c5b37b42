"""The drawing of the device's history."""

import re
from datetime import timezone
from xml.etree import ElementTree

import pytest

from qwen_edge.cli.device_plot import History, drawn
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
