"""Whatever the deltas are, the events of a stream are in order, and a client makes the whole answer of them."""

import json
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.messages import Content, Finish, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart, Usage
from qwen_edge.core.errors import engine_failed
from qwen_edge.server.anthropic.cut_object import cut_object
from qwen_edge.server.anthropic.encode import Encoder
from tests.cuts import cut

texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, values, max_size=4)


@st.composite
def calls(draw):
    written = json.dumps(draw(objects), ensure_ascii=draw(st.booleans()))
    pieces = cut(written, draw(st.lists(st.integers(0, 200), max_size=5)))
    return [ToolCallStart(draw(texts)), *map(ToolCallArguments, pieces), ToolCallEnd()]


runs = st.lists(texts.map(Content), max_size=4) | st.lists(texts.map(Reasoning), max_size=4) | calls()
usages = st.builds(Usage, st.integers(10, 99), st.integers(0, 99), st.integers(0, 10), reasoning_tokens=st.just(3))
finishes = st.builds(
    Finish,
    st.sampled_from(["stop", "length", "tool_calls"]),
    usages,
    stopped_by=st.sampled_from(["", "loop"]),
    stop_text=st.sampled_from(["", "X"]),
)
answers = st.tuples(st.lists(runs, max_size=5), finishes).map(lambda answer: [*chain(*answer[0]), answer[1]])


def events_of(deltas, **options) -> list[dict[str, Any]]:
    encoder = Encoder("m", **options)
    frames = [frame for delta in deltas for frame in encoder.frames(0, delta)] + [encoder.end()]
    return [parsed(frame) for frame in frames]


def parsed(frame: bytes) -> dict[str, Any]:
    """The data of an event, checked."""
    name, data, *rest = frame.decode().split("\n")
    assert rest == ["", ""]
    event = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}"
    return event


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What Anthropic's SDK makes of the events (lib/streaming/_messages.py), and the order in which they must come."""
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    message, blocks, written, is_open = dict(events[0]["message"]), list[Any](), dict[int, str](), False
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            is_open = True
            blocks.append(dict(event["content_block"]))
            continue
        assert is_open
        assert event["index"] == len(blocks) - 1
        if event["type"] == "content_block_stop":
            is_open = False
            continue
        assert event["type"] == "content_block_delta"
        delta, block = event["delta"], blocks[-1]
        kinds = {"text": ["text_delta"], "thinking": ["thinking_delta", "signature_delta"],
                 "tool_use": ["input_json_delta"]}  # fmt: skip
        assert delta["type"] in kinds[block["type"]]
        if delta["type"] == "input_json_delta":
            written[event["index"]] = written.get(event["index"], "") + delta["partial_json"]
        else:
            field = delta["type"].removesuffix("_delta")
            assert delta[field]
            block[field] += delta[field]
    assert not is_open
    for index, text in written.items():
        blocks[index]["input"] = json.loads(text)
    return {**message, "content": blocks, **events[-2]["delta"], "usage": events[-2]["usage"]}


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    content = [{name: value for name, value in block.items() if name != "id"} for block in message["content"]]
    assert message["id"].startswith("msg_")
    assert all(block["id"].startswith("toolu_") for block in message["content"] if block["type"] == "tool_use")
    return {**message, "id": "", "content": content}


@given(answers, st.booleans())
def test_a_stream_makes_the_message_that_comes_without_streaming(deltas, pinned):
    whole = Encoder("m", pinned=pinned).whole([(0, delta) for delta in deltas])
    assert without_ids(accumulated(events_of(deltas, pinned=pinned))) == without_ids(whole)
    assert all(whole.get(field) for field in ("type", "role", "model", "stop_reason", "usage"))


@given(answers)
def test_no_text_is_lost_and_neighbours_are_of_different_kinds(deltas):
    content = Encoder("m").whole([(0, delta) for delta in deltas])["content"]
    for kind, type_ in ((Content, "text"), (Reasoning, "thinking")):
        said = "".join(delta.text for delta in deltas if isinstance(delta, kind))
        assert "".join(block[type_] for block in content if block["type"] == type_) == said
    names = [delta.name for delta in deltas if isinstance(delta, ToolCallStart)]
    assert [block["name"] for block in content if block["type"] == "tool_use"] == names
    kinds = [block["type"] for block in content]
    assert all("tool_use" in pair or pair[0] != pair[1] for pair in pairwise(kinds))


