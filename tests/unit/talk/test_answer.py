"""An answer is put together from chunks, whoever sends them."""

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.talk.answer import Answer, Reply, figures
from qwen_edge.talk.conversation import Call
from tests.fakes import ticking


def chunk(reason=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "model": "m"}


def test_pieces_are_told_as_they_come_and_put_together():
    reply = Reply(ticking(1.0))
    assert list(reply.feed(chunk(role="assistant", content=""))) == []
    kinds = [
        [piece.kind for piece in reply.feed(one)] for one in (chunk(reasoning_content="I th"), chunk(reasoning="ink"))
    ]
    assert kinds == [["reasoning"], ["reasoning"]]
    (piece,) = reply.feed(chunk(content="Hello"))
    assert (piece.kind, piece.text) == ("content", "Hello")
    list(reply.feed(chunk("stop", content=".")))
    list(reply.feed({"choices": [], "usage": {"prompt_tokens": 3}, "timings": {"predicted_ms": 5}}))
    answer = reply.answer()
    assert (answer.reasoning, answer.content, answer.finish_reason, answer.model) == ("I think", "Hello.", "stop", "")
    assert (answer.usage, answer.timings) == ({"prompt_tokens": 3}, {"predicted_ms": 5})
    assert answer.first is not None
    assert answer.thought > 0


def test_calls_are_whole_at_the_end_also_several_and_without_ids():
    reply = Reply()
    for index, name, arguments in [(0, "on", ""), (0, None, '{"a"'), (1, "off", "{}"), (0, None, ":1}")]:
        function = {"name": name, "arguments": arguments}
        list(reply.feed(chunk(tool_calls=[{"index": index, "function": function}])))
    list(reply.feed(chunk("tool_calls")))
    assert reply.answer().calls == (Call("on", '{"a":1}', "call_0"), Call("off", "{}", "call_1"))


def test_only_the_first_of_several_answers_counts():
    reply = Reply()
    list(reply.feed({"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]}))
    assert reply.answer().content == "yes"


@pytest.mark.parametrize("wrong", [{"choices": 5}, {"choices": [5]}, {"choices": [{"delta": {"content": {"a": 1}}}]}])
def test_what_is_no_chunk_is_a_sentence(wrong):
    with pytest.raises(UserError, match="no chunk of a chat completion"):
        Reply().feed(wrong)


def test_the_figures_are_those_of_the_server_where_it_tells_them():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 90},
        "energy_joules": 5.0,
    }
    answer = Answer(usage=usage, timings={"predicted_per_second": 12.5}, first=0.25, thought=1.5, seconds=3.0)
    assert dict(figures(answer, 4096)) == {
        "first token": "0.25 s",
        "thinking": "1.5 s",
        "answer": "20 tokens, 12.5 tokens/s",
        "prompt": "100 tokens, 90 of them cached",
        "energy": "5.0 J, 0.25 J a token",
        "context": "120 of 4096 tokens",
    }


@pytest.mark.parametrize(
    "usage", [{}, {"prompt_tokens": "many", "prompt_tokens_details": 5}, {"completion_tokens": None}]
)
def test_a_server_that_tells_nothing_or_nonsense_has_few_figures(usage):
    assert figures(Answer(usage=usage, first=0.5), None) == [("first token", "0.50 s")]
    assert figures(Answer(usage=usage), None) == []


@pytest.mark.parametrize("tokens", [10**400, -(10**400), float("nan"), float("inf"), "many", True])
def test_what_is_no_number_of_tokens_is_no_figure(tokens):
    assert figures(Answer(usage={"prompt_tokens": 3, "completion_tokens": tokens}), None) == [("prompt", "3 tokens")]
