"""Deltas of any model become the same chunks and bodies as those of ours."""

from qwen_edge.chat.messages import ToolCallArguments, ToolCallEnd, ToolCallStart
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.openai.encode import Encoder


def logprob(text: str) -> tuple[Logprob, ...]:
    return (Logprob(Alternative(text.encode(), -1.0), ()),)


CALL = [
    ToolCallStart("f", logprob("a")),
    ToolCallArguments('{"x":', logprob("b")),
    ToolCallArguments(" 1}"),
    ToolCallEnd(logprob("c")),
]


def test_of_a_call_the_name_comes_first_then_the_arguments_as_they_come():
    encoder = Encoder("m")
    chunks = [encoder.delta(0, delta)["choices"][0] for delta in CALL]
    calls = [choice["delta"]["tool_calls"][0] for choice in chunks[:-1]]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"].startswith("call_") and calls[0]["type"] == "function"
    assert calls[0]["function"] == {"name": "f", "arguments": ""}
    assert all(call.keys() == {"index", "function"} for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"x": 1}'
    logprobs = [one["token"] for choice in chunks if choice["logprobs"] for one in choice["logprobs"]["content"]]
    assert logprobs == ["a", "b", "c"]


def test_the_pieces_of_two_answers_do_not_mix():
    encoder = Encoder("m")
    other = [ToolCallStart("g"), ToolCallArguments("{}"), ToolCallArguments(""), ToolCallEnd()]
    texts = {0: ["", ""], 1: ["", ""]}
    for pair in zip(CALL, other, strict=True):
        for choice, delta in enumerate(pair):
            for call in (encoder.delta(choice, delta) or {"choices": [{"delta": {}}]})["choices"][0]["delta"].get(
                "tool_calls", ()
            ):
                assert call["index"] == 0
                texts[choice][0] += call["function"].get("name", "")
                texts[choice][1] += call["function"]["arguments"]
    assert texts == {0: ["f", '{"x": 1}'], 1: ["g", "{}"]}
