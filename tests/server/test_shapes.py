"""Answers that keep a shape, over a real port: the fake model writes what it wants, and may write what fits."""

import json
import re

import pytest

from tests.server.test_chat import CALL, TOOLS, joined, stream

SCHEMA = {
    "type": "object",
    "properties": {"room": {"type": "string"}, "percent": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["room", "percent"],
}
COMMAND = '{"room":"kitchen","percent":40}'
FORMAT = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}}
STRICT_TOOL = {"type": "function", "function": {"name": "set_light", "parameters": SCHEMA, "strict": True}}
FAN = {"type": "function", "function": {"name": "set_fan", "parameters": SCHEMA}}
GBNF, LARK = 'root ::= "on" | "off"', 'start: "on" | "off"'


def called(name="set_light", room="kitchen", percent=40):
    arguments = json.dumps({"room": room, "percent": percent}, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def message(answer):
    return answer["choices"][0]["message"]


def calls(answer):
    functions = [call["function"] for call in message(answer)["tool_calls"]]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


KITCHEN = ("set_light", {"room": "kitchen", "percent": 40})


# every parameter


@pytest.mark.parametrize(
    ("said", "body", "expected"),
    [
        (COMMAND, {"response_format": FORMAT}, COMMAND),
        (COMMAND, {"response_format": {"type": "json_object", "schema": SCHEMA}}, COMMAND),
        (COMMAND, {"json_schema": SCHEMA}, COMMAND),
        (COMMAND, {"guided_json": SCHEMA}, COMMAND),
        (COMMAND, {"guided_json": json.dumps(SCHEMA)}, COMMAND),
        (COMMAND, {"structured_outputs": {"json": SCHEMA}}, COMMAND),
        ('{"a":[1,{}]}', {"response_format": {"type": "json_object"}}, '{"a":[1,{}]}'),
        ('{"a":1}', {"structured_outputs": {"json_object": True}}, '{"a":1}'),
        ("ab12", {"guided_regex": "[a-z]+[0-9]{2}"}, "ab12"),
        ("ab12", {"structured_outputs": {"regex": "[a-z]+[0-9]{2}"}}, "ab12"),
        ("off", {"guided_choice": ["on", "off"]}, "off"),
        ("off", {"structured_outputs": {"choice": ["on", "off"]}}, "off"),
        ("off", {"grammar": GBNF}, "off"),
        ("off", {"grammar": LARK}, "off"),
        ("off", {"guided_grammar": LARK}, "off"),
        ("off", {"structured_outputs": {"grammar": GBNF}}, "off"),
    ],
)
async def test_an_answer_that_fits_is_the_answer_and_another_is_made_to_fit(serve, said, body, expected):
    served = await serve(lambda prompt: said)
    for more in ({}, {"stream": True}):
        if more:
            chunks, _ = await stream(served, **body, enable_thinking=False)
            assert joined(chunks, "content") == expected
            assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        else:
            _, answer = await served.ask(**body, enable_thinking=False)
            assert (message(answer)["content"], answer["choices"][0]["finish_reason"]) == (expected, "stop")


async def test_a_model_that_wants_to_write_other_things_cannot(serve):
    served = await serve(lambda prompt: 'Sure! The room is the "kitchen" at 400 percent.')
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False, max_tokens=200)
    if answer["choices"][0]["finish_reason"] == "stop":
        assert 0 <= json.loads(message(answer)["content"])["percent"] <= 100
    assert message(answer)["content"].startswith('{"room":"')
    _, answer = await served.ask(guided_choice=["yes", "no"], enable_thinking=False)
    assert message(answer)["content"] in ("yes", "no")


