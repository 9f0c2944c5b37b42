"""Whatever a template does, each question ends in an answer or in an error of its own, and the next one is answered."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import msgspec
import psutil
import pytest

from qwen_edge.chat.abilities import TemplateSource
from qwen_edge.chat.messages import (
    ChatRequest,
    Content,
    Reasoning,
    ToolCall,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from qwen_edge.chat.template import ChatTemplate
from qwen_edge.core.errors import RequestError, UnservableError
from qwen_edge.protocol.messages import Alternative, Logprob, Ready, Sampling
from qwen_edge.renderer.handle import Renderer, check_template
from qwen_edge.renderer.messages import Answer, Question, Render
from qwen_edge.renderer.process import MEMORY_BYTES, RendererProcess
from tests.fakes import SPECIALS, TEMPLATE, FakeBackend, ready
from tests.unit.chat.templates import CHATML, EATS_MEMORY, FAULTS, HANGS

# does what its last message says
OBEDIENT = (
    "{% set order = messages[-1].content %}"
    "{% if order == 'hang' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    "{% if order == 'eat' %}{{ order.center(3000000000) }}{% endif %}"
    "{% if order == 'fail' %}{{ 1 / (messages | length * 0) }}{% endif %}" + CHATML
)


def model(template: str | None, **more) -> Ready:
    return msgspec.structs.replace(ready(FakeBackend(lambda _: "")), chat_template=template, **more)


def source(template: str) -> TemplateSource:
    return TemplateSource(template, specials=tuple(SPECIALS))


def request(text: str = "hi", **more) -> ChatRequest:
    return ChatRequest(messages=({"role": "user", "content": text},), sampling=Sampling(), **more)


def text_of(prompt) -> str:
    return "".join(segment.text for segment in prompt)


class DyingProcess(RendererProcess):
    """Dies of each prompt."""

    async def ask(self, question: Question) -> Answer:
        if isinstance(question, Render):
            self.process.kill()
        return await super().ask(question)


class Starts:
    """Starts processes, and remembers them. `failing` are errors that come instead; `dying`: prompts kill them."""

    def __init__(self, *failing: OSError) -> None:
        self.lives: list[RendererProcess] = []
        self.failing = list(failing)
        self.dying = False

    def __call__(self, seconds: float) -> RendererProcess:
        if self.failing:
            raise self.failing.pop()
        self.lives.append((DyingProcess if self.dying else RendererProcess)(seconds))
        return self.lives[-1]


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
async def renderer(starts):
    renderer = Renderer(seconds=1.0, start=starts)
    renderer.spawn()
    yield renderer
    await renderer.stop()
    assert all(life.process.returncode is not None for life in starts.lives), "not reaped"


async def refusal(renderer: Renderer, order: str) -> RequestError:
    with pytest.raises(RequestError) as error:
        await renderer.render(model(OBEDIENT), request(order))
    return error.value


async def test_a_prompt_is_the_one_that_the_template_gives_in_this_process(renderer, starts):
    asked = request("<|im_end|> é \U0001f642", template_arguments={"n": 10**30}, thinking=False)
    rendered = await renderer.render(model(TEMPLATE), asked)
    template = ChatTemplate(TEMPLATE, SPECIALS)
    assert rendered.prompt == template.render(asked)
    assert (rendered.reasoning, rendered.reasons) == (template.reasoning, False)
    odd = (Logprob(Alternative(b"\xff", -1.0), ()),)  # bytes that are no text
    call = [ToolCallStart("f", odd), ToolCallArguments('{"a":'), ToolCallArguments("  1}", odd), ToolCallEnd(odd)]
    said = [Reasoning("Hm."), Content("It "), Content("rains.", odd), *call, *call]
    foretold = template.next_turn(asked, "It rains.", [ToolCall("f", '{"a":  1}')] * 2)
    assert await renderer.next_turn(model(TEMPLATE), asked, said) == foretold
    assert (await renderer.render(model(CHATML + "<think>"), asked)).reasons
    assert len(starts.lives) == 1


async def test_a_template_that_hangs_is_stopped_and_those_that_wait_are_answered(renderer, starts):
    await renderer.render(model(OBEDIENT), request())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    hanging = asyncio.create_task(refusal(renderer, "hang"))
    waiting = [asyncio.create_task(renderer.render(model(OBEDIENT), request(f"wait {i}"))) for i in range(3)]
    error = await hanging
    assert (error.kind, error.parameter) == ("invalid_request", "messages")
    assert "takes longer than 1 s" in error.message
    for number, answer in enumerate(await asyncio.gather(*waiting)):
        assert f"wait {number}" in text_of(answer.prompt)
    ticking.cancel()
    assert ticks > 10, "the event loop stood still"
    assert len(starts.lives) == 2


@pytest.mark.parametrize(("order", "words"), [("eat", "too much memory"), ("fail", "division by zero")])
async def test_what_a_template_does_to_itself_is_a_bad_request(renderer, order, words):
    error = await refusal(renderer, order)
    assert (error.kind, error.parameter) == ("invalid_request", "messages")
    assert words in error.message
    assert "hi" in text_of((await renderer.render(model(OBEDIENT), request())).prompt)


async def test_a_process_that_was_killed_is_replaced_and_nobody_hears_of_it(renderer, starts):
    await renderer.render(model(OBEDIENT), request())
    os.kill(starts.lives[0].process.pid, signal.SIGKILL)
    assert "hi" in text_of((await renderer.render(model(OBEDIENT), request())).prompt)
    assert len(starts.lives) == 2


async def test_a_question_that_kills_every_process_is_a_bad_request(renderer, starts):
    await renderer.render(model(OBEDIENT), request())
    starts.dying = True
    starts.lives[0].process.kill()
    error = await refusal(renderer, "hi")
    assert (error.kind, error.parameter) == ("invalid_request", "messages")
    assert "crashes the process" in error.message
    assert len(starts.lives) == 2
    starts.dying = False
    assert "hi" in text_of((await renderer.render(model(OBEDIENT), request())).prompt)


async def test_whoever_leaves_does_not_mix_up_the_answers_of_others(renderer, starts):
    asking = [asyncio.create_task(renderer.render(model(OBEDIENT), request(f"number {i}"))) for i in range(20)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    for number, task in list(enumerate(asking))[1::2]:
        assert f"number {number}" in text_of((await task).prompt)
    assert len(starts.lives) == 1


async def test_without_a_process_the_client_may_try_again(starts):
    starts.failing = [OSError(24, "Too many open files")] * 2
    renderer = Renderer(start=starts)
    renderer.spawn()
    with pytest.raises(RequestError, match="Too many open files") as error:
        await renderer.render(model(TEMPLATE), request())
    assert (error.value.kind, error.value.retry_after) == ("unavailable", 5)
    assert "hi" in text_of((await renderer.render(model(TEMPLATE), request())).prompt)
    await renderer.stop()


@pytest.mark.parametrize("depth", [100, 400, *range(900, 1000, 9), 2000, 5000, 10_000, 20_000])
async def test_at_any_depth_there_is_a_prompt_or_a_refusal_that_names_the_depth(renderer, starts, depth):
    """How deep is too deep depends on the version of Python."""
    deep: dict = {}
    for _ in range(depth):
        deep = {"a": deep}
    try:
        rendered = await renderer.render(model(TEMPLATE), request(template_arguments=deep))
    except RequestError as error:
        assert "nested too deeply" in error.message
        assert error.kind == "invalid_request"
        assert depth > 100
    else:
        assert "hi" in text_of(rendered.prompt)
    assert "hi" in text_of((await renderer.render(model(TEMPLATE), request())).prompt)
    assert len(starts.lives) == 1


async def test_more_messages_than_the_context_has_tokens_are_refused_unrendered(renderer, starts):
    many = ChatRequest(messages=({"role": "user", "content": ""},) * 4097, sampling=Sampling())
    with pytest.raises(RequestError, match=r"4097 messages.*4096 at most") as error:
        await renderer.render(model(OBEDIENT), many)
    assert (error.value.kind, error.value.parameter) == ("invalid_request", "messages")
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(RequestError, match=r"20000 messages.*10000 at most"):
        await renderer.render(model(OBEDIENT, context=1 << 20), replace(many, messages=many.messages[:1] * 20_000))


async def test_a_template_that_was_exchanged_is_tried_again(renderer, starts):
    assert "hi" in text_of((await renderer.render(model(TEMPLATE), request())).prompt)
    assert text_of((await renderer.render(model(CHATML + "!"), request())).prompt).endswith("!")
    for broken in ("{{ 1 / 0 }}", None):
        with pytest.raises(RequestError) as error:
            await renderer.render(model(broken), request())
        assert error.value.kind == "unavailable"
    assert text_of((await renderer.render(model(CHATML + "!"), request())).prompt).endswith("!")


async def test_a_stop_ends_what_hangs_and_what_waits(renderer, starts):
    await renderer.render(model(OBEDIENT), request())
    asking = [asyncio.create_task(refusal(renderer, "hang")) for _ in range(3)]
    await asyncio.sleep(0.05)
    await renderer.stop()
    assert {error.kind for error in await asyncio.gather(*asking)} == {"unavailable"}
    with pytest.raises(RequestError):
        await renderer.render(model(OBEDIENT), request())


async def test_a_process_that_the_kernel_does_not_let_go_holds_up_nobody(renderer, starts, monkeypatch):
    await renderer.render(model(OBEDIENT), request())
    process = starts.lives[0].process

    def wait(seconds: float) -> None:
        raise subprocess.TimeoutExpired("renderer", seconds)

    with monkeypatch.context() as patch:
        patch.setattr(process, "wait", wait)
        await renderer.stop()
    process.wait(10)


async def test_the_process_ends_when_the_daemon_is_gone(starts):
    life = starts(1.0)
    await life.started()
    life._streams[1].transport.abort()
    assert await asyncio.get_running_loop().run_in_executor(None, life.process.wait, 30) == 0


async def test_a_template_that_hangs_ends_also_when_the_daemon_is_gone(starts):
    """The kernel counts its computing time."""
    renderer = Renderer(seconds=1.0, start=starts)
    await renderer.render(model(OBEDIENT), request())
    hanging = asyncio.create_task(refusal(renderer, "hang"))
    await asyncio.sleep(0.05)
    renderer._worker.cancel()  # as if the daemon stood still
    starts.lives[0]._streams[1].transport.abort()
    code = await asyncio.get_running_loop().run_in_executor(None, starts.lives[0].process.wait, 30)
    assert code == -signal.SIGXCPU
    assert (await hanging).kind == "unavailable"


async def test_limits_are_those_of_one_question_and_not_of_a_life(renderer, starts):
    began = time.process_time()
    while psutil.Process(starts.lives[0].process.pid).cpu_times().user < 3.0:
        await renderer.render(model(TEMPLATE), request("x<|im_end|>" * 50_000))
    assert len(starts.lives) == 1, time.process_time() - began


async def test_the_process_ignores_what_is_meant_for_the_daemon(renderer, starts):
    await renderer.render(model(TEMPLATE), request())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(starts.lives[0].process.pid, number)
    await renderer.render(model(TEMPLATE), request())
    assert len(starts.lives) == 1


async def test_the_process_holds_no_descriptor_of_the_daemons(renderer, starts, tmp_path):
    await renderer.render(model(TEMPLATE), request())
    process = psutil.Process(starts.lives[0].process.pid)
    assert process.num_fds() == 4  # three standard ones and the socket
    assert not process.open_files()
    assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
    assert MEMORY_BYTES < process.rlimit(psutil.RLIMIT_AS)[0] < MEMORY_BYTES + (1 << 29)


def test_limits_that_somebody_has_set_for_good_are_no_hindrance():
    """As with `ulimit -v` in a shell, or LimitCPU of a service manager."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        "resource.setrlimit(resource.RLIMIT_CPU, (3, 3)); from tests.unit.renderer.test_handle import *; "
        "print(check_template(source(CHATML)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "system messages" in done.stdout, done.stderr


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_template_is_refused_with_a_sentence(name):
    template, words = FAULTS[name]
    with pytest.raises(UnservableError) as error:
        check_template(source(template))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "convert the model again" in str(error.value)


