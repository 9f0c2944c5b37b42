"""The demo model's own chat template renders, character by character, what Qwen3-0.6B's does.

Conversations are generated. Qwen's template is no part of this repository.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.demo_model.render import TEMPLATE, compiled
from tests.shared.conftest import SHARED

QWENS = SHARED / "data" / "Qwen3-0.6B.jinja"


WORDS = st.lists(
    st.sampled_from(
        [
            "灯",
            "turn on",
            " ",
            "\n",
            "\n\n",
            "<think>",
            "</think>",
            "<think>\nso\n</think>\n\n",
            "<tool_response>",
            "</tool_response>",
            "<|im_end|>",
            "{{ x }}",
            '"',
            "\\",
            "é",
            "<tool_call>",
        ]
    ),
    max_size=5,
).map("".join)
TEXT = st.one_of(WORDS, st.text(max_size=12), WORDS.map("<tool_response>{}</tool_response>".format))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FUNCTION = st.fixed_dictionaries({"name": TEXT, "arguments": st.dictionaries(TEXT, JSON, max_size=3) | TEXT})
CALL = st.one_of(FUNCTION, FUNCTION.map(lambda function: {"id": "call_1", "type": "function", "function": function}))
ASSISTANT = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT},
    optional={"reasoning_content": st.none() | TEXT, "tool_calls": st.none() | st.lists(CALL, max_size=3)},
)
OTHERS = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "user", "tool", "tool"]), "content": TEXT})
MESSAGES = st.lists(OTHERS | ASSISTANT, min_size=1, max_size=7)
TOOLS = st.none() | st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": TEXT, "description": TEXT, "parameters": JSON}),
        }
    ),
    max_size=3,
)
SWITCHES = st.fixed_dictionaries(
    {}, optional={"enable_thinking": st.booleans() | st.none(), "add_generation_prompt": st.booleans()}
)


@settings(max_examples=500)
@given(messages=MESSAGES, tools=TOOLS, switches=SWITCHES)
def test_demo_template_renders_what_qwens_renders(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, switches: dict[str, bool | None]
) -> None:
    given = {"messages": messages, "tools": tools, **switches}
    assert compiled(TEMPLATE).render(given) == compiled(QWENS).render(given)


def test_a_whole_tool_conversation_is_the_same_in_every_mode() -> None:
    function = {"name": "set_light", "arguments": {"room": "客厅", "state": "on"}}
    messages = [
        {"role": "system", "content": "You are a smart-home assistant."},
        {"role": "user", "content": "把客厅的灯打开"},
        {"role": "assistant", "content": "", "reasoning_content": "开灯。", "tool_calls": [{"function": function}]},
        {"role": "tool", "content": '{"ok": true}'},
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": "<think>\n好了。\n</think>\n\n客厅的灯已打开。"},
        {"role": "user", "content": "再关掉它"},
        {"role": "assistant", "content": "", "tool_calls": [function, function]},
        {"role": "tool", "content": "done"},
    ]
    tools = [{"type": "function", "function": {"name": "set_light", "parameters": {"type": "object"}}}]
    for end in range(1, len(messages) + 1):
        for offered in (tools, [], None):
            for thinking in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
                given = {"messages": messages[:end], "tools": offered, "add_generation_prompt": True, **thinking}
                assert compiled(TEMPLATE).render(given) == compiled(QWENS).render(given)