@pytest.mark.parametrize(
    ("body", "parameter", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "unknown"),
        ({"guided_regex": r"\Z"}, "guided_regex", "cannot be held to"),
        (
            {"structured_outputs": {"regex": "(?=a)b"}},
            "structured_outputs.regex",
            "look-around, as in (?=...)",
        ),
        ({"grammar": "start: nowhere"}, "grammar", "nowhere"),
        ({"guided_grammar": "root ::= ("}, "guided_grammar", "cannot be"),
        ({"json_schema": {"type": "strng"}}, "json_schema", "strng"),
        ({"json_schema": {"type": "object", "required": 5}}, "json_schema", "required: Expected array"),
        ({"json_schema": {"not": {}}}, "json_schema", "not (at /)"),
        ({"guided_json": {"$ref": "#/a"}}, "guided_json", "leads nowhere"),
        ({"json_schema": SCHEMA, "guided_choice": ["a"]}, "guided_choice", "both ask for a shape"),
        (
            {"tools": [STRICT_TOOL], "tool_choice": {"type": "function", "function": {"name": "rm"}}},
            "tool_choice",
            "rm",
        ),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"thinking_budget": -1}, "thinking_budget", ">= 0"),
        ({"reasoning": {"max_tokens": "many"}}, "reasoning.max_tokens", "Expected int"),
    ],
)
async def test_what_cannot_be_kept_is_refused_before_a_stream_begins(serve, body, parameter, words):
    served = await serve(lambda prompt: "x")
    for more in ({}, {"stream": True}):
        status, answer = await served.ask(**body, **more, enable_thinking=False)
        assert (status, answer["error"]["param"]) == (400, parameter)
        assert words in answer["error"]["message"]
    status, _ = await served.ask()
    assert status == 200


async def test_an_error_names_the_tools_where_the_shape_of_the_answer_is_sound(serve):
    """Only the engine can tell that such a pattern cannot be kept."""
    served = await serve(lambda prompt: COMMAND)
    backwards = {"type": "object", "properties": {"room": {"type": "string", "pattern": r"a{2,1}"}}}
    tool = {"type": "function", "function": {"name": "set_light", "parameters": backwards}}
    tools = {"tools": [tool], "tool_choice": "required", "enable_thinking": False}
    status, answer = await served.ask(**tools, response_format=FORMAT)
    assert (status, answer["error"]["param"]) == (400, "tools")
    assert "A tool call cannot be held to" in answer["error"]["message"]
    status, answer = await served.ask(**tools, guided_regex="(")
    assert (status, answer["error"]["param"]) == (400, "guided_regex")


async def test_a_schema_that_is_nested_without_end_is_no_fault_of_ours(serve):
    served = await serve()
    schema = {"type": "string"}
    for _ in range(300):
        schema = {"anyOf": [schema]}
    for deep in (schema, {"const": json.loads("[" * 300 + "]" * 300)}):
        status, answer = await served.ask(json_schema=deep, enable_thinking=False, max_tokens=5)
        assert status in (200, 400), answer
    assert (await served.ask())[0] == 200


# what is not enforced

NOT = {**SCHEMA, "properties": {**SCHEMA["properties"], "room": {"type": "string", "not": {"const": "x"}}}}


async def test_what_is_not_enforced_is_in_a_header_of_whole_and_streamed_answers(serve):
    served = await serve(lambda prompt: COMMAND)
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": NOT, "strict": False}}
    for more in ({}, {"stream": True}):
        body = {"messages": [{"role": "user", "content": "hi"}], "response_format": form, "enable_thinking": False}
        async with served.post({**body, **more}) as response:
            assert response.status == 200
            assert response.headers["X-Unenforced"] == "not (at /properties/room)"
            await response.read()
        async with served.post({**body, **more, "response_format": FORMAT}) as response:
            assert "X-Unenforced" not in response.headers
            await response.read()


async def test_what_is_not_enforced_is_in_the_log_once_for_each_schema(serve, caplog):
    served = await serve(lambda prompt: COMMAND)
    other = {**NOT, "title": "another"}
    for schema in (NOT, NOT, other, NOT):
        form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": False}}
        assert (await served.ask(response_format=form, enable_thinking=False))[0] == 200
    for _ in range(2):
        broken = {"type": "function", "function": {"name": "set_light", "parameters": {"type": "string"}}}
        assert (await served.ask(tools=[broken], enable_thinking=False))[0] == 200
    told = [one.getMessage() for one in caplog.records if "not held" in one.getMessage()]
    assert ["not (at /properties/room)" in line for line in told] == [True, True, False]
    assert "its type must be object" in told[2]


