"""/think and /no_think in a message turn the thinking on and off, as Qwen3 was trained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.soft_switch import switched_thinking


def switched(*texts: str, role: str = "user") -> bool | None:
    return switched_thinking([{"role": role, "content": text} for text in texts])


@pytest.mark.parametrize(
    ("text", "thinks"),
    [
        ("/think", True),
        ("/no_think", False),
        ("How late is it? /no_think", False),
        ("/no_think How late is it?", False),
        ("Say it.\n/think\n", True),
        ("Quickly: /no_think.", False),
        ("Now /think, please", True),
        ("/no_think!", False),
        ("/think 想一想", True),
        ("", None),
        ("think", None),
        ("no_think", None),
        ("/thinking", None),
        ("/no_thinking", None),
        ("/nothink", None),
        ("/Think", None),
        ("a/think", None),
        ("https://example.org/think", None),
        ("/think/tank", None),
        ("//think", None),
        ("/usr/no_think", None),
        ("/think-tank", None),
        ("/think.html", None),
        ("/think_", None),
        ("`/think`", None),
    ],
)
def test_a_switch_is_a_word_of_its_own(text, thinks):
    assert switched(text) is thinks


@given(st.lists(st.sampled_from(["/think", "/no_think", "hello", "/thinking"]), max_size=6))
def test_the_last_switch_counts_within_a_message_and_through_all_messages(words):
    switches = [word for word in words if word in ("/think", "/no_think")]
    last = switches[-1] == "/think" if switches else None
    assert switched(" ".join(words)) is last
    assert switched(*words) is last


@pytest.mark.parametrize(("role", "counts"), [("user", True), ("system", True), ("assistant", None), ("tool", None)])
def test_only_users_and_the_system_switch(role, counts):
    assert switched("/think", role=role) is counts


@given(st.text())
def test_any_text_is_read(text):
    assert switched(text) in (True, False, None)
    assert switched(f"{text} /no_think") is False