@pytest.mark.parametrize("name", HANGS)
def test_a_template_that_hangs_is_refused_with_a_sentence(name):
    with pytest.raises(UnservableError, match=r"takes longer than 0\.5 s"):
        check_template(source(HANGS[name]), seconds=0.5)


@pytest.mark.parametrize("name", EATS_MEMORY)
def test_a_template_that_eats_memory_is_refused_with_a_sentence(name):
    with pytest.raises(UnservableError, match=r"too much memory|renders more than|too large|Cannot fit"):
        check_template(source(EATS_MEMORY[name]))


def test_a_model_without_a_template_is_told_what_to_do():
    with pytest.raises(UnservableError, match=r"has no chat template.*chat_template\.jinja"):
        check_template(None)


@pytest.mark.parametrize(
    ("template", "reasons"), [(CHATML, False), (CHATML + "<think>\n{# </think> #}", True), (TEMPLATE, False)]
)
async def test_an_answer_that_has_begun_is_behind_all_reasoning(renderer, template, reasons):
    plain = await renderer.render(model(template), request("hi"))
    assert (plain.reasons, plain.reasoned) == (reasons, False)
    begun = await renderer.render(model(template), replace(request("hi"), begun="One,"))
    assert (begun.reasons, begun.reasoned) == (False, True)
    assert begun.prompt[: len(plain.prompt)] == plain.prompt
    assert begun.prompt[-1].text == "One,"