@pytest.mark.parametrize("strict", [{}, {"strict": None}, {"strict": True}])
async def test_a_keyword_that_is_not_enforced_is_refused(serve, strict):
    served = await serve(lambda prompt: COMMAND)
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": NOT, **strict}}
    status, answer = await served.ask(response_format=form)
    assert (status, answer["error"]["param"]) == (400, "response_format.json_schema.schema")
    assert "not (at /properties/room) is not enforced here" in answer["error"]["message"]


async def test_a_header_can_hold_any_name_of_a_schema(serve):
    served = await serve(lambda prompt: "{}")
    schema = {"type": "object", "properties": {"房\r\nX: y": {"not": {}}}}
    form = {"type": "json_schema", "json_schema": {"schema": schema, "strict": False}}
    async with served.post(
        {"messages": [{"role": "user", "content": "hi"}], "response_format": form, "enable_thinking": False}
    ) as response:
        assert response.status == 200
        assert "X" not in response.headers
        assert "not (at" in response.headers["X-Unenforced"]


async def test_a_tool_whose_schema_is_not_enforced_is_in_the_header(serve):
    served = await serve(lambda prompt: called())
    tool = {"type": "function", "function": {"name": "set_light", "parameters": NOT}}
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [tool], "enable_thinking": False}
    async with served.post(body) as response:
        assert response.headers["X-Unenforced"] == "set_light: not (at /properties/room)"
        assert calls(await response.json()) == [KITCHEN]


# tools


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "set_light"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "set_light"}}],
            },
        },
    ],
)
async def test_a_call_that_is_required_comes_though_the_model_would_talk(serve, choice):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or 'set_light", kitchen", 40}')
    tools = [STRICT_TOOL] if choice == "required" else [FAN, STRICT_TOOL]
    _, answer = await served.ask(
        tools=tools, tool_choice=choice, enable_thinking=False, parallel_tool_calls=False, max_tokens=300
    )
    [call] = message(answer)["tool_calls"]
    assert call["function"]["name"] == "set_light"
    assert message(answer)["content"] is None
    assert all(tool["function"]["name"] in prompts[-1] for tool in tools), "the model sees all of them"


async def test_only_an_allowed_tool_can_be_called(serve):
    served = await serve(lambda prompt: called("set_fan"))
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "set_light"}}]}
    _, answer = await served.ask(
        tools=[FAN, STRICT_TOOL],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        enable_thinking=False,
        parallel_tool_calls=False,
        max_tokens=300,
    )
    [call] = message(answer)["tool_calls"]
    assert call["function"]["name"] == "set_light"


async def test_the_model_may_talk_or_call_where_the_choice_is_its_own(serve):
    served = await serve(lambda prompt: called() if "lamp" in prompt else "Hello!")
    _, answer = await served.ask("lamp", tools=[STRICT_TOOL])
    assert (calls(answer), answer["choices"][0]["finish_reason"]) == ([KITCHEN], "tool_calls")
    _, answer = await served.ask("hi", tools=[STRICT_TOOL])
    assert (message(answer)["content"], answer["choices"][0]["finish_reason"]) == ("Hello!", "stop")


async def test_several_calls_or_one_as_the_request_says(serve):
    served = await serve(lambda prompt: called() + "\n" + called(room="bath", percent=5))
    for choice in ("auto", "required"):
        body = {"tools": [STRICT_TOOL], "tool_choice": choice, "enable_thinking": False}
        _, answer = await served.ask(**body)
        assert calls(answer) == [KITCHEN, ("set_light", {"room": "bath", "percent": 5})]
        _, answer = await served.ask(**body, parallel_tool_calls=False)
        assert (calls(answer), answer["choices"][0]["finish_reason"]) == ([KITCHEN], "tool_calls")


