"""Whatever the deltas are, the events are well-formed, and a client that adds them up has the response."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from qwen_edge.chat.messages import (
    Content,
    Finish,
    Reasoning,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from qwen_edge.core.errors import RequestError, internal_error
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.openai.responses.encode import Encoder
from qwen_edge.server.openai.responses.reasoning_text import unpacked

EVENT = TypeAdapter(ResponseStreamEvent)
BEGUN = {
    "id": "resp_" + "0" * 32,
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "error": None,
    "usage": None,
}
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), min_size=1, max_size=4)


def call(name: str, pieces: list[str], *, whole: bool = True):
    return [ToolCallStart(name), *map(ToolCallArguments, pieces), *([ToolCallEnd()] if whole else [])]


BLOCKS = st.one_of(
    TEXTS.map(lambda texts: [Reasoning(text) for text in texts]),
    TEXTS.map(lambda texts: [Content(text) for text in texts]),
    st.tuples(st.sampled_from(["f", "g"]), st.lists(st.just("[1]"), max_size=3)).map(lambda one: call(*one)),
)


@st.composite
def answers(draw):
    """The deltas of an answer, and its Finish. An answer that a limit has cut may end inside a call."""
    deltas = [delta for block in draw(st.lists(BLOCKS, max_size=5)) for delta in block]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    if reason == "length" and draw(st.booleans()):
        deltas += call("cut", ["{"], whole=False)
    return deltas, Finish(reason, Usage(7, 5, 3, reasoning_tokens=2))


def read(data: bytes) -> list[dict]:
    """The events of a stream; the name of each must be its type."""
    events = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, line = frame.split("\n")
        events.append(json.loads(line.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def streamed(deltas, encoder: Encoder) -> list[dict]:
    return read(b"".join(frame for delta in deltas for frame in encoder.frames(0, delta)) + encoder.end())


def added_up(events: list[dict]) -> list[dict]:
    """The output, from the pieces alone. Every rule of the order is checked on the way."""
    output: list[dict] = []
    open_at = None
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert open_at is None and event["output_index"] == len(output)
            output.append(json.loads(json.dumps(event["item"])))
            open_at = event["output_index"]
            continue
        if "output_index" not in event:
            continue
        assert event["output_index"] == open_at, "a piece of an item that is not open"
        item = output[open_at]
        assert event.get("item_id", item["id"]) == item["id"]
        if kind == "content_part.added":
            item["content"].append(event["part"])
        elif kind == "reasoning_summary_part.added":
            item["summary"].append(event["part"])
        elif kind == "output_text.delta":
            item["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "reasoning_summary_text.delta":
            item["summary"][event["summary_index"]]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind == "output_text.done":
            assert event["text"] == item["content"][0]["text"]
        elif kind == "reasoning_summary_text.done":
            assert event["text"] == item["summary"][0]["text"]
        elif kind == "function_call_arguments.done":
            assert event["arguments"] == item["arguments"]
        elif kind.endswith("part.done"):
            assert event["part"] == (item["content"] if "content" in item else item["summary"])[0]
        elif kind == "output_item.done":
            item["status"] = event["item"].get("status")
            assert {**event["item"], "status": item["status"]} == item
            open_at = None
    assert open_at is None, "an item that is never done"
    return [{key: value for key, value in item.items() if value is not None} for item in output]


@given(answers())
def test_the_events_add_up_to_the_response(answer):
    deltas, finish = answer
    encoder = Encoder(BEGUN)
    events = streamed([*deltas, finish], encoder)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    status = "incomplete" if finish.reason == "length" else "completed"
    assert events[-1]["type"] == f"response.{status}"
    response = events[-1]["response"]
    assert response == encoder.response
    assert response["status"] == status
    assert added_up(events) == response["output"]
    assert len({item["id"] for item in response["output"]}) == len(response["output"])


@given(answers())
def test_the_openai_package_reads_the_events_and_finds_the_response(answer):
    deltas, finish = answer
    events = streamed([*deltas, finish], Encoder(BEGUN))
    state = ResponseStreamState(text_format=omit, input_tools=omit)
    for event in events:
        state.handle_event(EVENT.validate_python(event))
    if finish.reason != "length":
        done = state._completed_response
        assert done.output_text == "".join(delta.text for delta in deltas if isinstance(delta, Content))
        assert [item.id for item in done.output] == [item["id"] for item in events[-1]["response"]["output"]]


@given(answers())
def test_a_whole_answer_is_the_same_as_a_stream(answer):
    deltas, finish = answer
    whole = Encoder(BEGUN).whole([(0, event) for event in [*deltas, finish]])
    [*_, last] = streamed([*deltas, finish], Encoder(BEGUN))

    def without_random(response):
        items = [{**item, "call_id": None} for item in response["output"]]
        return {**response, "output": items, "completed_at": None}

    assert without_random(whole) == without_random(last["response"])


@given(answers(), st.integers(0, 10))
def test_an_error_ends_the_stream_wherever_it_comes(answer, after):
    deltas, _ = answer
    encoder = Encoder(BEGUN)
    data = b"".join(frame for delta in deltas[:after] for frame in encoder.frames(0, delta))
    events = read(data + encoder.error(internal_error()))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    error, failed = events[-2:]
    assert error["type"] == "error"
    assert error["code"] == error["error"]["code"] == "internal_error"
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "server_error"
    assert added_up(events) == failed["response"]["output"]


def test_home_assistant_finds_the_arguments_of_each_call():
    """As its openai_conversation reads: it adds the pieces to the item that was added, and parses them when done."""
    deltas = [*call("f", ['{"a": ', "1}"]), *call("g", [])]
    current, found = {}, []
    for event in streamed([*deltas, Finish("tool_calls", Usage(1, 1))], Encoder(BEGUN)):
        if event["type"] == "response.output_item.added":
            current = event["item"]
        elif event["type"] == "response.function_call_arguments.delta":
            current["arguments"] += event["delta"]
        elif event["type"] == "response.function_call_arguments.done":
            found.append((current["name"], json.loads(current["arguments"]), current["call_id"][:5]))
    assert found == [("f", {"a": 1}, "call_"), ("g", {}, "call_")]


def test_an_answer_without_a_word_is_an_empty_message():
    whole = Encoder(BEGUN).whole([(0, Reasoning("Hm.")), (0, Finish("stop", Usage(1, 1)))])
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
    assert whole["output"][1]["content"][0]["text"] == ""


def test_an_answer_that_the_limit_cuts_while_it_thinks_has_no_message():
    whole = Encoder(BEGUN).whole([(0, Reasoning("Hm.")), (0, Finish("length", Usage(1, 1)))])
    assert [item["type"] for item in whole["output"]] == ["reasoning"]
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_call_that_the_limit_cuts_is_incomplete():
    whole = Encoder(BEGUN).whole([(0, one) for one in [*call("f", ["{"], whole=False), Finish("length", Usage(1, 1))]])
    assert (whole["output"][0]["status"], whole["output"][0]["arguments"]) == ("incomplete", "{")


def test_the_opaque_text_carries_the_reasoning():
    encoder = Encoder(BEGUN, encrypted=True)
    events = streamed([Reasoning("Wie "), Reasoning("schön."), Finish("stop", Usage(1, 1))], encoder)
    [done] = [event["item"] for event in events if event["type"] == "response.output_item.done"][:1]
    assert unpacked(done["encrypted_content"], "x") == "Wie schön."
    assert encoder.response["output"][0] == done


@pytest.mark.parametrize("damage", ["gAAAAAB", "qwen-edge-1.", "qwen-edge-1.!!", "qwen-edge-1.eJxz"])
def test_an_opaque_text_of_another_server_is_refused_by_name(damage):
    with pytest.raises(RequestError) as refused:
        unpacked(damage, "input[3].encrypted_content")
    assert refused.value.parameter == "input[3].encrypted_content"
    assert refused.value.code == "invalid_encrypted_content"


def logprob(piece: str) -> Logprob:
    return Logprob(Alternative(piece.encode(), -0.5), (Alternative(b"x", -1.5),))


def test_logprobs_are_of_the_text_and_not_of_the_mark_before_it():
    first = Content("Yes", tuple(map(logprob, ["</think>", "\n\n", "Yes"])))
    events = streamed(
        [first, Content("!", (logprob("!"),)), Finish("stop", Usage(1, 1))], Encoder(BEGUN, logprobs=True)
    )
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in some] for some in deltas] == [["Yes"], ["!"]]
    part = events[-1]["response"]["output"][0]["content"][0]
    assert part["logprobs"] == [*deltas[0], *deltas[1]]
    assert part["logprobs"][0]["top_logprobs"] == [{"token": "x", "logprob": -1.5, "bytes": [120]}]
    quiet = Encoder(BEGUN).whole([(0, first), (0, Finish("stop", Usage(1, 1)))])
    assert quiet["output"][0]["content"][0]["logprobs"] == []


def test_usage_has_all_its_details():
    usage = Encoder(BEGUN).whole([(0, Finish("stop", Usage(7, 5, 3, joules=2.5, reasoning_tokens=2)))])["usage"]
    assert usage == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2, "x_forced_tokens": 0},
        "total_tokens": 12,
        "energy_joules": 2.5,
        "tokens_per_joule": 2.0,
    }