@given(answers)
def test_cached_tokens_are_no_input_tokens_and_the_sum_is_the_prompt(deltas):
    finish = deltas[-1]
    for pinned in (False, True):
        usage = Encoder("m", pinned=pinned).whole([(0, finish)])["usage"]
        parts = [usage[f"{part}input_tokens"] for part in ("", "cache_creation_", "cache_read_")]
        assert sum(parts) == finish.usage.prompt_tokens
        assert parts[2] == finish.usage.cached_tokens
        assert parts[0 if pinned else 1] == 0
        assert usage["output_tokens"] == finish.usage.completion_tokens


USAGE = Usage(4, 2)


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop", USAGE), "end_turn", None),
        (Finish("stop", USAGE, stop_text="END"), "stop_sequence", "END"),
        (Finish("length", USAGE), "max_tokens", None),
        (Finish("tool_calls", USAGE), "tool_use", None),
        (Finish("tool_calls", USAGE, stop_text="END"), "tool_use", None),
        (Finish("stop", USAGE, stopped_by="loop"), "end_turn", None),
    ],
)
def test_the_reason_of_the_end(finish, reason, sequence):
    message = Encoder("m").whole([(0, Content("a")), (0, finish)])
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    assert message.get("x_stopped", "") == finish.stopped_by


def test_a_thinking_block_ends_with_its_signature_and_equal_thinking_has_equal_signatures():
    thinking = [Reasoning("a"), Reasoning("b")]
    events = events_of([*thinking, Content("x"), *thinking, Finish("stop", USAGE)])
    signatures = [e["delta"]["signature"] for e in events if e.get("delta", {}).get("type") == "signature_delta"]
    assert len(signatures) == 2
    assert len(set(signatures)) == 1
    assert events[5]["delta"]["type"] == "signature_delta"
    assert events[6]["type"] == "content_block_stop"


def test_a_call_that_is_cut_has_the_arguments_that_are_complete():
    deltas = [ToolCallStart("f"), ToolCallArguments('{"a": "x", "b": "/ho'), Finish("length", USAGE)]
    [block] = Encoder("m").whole([(0, delta) for delta in deltas])["content"]
    assert (block["name"], block["input"]) == ("f", {"a": "x"})
    last = [event["type"] for event in events_of(deltas)][-3:]
    assert last == ["content_block_stop", "message_delta", "message_stop"]


def holds(part: Any, whole: Any) -> bool:
    """Whether all that `part` has is in `whole`, unchanged."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and holds(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(holds, part, whole))
    return part == whole and type(part) is type(whole)


@given(objects, st.booleans(), st.integers(0, 400))
def test_of_a_cut_object_no_value_is_wrong(whole, ascii_only, end):
    text = json.dumps(whole, ensure_ascii=ascii_only)
    assert cut_object(text) == whole
    assert holds(cut_object(text[:end]), whole)


@pytest.mark.parametrize(
    ("text", "object_"),
    [
        ("", {}),
        ("{", {}),
        ("[1", {}),
        ('{"a', {}),
        ('{"a":', {}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": "x"', {"a": "x"}),
        ('{"a": "x\\"', {}),
        ('{"a": [1, {"b": true, "c', {"a": [1, {"b": True}]}),
        ('{"a": tru', {}),
        ("nonsense", {}),
    ],
)
def test_what_is_complete_of_a_cut_object(text, object_):
    assert cut_object(text) == object_


def test_an_error_in_a_stream_is_the_last_event():
    event = parsed(Encoder("m").error(engine_failed("it is gone")))
    assert event["type"] == "error"
    assert event["error"]["type"] == "overloaded_error"
    assert "it is gone" in event["error"]["message"]
    assert event["request_id"].startswith("req_")
