"""Every form in which clients of Ollama write keep_alive."""

import math

import pytest

from qwen_edge.core.errors import RequestError
from qwen_edge.server.ollama.keep_alive import keep_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        (0, 0.0),
        (300, 300.0),
        (2.5, 2.5),
        (-1, math.inf),
        (-0.5, math.inf),
        ("0", 0.0),
        ("0s", 0.0),
        ("300", 300.0),
        ("300s", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1500ms", 1.5),
        ("+5m", 300.0),
        ("-1", math.inf),
        ("-1s", math.inf),
        ("-5m", math.inf),
        (" 5m ", 300.0),
        ("24h", 86400.0),
    ],
)
def test_a_duration_is_read(value, seconds):
    assert keep_seconds(value) == seconds


@pytest.mark.parametrize(
    "value", ["forever", "5 minutes", "5x", "m", "-", "1h-5m", "١s", "\ud800", "9" * 200, "5m\n\x00"]
)
def test_what_is_no_duration_is_an_error_that_names_it(value):
    with pytest.raises(RequestError) as error:
        keep_seconds(value)
    assert error.value.parameter == "keep_alive"
    error.value.message.encode()


def test_a_very_long_number_is_for_ever_and_no_crash():
    assert keep_seconds(1e308) == 1e308
    assert keep_seconds("9" * 100) == 1e100
