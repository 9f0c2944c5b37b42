"""A chat template is a stranger's program: it takes neither the daemon nor anybody else's answer."""

import asyncio
import os
import signal

import pytest

from qwen_edge.core.errors import UnservableError
from tests.fakes import TEMPLATE
from tests.unit.chat.templates import CHATML, FAULTS, HANGS, WITH_TOOLS
from tests.unit.renderer.test_handle import OBEDIENT
from tests.waiting import until

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


async def test_a_template_that_hangs_ends_in_a_bad_request_while_everything_else_goes_on(serve):
    served = await serve(template=OBEDIENT, render_seconds=1.0)
    hanging = asyncio.create_task(served.ask("hang"))
    assert (await served.health())[0] == 200
    assert not hanging.done(), "the event loop has waited for the template"
    status, answer = await served.ask("hi")
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")
    status, answer = await hanging
    assert (status, answer["error"]["param"]) == (400, "messages")
    assert "takes longer than 1 s" in answer["error"]["message"]


async def test_requests_that_wait_for_their_prompts_are_no_more_than_may_wait(serve):
    served = await serve(template=OBEDIENT, render_seconds=2.0, settings="  max_waiting: 1\nengine:\n  parallel: 1\n")
    hanging = [asyncio.create_task(served.ask("hang")) for _ in range(2)]
    await until(lambda: served.renderer._worker and served.renderer._jobs.qsize() == 1)
    status, answer = await served.ask("hi")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert "2 requests are being answered or waiting" in answer["error"]["message"]
    assert [status for status, _ in await asyncio.gather(*hanging)] == [400, 400]
    assert (await served.ask("hi"))[0] == 200


async def test_a_stop_does_not_wait_for_a_template_that_hangs(serve):
    served = await serve(template=OBEDIENT, render_seconds=60.0, settings="  drain_seconds: 0.2")
    hanging = asyncio.create_task(served.ask("hang"))
    await until(lambda: served.renderer._worker and served.renderer._jobs.empty() and served.renderer._opened)
    os.kill(os.getpid(), signal.SIGTERM)
    await served.task
    await asyncio.wait([hanging])
    assert served.renderer.pid is None


@pytest.mark.parametrize(("order", "words"), [("eat", "too much memory"), ("fail", "division by zero")])
async def test_what_a_template_does_to_itself_is_a_bad_request(serve, order, words):
    served = await serve(template=OBEDIENT)
    for body in ({}, {"stream": True}, {"n": 2}):
        status, answer = await served.ask(order, **body)
        assert (status, answer["error"]["param"]) == (400, "messages")
        assert words in answer["error"]["message"]
    assert (await served.ask("hi"))[0] == 200


async def test_a_renderer_that_is_killed_is_replaced_and_nobody_hears_of_it(serve):
    served = await serve()
    os.kill(served.renderer.pid, signal.SIGKILL)
    assert (await served.ask())[0] == 200


@pytest.mark.parametrize("name", ["syntax", "unknown filter", "division", "empty", "the messages are ignored"])
async def test_a_faulty_template_is_refused_before_the_daemon_is_ready(serve, name):
    template, words = FAULTS[name]
    with pytest.raises(UnservableError) as error:
        await serve(template=template or None)
    assert (words if template else "has no chat template") in str(error.value)
    assert error.value.exit_code == 78


async def test_a_template_that_hangs_is_refused_before_the_daemon_is_ready(serve):
    with pytest.raises(UnservableError, match=r"takes longer than 0\.5 s"):
        await serve(template=HANGS["nested ranges"], render_seconds=0.5)


async def test_tools_that_the_template_would_drop_are_refused(serve):
    served = await serve(template=CHATML)
    status, answer = await served.ask(tools=[TOOL])
    assert (status, answer["error"]["param"]) == (400, "tools")
    assert (await served.ask(tools=[TOOL], tool_choice="none"))[0] == 200
    assert (await served.ask(tools=[]))[0] == 200


async def test_two_clients_that_order_the_keys_of_a_tool_differently_share_their_prompt(serve):
    served = await serve(template=WITH_TOOLS)
    turned = dict(reversed({"type": "function", "function": dict(reversed(TOOL["function"].items()))}.items()))
    first = (await served.ask(tools=[TOOL]))[1]["usage"]
    second = (await served.ask(tools=[turned]))[1]["usage"]
    assert second["prompt_tokens"] == first["prompt_tokens"]
    assert second["prompt_tokens_details"]["cached_tokens"] == first["prompt_tokens"] - 1


async def test_more_messages_than_can_be_answered_are_refused(serve):
    served = await serve()
    async with served.post({"messages": [{"role": "user", "content": ""}] * 30_000}) as response:
        answer = await response.json()
    assert (response.status, answer["error"]["param"]) == (400, "messages")
    assert "There are 30000 messages" in answer["error"]["message"]


async def test_too_many_messages_are_counted_before_any_is_looked_at(serve):
    served = await serve()
    async with served.post({"messages": [{"role": "nobody", "audio": "loud"}] * 10_001}) as response:
        answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "There are 10001 messages" in answer["error"]["message"]


async def test_no_more_requests_than_allowed_get_past_the_template(serve):
    served = await serve(template=TEMPLATE, settings="  max_waiting: 1\nengine: {parallel: 1}")
    statuses = [status for status, _ in await asyncio.gather(*(served.ask() for _ in range(20)))]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 2
    assert served.supervisor.pending == 0
