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


def test_a_call_that_comes_in_pieces_is_one_chunk_with_the_logprobs_of_all():
    encoder = Encoder("m")
    *before, chunk = [encoder.delta(0, delta) for delta in CALL]
    assert before == [None, None, None]
    (choice,) = chunk["choices"]
    (call,) = choice["delta"]["tool_calls"]
    assert (call["index"], call["function"]) == (0, {"name": "f", "arguments": '{"x": 1}'})
    assert [one["token"] for one in choice["logprobs"]["content"]] == ["a", "b", "c"]


def test_the_pieces_of_two_answers_do_not_mix():
    encoder = Encoder("m")
    other = [ToolCallStart("g"), ToolCallArguments("{}"), ToolCallArguments(""), ToolCallEnd()]
    chunks = [
        encoder.delta(choice, delta) for pair in zip(CALL, other, strict=True) for choice, delta in enumerate(pair)
    ]
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks if chunk]
    assert [(call["index"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        (0, "f", '{"x": 1}'),
        (0, "g", "{}"),
    ]
