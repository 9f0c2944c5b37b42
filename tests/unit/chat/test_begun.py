"""An answer that the client has begun goes on where the client stopped, with every kind of template."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.chat.template import ChatTemplate, closes_reasoning, opens_reasoning
from qwen_edge.protocol.messages import Sampling, Segment
from tests.fakes import SPECIALS, TEMPLATE
from tests.unit.chat.templates import CHATML

ALWAYS = CHATML.replace("assistant\n{%", "assistant\n<think>\n{%") + "{# </think> #}"
TEMPLATES = {
    "optional": ChatTemplate(TEMPLATE, SPECIALS),
    "always": ChatTemplate(ALWAYS, SPECIALS),
    "never": ChatTemplate(CHATML, SPECIALS),
}
USER = {"role": "user", "content": "Count to three."}


def request(*messages, **more) -> ChatRequest:
    return ChatRequest(messages=messages or (USER,), sampling=Sampling(), **more)


def text_of(segments) -> str:
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_prompt_ends_with_the_beginning(kind):
    template = TEMPLATES[kind]
    prompt = template.render(request(thinking=False if kind == "optional" else None))
    assert opens_reasoning(prompt) == (kind == "always") == (template.abilities.thinking == "always")
    begun = template.with_beginning(prompt, "One, ")
    assert begun[: len(prompt)] == prompt
    assert text_of(begun).endswith("One, ")
    assert closes_reasoning(begun[:-1]) == (kind != "never")


def test_an_open_think_block_is_closed_by_the_special_token():
    template = TEMPLATES["always"]
    begun = template.with_beginning(template.render(request()), "One, ")
    assert (
        begun[-5:]
        == (
            Segment("<think>", True),
            Segment("\n"),
            Segment("\n"),
            Segment("</think>", True),
            Segment("\n\n"),
            Segment("One, "),
        )[-5:]
    )


@given(st.lists(st.sampled_from([*SPECIALS, "a", "\n", "<", "你"]), min_size=1, max_size=6).map("".join))
def test_no_beginning_is_read_as_control_text(begun):
    for template in TEMPLATES.values():
        *_, last = template.with_beginning(template.render(request()), begun)
        assert last == Segment(begun)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_next_turn_has_the_beginning_and_what_the_model_added(kind):
    template = TEMPLATES[kind]
    foretold = text_of(template.next_turn(request(begun="One, "), "two, three."))
    answer = {"role": "assistant", "content": "One, two, three."}
    whole = text_of(template.render(request(USER, answer, {"role": "user", "content": "Thanks."})))
    assert whole.startswith(foretold)
    assert "One, two, three." in foretold
