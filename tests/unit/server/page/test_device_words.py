"""The words of the device's part of the page: each there, in both languages, with the same values in it."""

from __future__ import annotations

import re

from qwen_edge.supervisor.state import EngineState
from tests.unit.server.page.test_static import STATIC

_PAIR = re.compile(r"^  '?([\w.]+)'?: \['([^']+)', '([^']+)'\],$", re.MULTILINE)
_USED = re.compile(r"""\b(?:t|label)(?:\(|: )'([\w.]+)'|\[?'((?:fact|why|none)\.[\w.]+)'""")
_SCRIPTS = ("device.js", "device_view.js", "plot.js", "remembered.js")


def words() -> dict[str, tuple[str, str]]:
    text = (STATIC / "device_words.js").read_text()
    found = {key: (english, chinese) for key, english, chinese in _PAIR.findall(text)}
    assert len(found) == text.count("['"), "every line has the form that this test reads"
    return found


def test_every_word_has_the_same_values_in_both_languages():
    for key, (english, chinese) in words().items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese)), key


def test_no_chinese_sentence_has_the_punctuation_of_another_language():
    for key, (_, chinese) in words().items():
        assert not re.search(r"[\u4e00-\u9fff}][,:;?!()]|[,:;?!()][\u4e00-\u9fff]", chinese), key


def test_every_word_that_the_device_uses_is_there():
    known, shared = words(), (STATIC / "en.js").read_text()
    used = {a or b for name in _SCRIPTS for a, b in _USED.findall((STATIC / name).read_text())}
    assert len(used) > 40
    assert {key for key in used if f"'{key}'" not in shared} - known.keys() == set()


def test_every_state_of_the_engine_and_every_reason_has_words():
    states = {f"engine.{state.value}" for state in EngineState} | {"engine.failing"}
    levels = {f"level.{name}" for name in ("nominal", "slowed", "warm", "hot", "critical", "unknown")}
    reasons = {f"why.{name}" for name in ("heat", "watts", "battery", "no_telemetry")}
    assert (states | levels | reasons) - words().keys() == set()
