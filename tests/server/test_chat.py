"""Chat completions as clients see them, streamed and not, over a real port."""

import asyncio
import json
import math
import threading

import pytest

from qwen_edge.chat.template import THINK
from qwen_edge.protocol.messages import Segment
from tests.waiting import until

THOUGHT = f"{THINK.open}\nHm.\n{THINK.close}\n\nYes."
CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "set_light", "parameters": {"type": "object"}}}]


async def stream(served, **body):
    """The chunks of a streamed answer, and whether it ended with [DONE]."""
    messages = [{"role": "user", "content": "hi"}]
    async with served.post({"messages": messages, "stream": True, **body}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        events = (await response.text()).split("\n\n")[:-1]
    assert all(event.startswith("data: ") for event in events)
    done = events[-1] == "data: [DONE]"
    return [json.loads(event[6:]) for event in (events[:-1] if done else events)], done


def joined(chunks, key: str) -> str:
    return "".join(choice["delta"].get(key) or "" for chunk in chunks for choice in chunk["choices"])


async def test_an_answer_in_one_piece(serve):
    served = await serve(lambda prompt: "Hello!")
    status, answer = await served.ask()
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    usage = answer["usage"]
    assert usage["completion_tokens"] == len("Hello!") + 1  # the end of the turn is a token too
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_a_stream_holds_the_same_answer(serve):
    served = await serve(lambda prompt: THOUGHT)
    chunks, done = await stream(served)
    assert done
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert joined(chunks, "reasoning_content") == "Hm."
    assert joined(chunks, "content") == "Yes."
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len(chunks) > 4, "it did stream"


async def test_usage_comes_last_in_a_stream_that_asks_for_it(serve):
    served = await serve()
    chunks, _ = await stream(served, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 7


async def test_reasoning_is_told_apart_and_can_be_left_out(serve):
    served = await serve(lambda prompt: THOUGHT)
    _, answer = await served.ask()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    _, answer = await served.ask(return_reasoning=False)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize("how", [{"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}])
async def test_thinking_is_switched_off_at_the_top_level_and_in_template_kwargs(serve, how):
    served = await serve(lambda prompt: "no block" if prompt.endswith("<think>\n\n</think>\n\n") else THOUGHT)
    _, answer = await served.ask(**how)
    assert answer["choices"][0]["message"]["content"] == "no block"


async def test_the_configuration_says_whether_to_think_when_the_request_does_not(serve):
    served = await serve(
        lambda prompt: "no block" if prompt.endswith("</think>\n\n") else THOUGHT, "chat:\n  thinking: false\n"
    )
    _, answer = await served.ask()
    assert answer["choices"][0]["message"]["content"] == "no block"
    _, answer = await served.ask(enable_thinking=True)
    assert answer["choices"][0]["message"]["content"] == "Yes."


async def test_tools_reach_the_prompt_and_calls_come_back(serve):
    served = await serve(lambda prompt: CALL if '"name": "set_light"' in prompt else "no tools")
    _, answer = await served.ask(tools=TOOLS)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"] == {"name": "set_light", "arguments": '{"room": "kitchen"}'}


async def test_calls_are_streamed_with_an_index_each_first_the_name_then_the_arguments_in_pieces(serve):
    served = await serve(lambda prompt: f"Both.\n{CALL}\n{CALL}")
    chunks, _ = await stream(served, tools=TOOLS)
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    for index in (0, 1):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert (first["type"], first["function"]) == ("function", {"name": "set_light", "arguments": ""})
        assert all(
            piece.keys() == {"index", "function"} and piece["function"].keys() == {"arguments"} for piece in rest
        )
        assert len(rest) > 3, "it did stream"
        assert json.loads("".join(piece["function"]["arguments"] for piece in rest)) == {"room": "kitchen"}
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    assert len({piece["id"] for piece in pieces if "id" in piece}) == 2
    assert joined(chunks, "content") == "Both."
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_second_call_is_left_out_where_one_at_a_time_is_asked_for(serve):
    served = await serve(lambda prompt: f"{CALL}\n{CALL}")
    _, answer = await served.ask(tools=TOOLS, parallel_tool_calls=False)
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1


async def test_tool_choice_none_hides_the_tools(serve):
    served = await serve(lambda prompt: CALL if "set_light" in prompt else "no tools")
    _, answer = await served.ask(tools=TOOLS, tool_choice="none")
    assert answer["choices"][0]["message"]["content"] == "no tools"


async def test_text_of_a_call_stays_text_where_no_tools_are_offered(serve):
    served = await serve(lambda prompt: "<tool_call>\n{oops\n</tool_call>")
    _, answer = await served.ask()
    assert answer["choices"][0]["message"]["content"] == "<tool_call>\n{oops\n</tool_call>"
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_the_history_reaches_the_prompt(serve):
    seen = []
    served = await serve(lambda prompt: seen.append(prompt) or "ok")
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "user", "content": "three"},
    ]
    async with served.post({"messages": history}) as response:
        assert response.status == 200
    assert seen[0] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none two<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>{"name": "f", "arguments": {}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\ndone<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_stop_texts_end_the_answer_but_not_the_thinking(serve):
    served = await serve(lambda prompt: "<think>\na\nb\n</think>\n\none\ntwo")
    _, answer = await served.ask(stop="\n")
    # nor does the blank line between think block and answer: it is the format's, not the answer's
    assert answer["choices"][0]["message"]["reasoning_content"] == "a\nb"
    assert answer["choices"][0]["message"]["content"] == "one"


async def test_max_tokens_ends_in_length(serve):
    served = await serve(lambda prompt: "a long answer")
    for name in ("max_tokens", "max_completion_tokens"):
        _, answer = await served.ask(**{name: 6})
        assert answer["choices"][0]["message"]["content"] == "a long"
        assert answer["choices"][0]["finish_reason"] == "length"


async def test_the_second_turn_reuses_what_the_first_computed(serve):
    served = await serve()
    await served.ask("hi")
    _, second = await served.ask("hi there")
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= len("user\nhi")


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"n": 2}])
async def test_the_history_is_read_before_the_next_turn_comes(serve, options):
    script = "Yes." if "enable_thinking" in options else THOUGHT
    served = await serve(lambda prompt: script, ahead_per_hour=math.inf, parallel=2)
    messages = [{"role": "user", "content": "hi"}]
    async with served.post({"messages": messages, **options}) as response:
        answer = await response.json()
    start, end = Segment("<|im_start|>", True), Segment("<|im_end|>", True)
    turns = [(start, Segment(text), end, Segment("\n")) for text in ("user\nhi", "assistant\nYes.")]
    history = len(served.backend.vocabulary.tokenize([*turns[0], *turns[1], start, Segment("user\n")]))
    decodes = served.backend.decodes
    await until(lambda: sum(decodes[-1][0]) == history)
    messages += [answer["choices"][0]["message"], {"role": "user", "content": "and then?"}]
    async with served.post({"messages": messages, **options}) as response:
        second = await response.json()
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == history


RULES = "Be brief. " * 20


def at(clock: str, role: str = "system"):
    return {"role": role, "content": f"<volatile>It is {clock}.</volatile>\n{RULES}"}


async def cached(served, *messages, **options) -> int:
    """How much of the prompt was there already."""
    async with served.post({"messages": messages, **options}) as response:
        assert response.status == 200
        return (await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize(
    ("settings", "options", "kept"),
    [
        ("", {"x_volatile": True}, True),
        ("chat:\n  volatile: true\n", {}, True),
        ("chat:\n  volatile: true\n", {"x_volatile": False}, False),
        ("", {}, False),
    ],
)
@pytest.mark.parametrize("role", ["system", "developer"])
async def test_another_clock_leaves_the_system_prompt_in_the_cache_where_it_is_marked(
    serve, settings, options, kept, role
):
    served = await serve(settings=settings)
    question = {"role": "user", "content": "Tea?"}
    assert await cached(served, at("12:01", role), question, **options) == 0
    again = await cached(served, at("13:45", role), question, **options)
    before_the_clock = len(
        served.backend.vocabulary.tokenize([Segment("<|im_start|>", True), Segment("system\n<volatile>It is 1")])
    )
    assert again == (len(served.backend.vocabulary.tokenize(beginning())) if kept else before_the_clock)


def beginning() -> list[Segment]:
    """Of the prompt, as far as the two clocks agree."""
    start, end = Segment("<|im_start|>", True), Segment("<|im_end|>", True)
    return [start, Segment(f"system\n{RULES}"), end, Segment("\n"), start, Segment("user\nIt is 1")]


async def test_what_is_volatile_may_come_in_parts(serve):
    seen = []
    served = await serve(lambda prompt: seen.append(prompt) or "ok")
    parts = [{"type": "text", "text": text} for text in ("<vola", "tile>It is noon.</volatile>", "\nBe brief.")]
    question = {
        "role": "user",
        "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "<volatile>?"}],
    }
    await cached(served, {"role": "system", "content": parts}, question, x_volatile=True)
    assert seen == [
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nIt is noon.\n\nWhat is <volatile>?<|im_end|>\n<|im_start|>assistant\n"
    ]


async def test_the_history_is_read_ahead_without_a_clock_that_will_have_changed(serve):
    served = await serve(lambda prompt: "Yes.", ahead_per_hour=math.inf)
    tea, answer = {"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}
    await cached(served, at("12:01"), tea, x_volatile=True)
    start, end = Segment("<|im_start|>", True), Segment("<|im_end|>", True)
    texts = [f"system\n{RULES}", "user\nTea?", "assistant\nYes."]
    turns = [segment for text in texts for segment in (start, Segment(text), end, Segment("\n"))]
    history = len(served.backend.vocabulary.tokenize([*turns, start, Segment("user\n")]))
    await until(lambda: sum(served.backend.decodes[-1][0]) == history)
    more = {"role": "user", "content": "More?"}
    assert await cached(served, at("13:45"), tea, answer, more, x_volatile=True) == history


async def test_requests_wait_for_each_other_and_all_are_answered(serve):
    served = await serve(lambda prompt: f"re: {prompt.split()[1]}")
    answers = await asyncio.gather(*(served.ask(f"number{i}") for i in range(8)))
    said = [answer["choices"][0]["message"]["content"] for _, answer in answers]
    assert said == [f"re: number{i}<|im_end|>" for i in range(8)]


async def test_a_client_that_goes_away_stops_the_generation(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    messages = [{"role": "user", "content": "hi"}]
    async with served.post({"messages": messages, "stream": True}) as response:
        await response.content.readline()
        gate.clear()
    await until(lambda: not served.supervisor.pending)
    before = len(served.backend.decodes)
    gate.set()
    _, answer = await served.ask("next", max_tokens=1)
    slices = -(-answer["usage"]["prompt_tokens"] // served.backend.batch)
    # at most the decode that was waiting at the gate, and then only the next request's prompt
    assert len(served.backend.decodes) - before <= 1 + slices
    assert served.backend.open_samplers == 0


async def test_several_answers_to_one_prompt_come_side_by_side(serve):
    gate = threading.Event()
    served = await serve(lambda prompt: THOUGHT, parallel=4, gate=gate)
    asking = asyncio.create_task(served.ask("once", n=3))
    await until(lambda: served.supervisor.pending == 3)
    gate.set()
    _, answer = await asking
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"Yes."}
    usage = answer["usage"]
    slices = [one for batch in served.backend.decodes for one in batch]
    prompt = usage["prompt_tokens"]
    # computed once: the second and third only need the last token's logits, each its own
    assert sum(length for start, length in slices if start < prompt) == prompt + 2
    assert max(map(len, served.backend.decodes)) == 3
    chunks, done = await stream(served, n=3, stream_options={"include_usage": True})
    assert done
    for index in range(3):
        own = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["index"] == index]
        assert own[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert joined(own, "content") == "Yes."
        assert own[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == usage["completion_tokens"]


async def test_an_answer_of_several_waits_for_its_place_as_long_as_it_takes(serve):
    served = await serve(lambda prompt: "x" * 300, settings="  wait_seconds: 0.2\n", parallel=1)
    status, answer = await served.ask("once", n=8)
    assert (status, len(answer["choices"])) == (200, 8)


async def test_a_request_has_limits_of_its_own(serve):
    served = await serve(lambda prompt: "x" * 60_000, parallel=1, context=1 << 16)
    status, answer = await served.ask("once", max_seconds=0.2)
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")
    assert 0 < len(answer["choices"][0]["message"]["content"]) < 60_000
    long = asyncio.create_task(served.ask("long"))
    await until(lambda: served.backend.open_samplers == 1)
    status, answer = await served.ask("short", wait_seconds=0.1)
    assert (status, "wait_seconds" in answer["error"]["message"]) == (503, True)
    long.cancel()


async def test_more_answers_than_may_wait_are_refused(serve):
    served = await serve(settings="  max_waiting: 1\nengine:\n  parallel: 2\n")
    status, answer = await served.ask("once", n=4)
    assert (status, answer["error"]["param"]) == (400, "n")


async def test_one_of_several_answers_that_fails_fails_the_request(serve):
    served = await serve(lambda prompt: "ok", parallel=4)
    served.backend.failing = True
    status, answer = await served.ask("once", n=3)
    assert (status, answer["error"]["code"]) == (503, "engine_failed")
    served.backend.failing = False
    await until(lambda: served.supervisor.state == "ready" and not served.supervisor.pending)


@pytest.mark.parametrize("streamed", [True, False])
async def test_every_token_has_its_logprob_when_asked(serve, streamed):
    served = await serve(lambda prompt: THOUGHT)
    if streamed:
        chunks, _ = await stream(served, logprobs=True, top_logprobs=2)
        found = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    else:
        _, answer = await served.ask(logprobs=True, top_logprobs=2)
        found = [answer["choices"][0]["logprobs"]]
    tokens = [token for logprobs in found if logprobs for token in logprobs["content"]]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == THOUGHT + "<|im_end|>"
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] == -0.5 for token in tokens)


async def test_no_logprobs_are_shown_of_reasoning_that_is_not(serve):
    served = await serve(lambda prompt: THOUGHT)
    _, answer = await served.ask(logprobs=True, return_reasoning=False)
    content = answer["choices"][0]["logprobs"]["content"]
    assert "Hm" not in "".join(token["token"] for token in content)
    assert "Yes." in "".join(token["token"] for token in content)


async def test_many_clients_are_answered_at_once_each_with_its_own_answer(serve):
    served = await serve(lambda prompt: f"You said {prompt.splitlines()[1]}", parallel=4)
    answers = await asyncio.gather(*(served.ask(f"number {i}") for i in range(10)))
    for i, (status, answer) in enumerate(answers):
        assert (status, answer["choices"][0]["message"]["content"]) == (200, f"You said number {i}<|im_end|>")
    assert max(len(batch) for batch in served.backend.decodes) == 4
    assert sum(answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 for _, answer in answers) >= 9


async def test_the_background_waits_for_those_who_wait(serve):
    gate = threading.Event()
    served = await serve(lambda prompt: "ok", gate=gate, parallel=1)
    first = asyncio.create_task(served.ask("first"))
    await until(lambda: served.supervisor.pending == 1)
    ended: list[str] = []

    async def ask(priority: str) -> None:
        status, _ = await served.ask("one more", priority=priority)
        ended.append(f"{status} {priority}")

    rest = [asyncio.create_task(ask(priority)) for priority in ("idle", "background", "interactive")]
    await until(lambda: served.supervisor.pending == 4)
    gate.set()
    await asyncio.gather(first, *rest)
    assert ended == ["200 interactive", "200 background", "200 idle"]


async def test_a_waiting_client_that_goes_away_is_forgotten(serve):
    gate = threading.Event()
    served = await serve(lambda prompt: "ok", gate=gate)
    first = asyncio.create_task(served.ask("first"))
    second = asyncio.create_task(served.ask("second"))
    await until(lambda: served.supervisor.pending == 2)
    second.cancel()
    await until(lambda: served.supervisor.pending == 1)
    gate.set()
    assert (await first)[0] == 200


async def test_a_stop_text_cuts_no_tool_call(serve):
    served = await serve(lambda prompt: CALL)
    status, answer = await served.ask(tools=TOOLS, stop=["\n", "}", '"'])
    assert status == 200
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == [TOOLS[0]["function"]["name"]]


async def test_a_call_inside_thinking_that_never_ends_is_handed_on(serve):
    served = await serve(lambda prompt: f"<think>\nThe light.\n{CALL}")
    status, answer = await served.ask(tools=TOOLS)
    assert status == 200
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], choice["message"]["reasoning_content"]) == ("tool_calls", "The light.")
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == [TOOLS[0]["function"]["name"]]
