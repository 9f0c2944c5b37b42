"""Text from outside is one harmless line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.printable import is_hidden, printable, without_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("temperature", "temperature"),
        ("Straße 7, 你好\u3000世界 👩\u200d👧", "Straße 7, 你好\u3000世界 👩\u200d👧"),
        ("a\nINFO forged", "a\\nINFO forged"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),  # the same in one character
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 99 + "…"),
        ("\n" * 900_000, "\\n" * 49 + "\\…"),
        (ValueError("a\tb"), "a\\tb"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out_and_what_is_long_is_cut(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(2, 50))
def test_no_text_is_longer_or_more_than_one_printable_line(text, most):
    shown = printable(text, most)
    assert len(shown) <= most
    assert not any(is_hidden(one) or one in "\n\t" for one in shown)
    shown.encode()


@given(st.text(st.characters()))
def test_another_program_gets_the_text_but_nothing_that_controls_a_terminal(text):
    shown = without_controls(text)
    assert not any((one < " " and one not in "\n\t") or "\x7f" <= one < "\xa0" for one in shown)
    shown.encode()


def test_what_belongs_to_a_text_stays_for_another_program():
    assert without_controls("\u200fשלום\u200e\n\t👩\u200d🚀\xa0é") == "\u200fשלום\u200e\n\t👩\u200d🚀\xa0é"
    assert without_controls("\x1b[2J\r\x9b\ud800") == "\\x1b[2J\\r\\x9b\\ud800"