async def test_a_call_that_the_model_writes_wrong_is_made_to_fit(serve):
    served = await serve(lambda prompt: '<tool_call>\n{"name": "rm", "arguments": "all"}\n</tool_call>')
    _, answer = await served.ask(tools=TOOLS, enable_thinking=False, max_tokens=400, parallel_tool_calls=False)
    [call] = message(answer)["tool_calls"]
    assert call["function"]["name"] == "set_light"
    assert "<tool_call>" not in (message(answer)["content"] or "")


async def test_the_pieces_of_streamed_arguments_join_to_the_whole_call(serve):
    served = await serve(lambda prompt: called(room='K"ü}{\\che'))
    chunks, _ = await stream(served, tools=[STRICT_TOOL], tool_choice="required", enable_thinking=False)
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    first = pieces[0]
    assert (first["function"], first["type"]) == ({"name": "set_light", "arguments": ""}, "function")
    text = "".join(piece["function"]["arguments"] for piece in pieces)
    assert json.loads(text) == {"room": 'K"ü}{\\che', "percent": 40}
    assert len(pieces) > 5, "it did stream"
    assert joined(chunks, "content") == ""


@pytest.mark.parametrize("limit", [5, 15, 30, 55, 65])
async def test_a_call_that_is_cut_says_length_and_is_the_same_whole_and_streamed(serve, limit):
    served = await serve(lambda prompt: called())
    body = {"tools": [STRICT_TOOL], "tool_choice": "required", "enable_thinking": False, "max_tokens": limit}
    _, answer = await served.ask(**body)
    chunks, _ = await stream(served, **body)
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert answer["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not message(answer)["content"], "half a call is no text"
    assert joined(chunks, "content") == ""
    whole = [call["function"] for call in message(answer).get("tool_calls", [])]
    streamed = "".join(piece["function"]["arguments"] for piece in pieces)
    assert [one["arguments"] for one in whole] == ([streamed] if pieces else [])
    assert json.dumps({"room": "kitchen", "percent": 40}).startswith(streamed)


# together with other parameters


async def test_thinking_comes_first_then_the_shape(serve):
    served = await serve(lambda prompt: f"<think>\nHm.\n</think>\n\n{COMMAND}")
    _, answer = await served.ask(response_format=FORMAT)
    assert message(answer) == {"role": "assistant", "content": COMMAND, "reasoning_content": "Hm."}
    _, answer = await served.ask(response_format=FORMAT, return_reasoning=False)
    assert message(answer) == {"role": "assistant", "content": COMMAND}


async def test_thinking_comes_first_then_a_required_call(serve):
    served = await serve(lambda prompt: f"<think>\nHm.\n</think>\n\n{called()}")
    _, answer = await served.ask(tools=[STRICT_TOOL], tool_choice="required")
    assert (message(answer)["reasoning_content"], calls(answer)) == ("Hm.", [KITCHEN])


async def test_a_shape_that_max_tokens_cuts_says_length(serve):
    served = await serve(lambda prompt: COMMAND)
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False, max_tokens=15)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert message(answer)["content"] == COMMAND[:15]


async def test_several_answers_keep_the_shape(serve):
    served = await serve(lambda prompt: COMMAND, parallel=3)
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False, n=3)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [COMMAND] * 3
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop"] * 3


async def test_a_stop_text_ends_an_answer_with_a_shape(serve):
    served = await serve(lambda prompt: COMMAND)
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False, stop=["chen"])
    assert (message(answer)["content"], answer["choices"][0]["finish_reason"]) == ('{"room":"kit', "stop")


