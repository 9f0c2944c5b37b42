"""Structured output as real clients ask for it: the openai package and LangChain, with the schemas that pydantic makes:
$defs, enums, unions with null and with a discriminator, ranges, defaults and titles."""

import enum
import json
from typing import Literal

import pytest

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

MESSAGES = [{"role": "user", "content": "Turn on the kitchen light. Answer in JSON."}]
NO_THINKING = {"enable_thinking": False}


class State(str, enum.Enum):
    ON = "on"
    OFF = "off"


class Lamp(pydantic.BaseModel):
    kind: Literal["lamp"]
    state: State


class Fan(pydantic.BaseModel):
    kind: Literal["fan"]
    speed: int = pydantic.Field(ge=0, le=3)


class Command(pydantic.BaseModel):
    """What a device shall do."""

    device: Lamp | Fan = pydantic.Field(discriminator="kind")
    room: str = pydantic.Field(description="where it is")
    note: str | None = None
    times: list[State] = pydantic.Field(default_factory=list, max_length=2)


EXPECTED = Command(device=Lamp(kind="lamp", state=State.ON), room="kitchen", note=None, times=[State.OFF])
WRITTEN = EXPECTED.model_dump_json()
FAN = Command(device=Fan(kind="fan", speed=3), room="bath", note="why not", times=[])


def call(name, arguments=WRITTEN):
    spaced = json.dumps(json.loads(arguments))
    return f'<tool_call>\n{{"name": "{name}", "arguments": {spaced}}}\n</tool_call>'


@pytest.fixture
async def client(serve):
    async def connect(script):
        served = await serve(script)
        return openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none")

    return connect


@pytest.mark.parametrize("expected", [EXPECTED, FAN])
async def test_openai_parses_an_answer_into_a_pydantic_model(client, expected):
    async with await client(lambda prompt: expected.model_dump_json()) as api:
        answer = await api.chat.completions.parse(
            model="fake", messages=MESSAGES, response_format=Command, extra_body=NO_THINKING
        )
        assert answer.choices[0].message.parsed == expected


async def test_openai_parses_a_stream_into_a_pydantic_model(client):
    async with await client(lambda prompt: WRITTEN) as api:
        manager = api.chat.completions.stream(
            model="fake", messages=MESSAGES, response_format=Command, extra_body=NO_THINKING
        )
        async with manager as stream:
            kinds = {event.type async for event in stream}
            answer = await stream.get_final_completion()
        assert answer.choices[0].message.parsed == EXPECTED
        assert {"content.delta", "content.done"} <= kinds


async def test_openai_gets_a_json_object(client):
    async with await client(lambda prompt: '{"state":"on"}') as api:
        answer = await api.chat.completions.create(
            model="fake", messages=MESSAGES, response_format={"type": "json_object"}, extra_body=NO_THINKING
        )
        assert json.loads(answer.choices[0].message.content) == {"state": "on"}


async def test_openai_parses_the_arguments_of_a_strict_tool_whole_and_streamed(client):
    async with await client(lambda prompt: call("Command")) as api:
        asked = {
            "model": "fake",
            "messages": MESSAGES,
            "tools": [openai.pydantic_function_tool(Command)],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "extra_body": NO_THINKING,
        }
        answer = await api.chat.completions.parse(**asked)
        assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == EXPECTED
        async with api.chat.completions.stream(**asked) as stream:
            kinds = [event.type async for event in stream]
            answer = await stream.get_final_completion()
        assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == EXPECTED
        assert kinds.count("tool_calls.function.arguments.delta") > 3, "the arguments came in pieces"


async def test_openai_says_that_max_tokens_has_cut_the_answer(client):
    async with await client(lambda prompt: WRITTEN) as api:
        with pytest.raises(openai.LengthFinishReasonError):
            await api.chat.completions.parse(
                model="fake", messages=MESSAGES, response_format=Command, max_tokens=20, extra_body=NO_THINKING
            )


async def test_openai_raises_its_own_error_for_a_schema_that_is_not_enforced(client):
    async with await client(lambda prompt: "{}") as api:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
        with pytest.raises(openai.BadRequestError) as error:
            await api.chat.completions.create(model="fake", messages=MESSAGES, response_format=form)
        assert error.value.param == "response_format.json_schema.schema"


@pytest.fixture
async def chat(serve):
    langchain = pytest.importorskip("langchain_openai")
    async with openai.DefaultAsyncHttpxClient() as http:

        async def connect(script):
            served = await serve(script)
            return langchain.ChatOpenAI(
                model="fake",
                base_url=f"{served.address}/v1",
                api_key="none",
                http_async_client=http,
                extra_body=NO_THINKING,
            )

        yield connect


@pytest.mark.parametrize(
    ("method", "strict", "said"),
    [
        ("json_schema", None, WRITTEN),
        ("json_schema", True, WRITTEN),
        ("json_schema", False, WRITTEN),
        ("function_calling", None, call("Command")),
        ("function_calling", True, call("Command")),
        ("json_mode", None, WRITTEN),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydantic, about LangChain's own `parsed`
async def test_langchain_gives_structured_output_by_each_of_its_methods(chat, method, strict, said):
    model = await chat(lambda prompt: said)
    more = {} if strict is None else {"strict": strict}
    structured = model.with_structured_output(Command, method=method, **more)
    assert await structured.ainvoke("Turn on the kitchen light. Answer in JSON.") == EXPECTED


@pytest.mark.parametrize("choice", ["any", "required", "set_light", True])
async def test_langchain_binds_tools_that_must_be_called(chat, choice):
    tools = pytest.importorskip("langchain_core.tools")

    @tools.tool
    def set_light(room: str, state: Literal["on", "off"]) -> str:
        """Switch a light."""
        return f"{room} {state}"

    arguments = {"room": "kitchen", "state": "on"}
    model = (await chat(lambda prompt: call("set_light", json.dumps(arguments)))).bind_tools(
        [set_light], tool_choice=choice
    )
    answer = await model.ainvoke("hi")
    assert [(one["name"], one["args"]) for one in answer.tool_calls] == [("set_light", arguments)]
    chunks = [chunk async for chunk in model.astream("hi")]
    whole = sum(chunks[1:], start=chunks[0])
    assert [(one["name"], one["args"]) for one in whole.tool_calls] == [("set_light", arguments)]
