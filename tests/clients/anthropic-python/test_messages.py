"""Messages with the anthropic package, sync and async."""

import anthropic
import pytest

HOW = {"model": "qwen3-0.6b", "max_tokens": 2000}
LIGHT = {
    "name": "set_light",
    "description": "Switch a light on or off.",
    "input_schema": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
        "required": ["room", "state"],
    },
}
CALL = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.'
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(scripted):
    with anthropic.Anthropic(base_url=scripted.address, api_key=scripted.key) as client:
        yield client


def test_a_message_has_its_text_reason_id_and_usage(client):
    message = client.messages.create(**HOW, system="Be brief.", messages=user("@say It is on."))
    (block,) = message.content
    assert (message.type, message.role, block.type, block.text) == ("message", "assistant", "text", "It is on.")
    assert message.id.startswith("msg_")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens == len("It is on.") + 1


async def test_the_async_client_streams_text(scripted):
    client = anthropic.AsyncAnthropic(base_url=scripted.address, api_key=scripted.key)
    async with client, client.messages.stream(**HOW, messages=user("@say It is 好 🙂")) as stream:
        text = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(text) == message.content[0].text == "It is 好 🙂"


def test_raw_events_come_in_their_order(client):
    events = list(client.messages.create(**HOW, messages=user("@say It is on."), stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == len("It is on.") + 1


def test_thinking_is_a_block_of_its_own(client):
    message = client.messages.create(**HOW, **THINKING, messages=user("@think Hm.\n@say Yes."))
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking.strip(), message.content[1].text) == ("Hm.", "Yes.")
    history = [*user("@think Hm.\n@say Yes.\n@then\n@say Again."), {"role": "assistant", "content": message.content}]
    again = client.messages.create(**HOW, **THINKING, messages=[*history, {"role": "user", "content": "more"}])
    assert again.content[-1].text == "Again."


def test_without_thinking_there_is_none(client):
    message = client.messages.create(**HOW, messages=user("@think Hm.\n@say Yes."))
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("choice", ["auto", "any", "tool"])
def test_a_tool_is_used_and_its_result_is_answered(client, choice):
    wanted = {"type": choice, **({"name": "set_light"} if choice == "tool" else {})}
    first = client.messages.create(**HOW, messages=user(CALL), tools=[LIGHT], tool_choice=wanted)
    (block,) = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert (block.name, block.input) == ("set_light", {"room": "kitchen", "state": "on"})
    result = [{"type": "tool_result", "tool_use_id": block.id, "content": "done"}]
    history = [*user(CALL), {"role": "assistant", "content": first.content}, {"role": "user", "content": result}]
    second = client.messages.create(**HOW, messages=history, tools=[LIGHT])
    assert second.content[0].text == "It is on."


def test_a_tools_input_is_streamed_in_pieces(client):
    with client.messages.stream(**HOW, messages=user(CALL), tools=[LIGHT]) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_message()
    assert "input_json" in kinds
    assert message.content[-1].input == {"room": "kitchen", "state": "on"}


def test_a_stop_sequence_is_named(client):
    message = client.messages.create(**HOW, messages=user("@say one two three"), stop_sequences=["two"])
    assert (message.content[0].text, message.stop_reason, message.stop_sequence) == ("one ", "stop_sequence", "two")


def test_a_limit_is_named(client):
    message = client.messages.create(model="any", max_tokens=5, messages=user("@say one two three"))
    assert (message.content[0].text, message.stop_reason) == ("one t", "max_tokens")


def test_system_blocks_with_cache_control_are_read_and_the_next_turn_is_cached(client):
    system = [{"type": "text", "text": "You switch lights. " * 20, "cache_control": {"type": "ephemeral"}}]
    asked = {"system": system, "messages": user("@say Yes.")}
    client.messages.create(**HOW, **asked)
    assert client.messages.create(**HOW, **asked).usage.cache_read_input_tokens > 100


def test_tokens_are_counted_as_the_answer_counts_them(client):
    asked = {"model": "any", "messages": user("@say Yes."), "system": "Be brief."}
    counted = client.messages.count_tokens(**asked)
    usage = client.messages.create(**asked, max_tokens=10).usage
    whole = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert counted.input_tokens == whole


def test_an_answer_that_is_begun_is_continued(client):
    history = [*user("@say one\n@then\n@say two"), {"role": "assistant", "content": "zero"}]
    assert client.messages.create(**HOW, messages=history).content[0].text == "one"


def test_a_stream_that_is_left_frees_its_place(client, broken_off):
    with client.messages.stream(**HOW | {"max_tokens": 30000}, messages=user("@words 5000")) as stream:
        for _ in range(4):
            next(stream)
    broken_off()


def test_errors_are_the_packages_own(client, scripted):
    with pytest.raises(anthropic.BadRequestError) as error:
        client.messages.create(**HOW, messages=user("hi"), extra_body={"temperature": -1})
    assert error.value.body["type"] == "error"
    assert error.value.body["error"]["type"] == "invalid_request_error"
    assert "temperature" in error.value.body["error"]["message"]
    stranger = anthropic.Anthropic(base_url=scripted.address, api_key="sk-of-somebody-else")
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(**HOW, messages=user("hi"))


def test_the_model_is_listed(client):
    assert len([model.id for model in client.models.list()]) == 1


def test_the_demo_model_uses_the_tool_that_the_command_needs(demo):
    with anthropic.Anthropic(base_url=demo.address, api_key=demo.key) as client:
        asked = {"messages": user("Turn on the kitchen light"), "tools": [LIGHT], "extra_body": {"temperature": 0}}
        message = client.messages.create(model="any", max_tokens=200, **asked)
    (block,) = [block for block in message.content if block.type == "tool_use"]
    assert block.input == {"room": "kitchen", "state": "on"}


def test_what_this_server_cannot_do_is_refused_by_name(client):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\]"):
        client.messages.create(**HOW, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]"):
        client.messages.create(**HOW, messages=user("hi"), tools=[{"type": "bash_20250124", "name": "bash"}])