async def test_log_probabilities_cover_forced_tokens_too(serve):
    served = await serve(lambda prompt: COMMAND)
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False, logprobs=True, top_logprobs=1)
    listed = answer["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in listed) == COMMAND


async def test_white_space_may_stand_in_json_only_if_asked_for(serve):
    spaced = '{ "room": "kitchen",\n "percent": 40 }'
    served = await serve(lambda prompt: spaced)
    _, answer = await served.ask(json_schema=SCHEMA, x_json_whitespace=True, enable_thinking=False)
    assert message(answer)["content"] == spaced
    served.backend.script = lambda prompt: COMMAND
    _, answer = await served.ask(json_schema=SCHEMA, x_json_whitespace=False, enable_thinking=False)
    assert message(answer)["content"] == COMMAND


async def test_the_schema_is_in_the_prompt_unless_the_client_says_no(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or COMMAND)
    for shown in (None, True):
        await served.ask(json_schema=SCHEMA, x_schema_in_prompt=shown, enable_thinking=False)
        assert "fits this JSON schema:\n" + json.dumps(SCHEMA, separators=(",", ":")) in prompts[-1]
    await served.ask(json_schema=SCHEMA, x_schema_in_prompt=False, enable_thinking=False)
    assert "JSON schema" not in prompts[-1]


async def test_null_values_ask_for_nothing(serve):
    served = await serve(lambda prompt: "Hello!")
    names = (
        "response_format grammar json_schema guided_json guided_regex guided_choice guided_grammar structured_outputs"
    )
    more = "x_json_whitespace x_schema_in_prompt thinking_budget reasoning tools tool_choice parallel_tool_calls"
    nothing = dict.fromkeys([*names.split(), *more.split()])
    status, answer = await served.ask(**nothing)
    assert (status, message(answer)["content"]) == (200, "Hello!")


# thinking with an end

LONG = "<think>\n" + " ".join(f"thought{number}" for number in range(100)) + "\n</think>\n\nYes."


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ("", {"thinking_budget": 30}),
        ("", {"reasoning": {"max_tokens": 30}}),
        ("chat:\n  thinking_budget: 30\n", {}),
        ("chat:\n  thinking_budget: 500\n", {"thinking_budget": 30}),
    ],
)
async def test_thinking_ends_with_its_budget_and_an_answer_follows(serve, settings, body):
    served = await serve(lambda prompt: LONG, settings)
    _, answer = await served.ask(**body, max_tokens=150)
    thought = message(answer)["reasoning_content"]
    assert re.fullmatch(r"thought0 .{10,30}\n+I have thought about this for long enough, and answer now\.", thought)
    assert message(answer)["content"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] < 30 + 80


async def test_a_budget_of_nothing_is_no_thinking(serve):
    served = await serve(lambda prompt: "no block" if prompt.endswith("</think>\n\n") else LONG)
    for body in ({"thinking_budget": 0}, {"reasoning": {"max_tokens": 0}}):
        _, answer = await served.ask(**body)
        assert message(answer)["content"] == "no block"


ALWAYS_THINKS = "{% for message in messages %}{{ message.content }}{% endfor %}\n<think>\n{# </think> #}"


@pytest.mark.parametrize(("settings", "body"), [("", {"thinking_budget": 0}), ("chat:\n  thinking_budget: 0\n", {})])
async def test_a_budget_of_nothing_closes_the_thinking_of_a_model_that_always_thinks(serve, settings, body):
    """By the request, or by the settings, which no client can see."""
    served = await serve(lambda prompt: "I wonder.</think>\n\nYes.", settings, template=ALWAYS_THINKS)
    _, answer = await served.ask(**body)
    assert "reasoning_content" not in message(answer)
    assert message(answer)["content"]


async def test_thinking_is_not_switched_off_by_a_budget_for_less_of_it(serve):
    served = await serve(template=ALWAYS_THINKS)
    status, answer = await served.ask(thinking_budget=20, enable_thinking=False)
    assert (status, answer["error"]["param"]) == (400, "enable_thinking")
    assert "thinking_budget: 0" in answer["error"]["message"]


