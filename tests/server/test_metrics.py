"""/metrics says what happened and why prompts had to be computed; the log says it of each one."""

import asyncio
import logging
import math
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qwen_edge.auth.keys import Keys
from qwen_edge.protocol.messages import Load
from qwen_edge.server.admin.metrics import Metrics
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.supervisor import Supervisor
from tests.waiting import until

TOOL = {"type": "function", "function": {"name": "set_light", "parameters": {"room": "a room of the house"}}}
RULES = "You answer in one sentence, and you never tell that you are a machine."
REASONS = ("new", "changed", "evicted")


async def metrics(served, **options) -> dict[str, float]:
    """The samples, by name and value of the label, if there is one."""
    async with served.http.get(f"{served.address}/metrics", **options) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(await response.text())
        samples = [sample for family in families for sample in family.samples]
        return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


async def talk(served, *contents: str, system: str = RULES, **body) -> dict:
    """A conversation of user and assistant in turn; returns the answer."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    async with served.post({"messages": [{"role": "system", "content": system}, *turns], **body}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def misses(found: dict[str, float]) -> dict[str, float]:
    counts = {reason: found[f"qwen_edge_prefix_misses_total {reason}"] for reason in REASONS}
    return {reason: count for reason, count in counts.items() if count}


async def test_tokens_are_counted_as_usage_tells_them(serve):
    served = await serve(lambda prompt: "Yes.")
    first = (await talk(served, "hi"))["usage"]
    second = (await talk(served, "hi"))["usage"]
    found = await metrics(served)
    assert found["qwen_edge_prompt_tokens_total"] == first["prompt_tokens"] + second["prompt_tokens"]
    assert found["qwen_edge_cached_prompt_tokens_total"] == second["prompt_tokens"] - 1
    assert found["qwen_edge_completion_tokens_total"] == 2 * first["completion_tokens"]
    assert found["qwen_edge_prefix_missed_tokens_total new"] == first["prompt_tokens"]
    assert misses(found) == {"new": 1}


@pytest.mark.parametrize("streamed", [True, False])
async def test_several_answers_have_one_prompt(serve, streamed):
    served = await serve(lambda prompt: "Yes.", parallel=4)
    messages = [{"role": "user", "content": "hi"}]
    async with served.post({"messages": messages, "n": 3, "stream": streamed}) as response:
        await response.read()
    found = await metrics(served)
    alone = (await talk(served, "hi"))["usage"]["completion_tokens"]
    assert found["qwen_edge_completion_tokens_total"] == 3 * alone
    assert found["qwen_edge_prompt_tokens_total"] == len("|user\nhi|\n|assistant\n")
    assert found["qwen_edge_first_token_seconds_count"] == found["qwen_edge_answer_seconds_count"] == 1
    assert misses(found) == {"new": 1}


async def test_a_conversation_that_goes_on_never_misses(serve):
    served = await serve(lambda prompt: "Yes.", ahead_per_hour=math.inf)
    turns = ["hi"]
    for _ in range(4):
        await talk(served, *turns)
        turns += ["Yes.", "and what do you say to the next one?"]
    assert misses(await metrics(served)) == {"new": 1}


async def test_a_clock_in_the_system_prompt_is_a_change(serve, caplog):
    caplog.set_level(logging.DEBUG, "qwen_edge.service.local_engine")
    served = await serve(lambda prompt: "Yes.")
    await talk(served, "hi", system=f"It is 12:01. {RULES}")
    at = len("|system\nIt is 12:0")
    answer = await talk(served, "what a nice day", system=f"It is 12:02. {RULES}")
    found = await metrics(served)
    assert misses(found) == {"new": 1, "changed": 1}
    assert found["qwen_edge_prefix_missed_tokens_total changed"] == answer["usage"]["prompt_tokens"] - at
    assert f"prefix missed at {at} of {answer['usage']['prompt_tokens']} tokens: an earlier prompt of" in caplog.text


async def test_an_edited_history_is_told_where_it_differs(serve, caplog):
    caplog.set_level(logging.DEBUG, "qwen_edge.service.local_engine")
    served = await serve(lambda prompt: "Yes.")
    turns = ["Which plants are good for a room without sun?", "Ferns and ivy are.", "And which are not?"]
    await talk(served, *turns)
    await talk(served, "W" + turns[0], *turns[1:], "Cacti are not.", "Thank you.")
    assert misses(await metrics(served)) == {"new": 1, "changed": 1}
    assert f"prefix missed at {len(f'|system_{RULES}|_|user_W')} of" in caplog.text
    assert "an earlier prompt of this conversation differs from here on" in caplog.text


@pytest.mark.parametrize("change", [{"tools": [TOOL]}, {"chat_template_kwargs": {"enable_thinking": False}}])
async def test_other_tools_are_a_change_and_what_leaves_the_history_alone_is_none(serve, change):
    served = await serve(lambda prompt: "Yes.")
    turns = ["Which plants are good for a room without sun?", "Ferns and ivy are.", "And which are not?"]
    await talk(served, *turns, prompt_cache_key="plants")
    await talk(served, *turns, prompt_cache_key="plants", **change)
    assert misses(await metrics(served)) == {"new": 1} | ({"changed": 1} if "tools" in change else {})


@pytest.mark.parametrize("name", [{"user": "me"}, {"prompt_cache_key": "mine", "user": "me"}, {}])
async def test_the_clients_name_for_a_conversation_tells_that_it_is_the_same(serve, name):
    served = await serve(lambda prompt: "Yes.")
    await talk(served, "What do you know of whales?", **name)
    await talk(served, "Is it going to rain tomorrow?", **name)
    assert misses(await metrics(served)) == {"new": 1 if name else 2}


async def test_what_had_to_leave_the_cache_is_told(serve):
    served = await serve(lambda prompt: "Yes.", context=400)
    await talk(served, "a" * 150)
    for letter in "bcd":
        await talk(served, letter * 250, system=letter)
    await talk(served, "a" * 150)
    assert misses(await metrics(served)) == {"new": 4, "evicted": 1}


async def test_a_prompt_that_does_not_miss_is_not_in_the_log(serve, caplog):
    caplog.set_level(logging.DEBUG, "qwen_edge.service.local_engine")
    served = await serve(lambda prompt: "Yes.")
    await talk(served, "hi")
    assert "prefix missed at 0 of" in caplog.text
    caplog.clear()
    await talk(served, "hi")
    assert caplog.text == ""


async def test_requests_are_counted_by_status_and_those_of_machines_are_not(serve):
    served = await serve()
    await served.ask()
    await served.ask(temperature=3)
    await served.health()
    served.backend.failing = True
    await served.ask("something else")
    await metrics(served)
    found = await metrics(served)
    assert [found[f"qwen_edge_requests_total {status}"] for status in ("2xx", "4xx", "5xx")] == [1, 1, 1]
    assert found["qwen_edge_answer_seconds_count"] == 1
    served.backend.failing = False
    await until(lambda: served.supervisor.state == "ready")


async def test_what_the_engine_does_can_be_seen(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    found = await metrics(served)
    states = {name.split()[1]: value for name, value in found.items() if name.startswith("qwen_edge_engine_state")}
    assert [state for state, value in states.items() if value] == ["ready"]
    assert {"loading", "ready", "restarting", "stopped"} <= set(states)
    assert (found["qwen_edge_pending_requests"], found["qwen_edge_engine_restarts_total"]) == (0, 0)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.supervisor.pending)
    assert (await metrics(served))["qwen_edge_pending_requests"] == 1
    served.engines[0].kill()
    gate.set()
    await asking
    assert (await metrics(served))["qwen_edge_engine_restarts_total"] == 1
    await until(lambda: served.supervisor.state == "ready")


async def test_an_answer_that_nobody_waits_for_any_more_is_no_answer(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.post({"messages": [{"role": "user", "content": "hi"}], "stream": True}) as response:
        await response.content.readline()
        gate.clear()
    await until(lambda: not served.supervisor.pending)
    gate.set()
    found = await metrics(served)
    assert found["qwen_edge_first_token_seconds_count"] == 1
    assert found["qwen_edge_answer_seconds_count"] == found["qwen_edge_prompt_tokens_total"] == 0


async def test_the_page_needs_the_key_where_there_is_one(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    async with served.http.get(f"{served.address}/metrics") as response:
        assert response.status == 401
    found = await metrics(served, headers={"Authorization": "Bearer secret"})
    assert found["qwen_edge_requests_total 4xx"] == 0


def unused_supervisor() -> Supervisor:
    return Supervisor(
        Load("fake.gguf", 64, 16, 1, 0, "f16", "off", 0.2), SupervisorLimits(load_seconds=1, hang_seconds=1)
    )


def test_two_applications_in_one_process_count_for_themselves():
    engine = Supervisor(
        Load("fake.gguf", 64, 16, 1, 0, "f16", "off", 0.2), SupervisorLimits(load_seconds=1, hang_seconds=1)
    )
    one, other = Metrics(engine), Metrics(engine)
    one.ended(200)
    assert b'qwen_edge_requests_total{status="2xx"} 1.0' in one.page()[1]
    assert b'qwen_edge_requests_total{status="2xx"} 0.0' in other.page()[1]


def test_names_have_base_units_and_nothing_is_shown_that_was_not_asked_for():
    engine = Supervisor(
        Load("fake.gguf", 64, 16, 1, 0, "f16", "off", 0.2), SupervisorLimits(load_seconds=1, hang_seconds=1)
    )
    families = list(text_string_to_metric_families(Metrics(engine).page()[1].decode()))
    assert {family.name for family in families} == {
        "qwen_edge_requests",
        "qwen_edge_prompt_tokens",
        "qwen_edge_cached_prompt_tokens",
        "qwen_edge_completion_tokens",
        "qwen_edge_forced_tokens",
        "qwen_edge_shape_masks",
        "qwen_edge_shape_seconds",
        "qwen_edge_prefix_misses",
        "qwen_edge_prefix_missed_tokens",
        "qwen_edge_first_token_seconds",
        "qwen_edge_answer_seconds",
        "qwen_edge_engine_restarts",
        "qwen_edge_pending_requests",
        "qwen_edge_engine_state",
    }
    assert all(family.documentation for family in families)
