"""A sampling default that no sampler can use is refused with the file and the key."""

import pytest

from tests.checkpoints import write_checkpoint
from tests.unit.convert.editing import edited, plan_of, refused


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "in")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("key", "value", "can_be"),
    [
        ("repetition_penalty", 0, "use a number above 0"),
        ("repetition_penalty", -0.0, "use a number above 0"),
        ("repetition_penalty", -1.1, "use a number above 0"),
        ("repetition_penalty", "0", "use a number above 0"),
        ("penalty_repeat", 0, "use a number above 0"),
        ("temperature", -0.1, "use a number from 0 up"),
        ("top_p", 1.1, "use a number above 0 up to 1"),
        ("top_p", 0, "use a number above 0 up to 1"),
        ("top_k", -1, "use a number from 0 up"),
        ("min_p", -0.1, "use a number from 0 up to 1"),
        ("min_p", 2, "use a number from 0 up to 1"),
        ("xtc_probability", 1.5, "use a number from 0 up to 1"),
        ("mirostat", 3, "use a number from 0 up to 2"),
        ("penalty_last_n", -2, "use a number from -1 up"),
        ("repetition_penalty", "much", "a number was expected"),
        ("temperature", "nan", "a number was expected"),
        ("temperature", True, "a number was expected"),
        ("temperature", 10**400, "a number was expected"),
        ("temperature", [0.7], "a number was expected"),
        ("top_k", 20.5, "a whole number was expected"),
    ],
)
def test_a_value_that_no_sampler_can_use_is_refused(folder, key, value, can_be):
    with edited(folder / "generation_config.json") as given:
        given[key] = value
    complaint = refused(folder)
    assert f"generation_config.json: {key} is " in complaint
    assert can_be in complaint
    assert len(complaint) < 500


def test_values_at_the_edges_go_along(folder):
    given = {"repetition_penalty": 0.01, "temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "penalty_last_n": -1}
    with edited(folder / "generation_config.json") as values:
        values.clear()
        values.update(given)
    names = {"repetition_penalty": "penalty_repeat", "temperature": "temp"}
    assert plan_of(folder).sampling == {names.get(key, key): value for key, value in given.items()}