async def test_an_answer_that_repeats_itself_is_stopped_and_says_so(serve):
    served = await serve(lambda prompt: "again and " * 100, stops_loops=True)
    _, answer = await served.ask()
    [choice] = answer["choices"]
    assert (choice["finish_reason"], choice["x_stopped"]) == ("stop", "loop")
    assert len(choice["message"]["content"]) < 200
    chunks, _ = await stream(served)
    assert chunks[-1]["choices"][0]["x_stopped"] == "loop"


async def test_a_shape_that_repeats_itself_is_cut_and_not_called_complete(serve):
    served = await serve(lambda prompt: '{"room":"' + "a" * 500, stops_loops=True)
    _, answer = await served.ask(json_schema=SCHEMA, enable_thinking=False)
    [choice] = answer["choices"]
    assert (choice["finish_reason"], choice["x_stopped"]) == ("length", "loop")


async def test_thinking_that_repeats_itself_is_ended_and_an_answer_follows(serve):
    served = await serve(lambda prompt: "<think>\n" + "hm so " * 100 + "\n</think>\n\nYes.", stops_loops=True)
    _, answer = await served.ask(max_tokens=250)
    assert message(answer)["reasoning_content"].endswith("answer now.")
    assert message(answer)["content"]


async def test_a_setting_lets_answers_repeat_themselves(serve):
    served = await serve(lambda prompt: "again and " * 30, "chat:\n  stop_loops: false\n")
    _, answer = await served.ask()
    assert message(answer)["content"] == "again and " * 30
    assert "x_stopped" not in answer["choices"][0]


# what is counted


async def test_forced_tokens_and_masks_are_counted(serve):
    served = await serve(lambda prompt: COMMAND)
    _, answer = await served.ask(response_format=FORMAT, enable_thinking=False)
    details = answer["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == 0
    assert len('{"room":"') <= details["x_forced_tokens"] < answer["usage"]["completion_tokens"]
    async with served.http.get(f"{served.address}/metrics") as response:
        page = dict(line.rsplit(" ", 1) for line in (await response.text()).splitlines() if not line.startswith("#"))
    assert float(page["qwen_edge_forced_tokens_total"]) == details["x_forced_tokens"]
    assert float(page["qwen_edge_shape_masks_total"]) >= len("kitchen40")
    assert float(page["qwen_edge_shape_seconds_total"]) > 0


async def test_an_answer_without_a_shape_forces_nothing(serve):
    served = await serve(lambda prompt: CALL if "set_light" in prompt else "<think>\nHm.\n</think>\n\nHello!")
    chunks, _ = await stream(served, stream_options={"include_usage": True})
    details = chunks[-1]["usage"]["completion_tokens_details"]
    assert (details["x_forced_tokens"], details["reasoning_tokens"]) == (0, len("\nHm.\n</think>"))


async def test_a_call_may_come_in_place_of_an_answer_with_a_shape(serve):
    served = await serve(lambda prompt: called() if "lamp" in prompt.rpartition("user")[2] else COMMAND)
    body = {"response_format": FORMAT, "tools": [FAN, STRICT_TOOL], "enable_thinking": False}
    _, answer = await served.ask("lamp", **body)
    assert (calls(answer), answer["choices"][0]["finish_reason"]) == ([KITCHEN], "tool_calls")
    _, answer = await served.ask("hi", **body)
    assert (message(answer)["content"], answer["choices"][0]["finish_reason"]) == (COMMAND, "stop")


async def test_a_second_turn_with_the_same_shape_has_its_prompt_in_the_cache(serve):
    served = await serve(lambda prompt: COMMAND)
    question = {"role": "user", "content": "Dim the light"}
    history = [question, {"role": "assistant", "content": COMMAND}, {"role": "user", "content": "More"}]
    for messages in ([question], history):
        body = {"messages": messages, "response_format": FORMAT, "enable_thinking": False}
        async with served.post(body) as response:
            usage = (await response.json())["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > len(json.dumps(SCHEMA, separators=(",", ":")))
