"""Deltas become Ollama's lines, or one body; what the last line says of times adds up."""

import json
from itertools import count
from typing import get_args

import pytest

from qwen_edge.chat.messages import Content, Finish, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart, Usage
from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.ollama.encode import Encoder, message, response
from qwen_edge.server.ollama.errors import STATUSES, error_response
from qwen_edge.server.ollama.framing import timestamp, timestamp_after

USAGE = Usage(prompt_tokens=9, completion_tokens=5)
CALL = [ToolCallStart("f"), ToolCallArguments('{"x":\n'), ToolCallArguments(" 12345678901234567890}"), ToolCallEnd()]


def encoder(said=message, loaded_at=0.0) -> Encoder:
    """Its clock goes on by a second whenever it is looked at, and it begins at 101."""
    seconds = count(101)
    return Encoder("m:latest", said, loaded_at=lambda: loaded_at, clock=lambda: float(next(seconds)), now=lambda: 1.5)


def lines(one: Encoder, *events):
    return [json.loads(frame) for event in events for frame in one.frames(0, event)]


def test_each_piece_of_a_chat_is_a_line_and_the_last_one_has_the_counts():
    one = encoder()
    one.notice()
    *pieces, last = lines(one, Reasoning("Hm."), Content("Hi"), Content("!"), Finish("stop", USAGE))
    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": "", "thinking": "Hm."},
        {"role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": "!"},
    ]
    assert all(piece["done"] is False for piece in pieces)
    assert (pieces[0]["model"], pieces[0]["created_at"]) == ("m:latest", "1970-01-01T00:00:01.500000Z")
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (9, 5)
    assert one.end() == b""


def test_the_durations_add_up_in_nanoseconds():
    one = encoder(loaded_at=101.25)
    one.notice()  # at 102
    one.notice()
    [last] = lines(one, Finish("stop", USAGE))  # at 103
    names = ("load_duration", "prompt_eval_duration", "eval_duration", "total_duration")
    assert [last[name] for name in names] == [250_000_000, 750_000_000, 1_000_000_000, 2_000_000_000]


@pytest.mark.parametrize("loaded_at", [-float("inf"), 0.0, 1e9])
def test_a_model_that_was_loaded_before_or_is_loaded_again_makes_no_negative_duration(loaded_at):
    one = encoder(loaded_at=loaded_at)
    [last] = lines(one, Finish("length", USAGE))
    assert all(last[name] >= 0 for name in last if name.endswith("_duration"))
    assert last["done_reason"] == "length"


def test_a_prompts_answer_is_called_response():
    one = encoder(response)
    first, second, last = lines(one, Reasoning("Hm."), Content("Hi"), Finish("stop", USAGE))
    assert (first["response"], first["thinking"]) == ("", "Hm.")
    assert second["response"] == "Hi"
    assert "thinking" not in second
    assert last["response"] == ""
    assert "message" not in last


def test_a_call_comes_whole_in_one_line_with_an_object_that_loses_no_digit():
    one = encoder()
    frames = [frame for event in CALL for frame in one.frames(0, event)]
    assert len(frames) == 1
    assert frames[0].count(b"\n") == 1
    assert json.loads(frames[0])["message"]["tool_calls"] == [
        {"function": {"name": "f", "arguments": {"x": 12345678901234567890}}}
    ]


def test_the_end_after_a_call_is_a_stop_and_a_call_that_was_cut_is_left_out():
    one = encoder()
    assert lines(one, *CALL, Finish("tool_calls", USAGE))[-1]["done_reason"] == "stop"
    [last] = lines(encoder(), *CALL[:2], Finish("length", USAGE))
    assert (last["done_reason"], "tool_calls" in last["message"]) == ("length", False)


def test_a_whole_answer_says_what_the_lines_say():
    events = [Reasoning("Hm"), Reasoning("."), Content("Hi"), Content("!"), *CALL, *CALL, Finish("tool_calls", USAGE)]
    whole = encoder().whole([(0, event) for event in events])
    whole = json.loads(json.dumps(whole, default=lambda raw: json.loads(bytes(raw))))
    call = {"function": {"name": "f", "arguments": {"x": 12345678901234567890}}}
    assert whole["message"] == {"role": "assistant", "content": "Hi!", "thinking": "Hm.", "tool_calls": [call, call]}
    assert (whole["done"], whole["done_reason"], whole["eval_count"]) == (True, "stop", 5)


def test_logprobs_stand_beside_the_text_with_the_bytes_of_half_a_character():
    known = (Logprob(Alternative(b"\xf0\x9f", -0.5), (Alternative(b"\xf0\x9f", -0.5), Alternative(b"a", -1.0))),)
    [piece] = lines(encoder(), Content("x", known))
    [logprob] = piece["logprobs"]
    assert (logprob["logprob"], logprob["bytes"]) == (-0.5, [0xF0, 0x9F])
    assert [one["token"] for one in logprob["top_logprobs"]] == ["\ufffd", "a"]
    whole = encoder().whole([(0, Content("x", known)), (0, Finish("stop", USAGE, known))])
    assert len(whole["logprobs"]) == 2


def test_an_error_in_a_stream_is_a_line_with_the_error_alone():
    assert encoder().error(RequestError("gone\n\ud800")).count(b"\n") == 1
    assert json.loads(encoder().error(RequestError("gone", "unavailable"))) == {"error": "gone"}


def test_every_kind_of_error_has_a_status_of_its_own():
    assert set(STATUSES) == set(get_args(ErrorKind))
    assert len(set(STATUSES.values())) == len(STATUSES)
    answer = error_response(RequestError("busy", "unavailable", retry_after=5))
    assert (answer.status, answer.headers["Retry-After"], json.loads(answer.body)) == (503, "5", {"error": "busy"})
    assert error_response(RequestError("x", "authentication")).headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12])
def test_what_never_expires_has_a_date_that_clients_can_read(seconds):
    assert timestamp_after(0.0, seconds).startswith("2262-")
    assert timestamp_after(0.0, 5.0) == timestamp(5.0) == "1970-01-01T00:00:05.000000Z"
